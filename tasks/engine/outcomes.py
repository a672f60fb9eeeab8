"""What an error means: the one place that decides between trying again and failing.

Transient          again, after exponential back-off with full jitter, not before its Retry-After
Permanent          fail now
confined           again, under the code <failure>_crashed, _timeout, _out_of_memory
storage is away    again
anything else      again
attempts used up   fail, with the code of the last error; so when the time for retries is over
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from tasks.engine.attempt import Attempt
from tasks.errors import LedgerlineError, Permanent, Transient, Unavailable
from tasks.pipeline import Step
from tasks.sandbox import Confined, CpuExceeded, OutOfMemory, TimedOut

BASE_S = 1.0
CAP_S = 300.0


@dataclass(frozen=True)
class Failure:
    """How an attempt failed. `retry_in`: seconds until the next one, None when there is none. `slow_s`: how long a
    provider asked everybody to leave it alone."""

    code: str
    message: str
    detail: str
    retry_in: float | None
    slow_s: float | None = None


def judge(error: BaseException, attempt: Attempt, step: Step | None) -> Failure:
    """Decide what becomes of a step run whose attempt raised `error`."""
    code, message = _explain(error, step)
    slow = error.retry_after if isinstance(error, Transient) and error.everybody else None
    return Failure(code, message, _describe(error), _retry_in(error, attempt, step), slow)


def _retry_in(error: BaseException, attempt: Attempt, step: Step | None) -> float | None:
    if isinstance(error, Permanent) or step is None or attempt.failures + 1 >= step.attempts:
        return None
    delay = _delay(error, attempt.failures)
    return delay if attempt.age_s + delay <= step.retry_for_s else None


def _explain(error: BaseException, step: Step | None) -> tuple[str, str]:
    prefix = step.failure if step else "step"
    if isinstance(error, (TimedOut, CpuExceeded)):
        return f"{prefix}_timeout", "This took longer than it may, and was stopped."
    if isinstance(error, OutOfMemory):
        return f"{prefix}_out_of_memory", "This needed more memory than it may use, and was stopped."
    if isinstance(error, Confined):
        return f"{prefix}_crashed", "The program that worked on this crashed. Nothing else was harmed."
    if isinstance(error, TimeoutError):
        return f"{prefix}_timeout", "This took longer than it may, and was stopped."
    if isinstance(error, LedgerlineError):
        return error.code, error.message
    return f"{prefix}_error", "Something went wrong in this step. The operator has the details."


def _describe(error: BaseException) -> str:
    """For the operator: the error, its own detail, and the stack notes; bounded."""
    parts = [f"{type(error).__name__}: {error}", getattr(error, "detail", ""), *getattr(error, "__notes__", [])]
    if isinstance(error, Confined):
        parts.insert(1, f"peak memory {error.peak_memory_bytes / 2**20:.0f} MiB")
    return "\n".join(part for part in parts if part)[:20_000]


def _delay(error: BaseException, failures: int) -> float:
    if isinstance(error, Confined):
        return 0.0
    told = getattr(error, "retry_after", None)  # a step's Transient, or a store that asked us to wait
    backoff = random.uniform(0, min(CAP_S, BASE_S * 2.0**failures))  # noqa: S311 - jitter, not a secret
    waits_for_storage = 1.0 if isinstance(error, Unavailable) else 0.0
    return max(backoff, told or 0.0, waits_for_storage)
