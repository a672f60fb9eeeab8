"""Reads one document as a worker's child would, under limits, and prints how it ended as JSON.

Usage: extraction_child.py FILE ENGINE MEMORY_BYTES CPU_SECONDS   (ENGINE: "default" or "pypdf")
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

from tasks.documents.extract import extract
from tasks.documents.kinds import HEAD_BYTES, sniff
from tasks.errors import LedgerlineError


def main(path: Path, engine: str, memory: int, seconds: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print(json.dumps(read(path, None if engine == "default" else engine)))


def read(path: Path, engine: str | None) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        found = extract(path, sniff(head, path.name, path=path).name, engine=engine)
    except LedgerlineError as error:
        return {"outcome": error.code, "message": error.message, "detail": error.detail}
    return {"outcome": "completed", **found.model_dump()}


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
