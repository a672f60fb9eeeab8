"""Every error that leaves a function on purpose.

    LedgerlineError            code, message for the user, status for HTTP, details for machines
    ├── Refused                the caller asked for something that cannot be done (4xx)
    ├── Unavailable            we cannot answer now; trying again helps (503)
    └── StepFailure            raised by steps; decided on in one place (engine/outcomes)
        ├── Transient          trying again may help
        └── Permanent          trying again cannot help

`message` is a sentence a writer understands. `detail` is for the operator and is never shown to a user.
"""

from __future__ import annotations

from typing import Any


class LedgerlineError(Exception):
    """An error with a stable code, an HTTP status and a sentence."""

    status = 500

    def __init__(
        self,
        code: str,
        message: str,
        *,
        detail: str = "",
        details: dict[str, Any] | None = None,
        status: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.detail = detail
        self.details = details or {}
        self.headers = headers or {}
        if status is not None:
            self.status = status

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class Refused(LedgerlineError):
    """The request cannot be done as asked."""

    status = 400


class Unavailable(LedgerlineError):
    """Something we need is away; the same request may work later."""

    status = 503


class StepFailure(LedgerlineError):
    """Raised inside a step. Subclasses say whether trying again may help."""

    status = 422

    def __reduce__(self) -> tuple[Any, ...]:
        # Steps run in child processes: keyword-only arguments must survive pickling.
        return (_rebuild, (type(self), self.__dict__ | {"args": self.args}))


class Transient(StepFailure):
    """Trying again may help. `retry_after`: seconds the other side asked us to wait, if it did; with `everybody`, the
    whole queue waits that long, on all workers: for a provider's rate limit."""

    def __init__(
        self,
        code: str = "try_again",
        message: str = "A service we need did not answer. We will try again.",
        *,
        retry_after: float | None = None,
        everybody: bool = False,
        detail: str = "",
    ) -> None:
        super().__init__(code, message, detail=detail)
        self.retry_after = retry_after
        self.everybody = everybody


class Permanent(StepFailure):
    """Trying again cannot help: the step run fails now, with this code and sentence."""


def _rebuild(cls: type[StepFailure], state: dict[str, Any]) -> StepFailure:
    error = cls.__new__(cls)
    error.args = state.pop("args")
    error.__dict__.update(state)
    return error
