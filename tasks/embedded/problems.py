"""What can go wrong with the embedded Postgres, as sentences."""

from __future__ import annotations

import errno
from pathlib import Path

from tasks.errors import Unavailable

ELSEWHERE = "Or set DATABASE_URL to use a Postgres that runs elsewhere."


class EmbeddedPostgresError(Unavailable):
    """The embedded Postgres cannot run. `code` is stable, `message` says what to do, `detail` quotes Postgres."""


class PortTaken(Exception):
    """Another program took the port between choosing and listening. Never leaves this package."""


def explain_output(output: str, doing: str) -> EmbeddedPostgresError:
    """The sentence for what initdb or postgres printed while `doing` (a gerund, such as "starting")."""
    if "No space left on device" in output:
        return disk_full(output)
    return EmbeddedPostgresError(
        "postgres_failed", f"Postgres failed while {doing}: {_last_complaint(output)}", detail=output
    )


def explain_os_error(error: OSError, folder: Path) -> EmbeddedPostgresError:
    """The sentence for a file system error under `folder`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return disk_full(str(error))
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        message = f"This user may not write or open {error.filename or folder}. Choose another folder. {ELSEWHERE}"
        return EmbeddedPostgresError("postgres_folder_denied", message, detail=str(error))
    return EmbeddedPostgresError("postgres_failed", f"Postgres could not be started: {error}.", detail=str(error))


def disk_full(detail: str) -> EmbeddedPostgresError:
    """There is no room for the database."""
    return EmbeddedPostgresError("disk_full", "The disk is full. Free some space and start again.", detail=detail)


def _last_complaint(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    complaints = [line for line in lines if "FATAL" in line or "PANIC" in line or "error:" in line]
    return (complaints or lines or ["it said nothing"])[-1]
