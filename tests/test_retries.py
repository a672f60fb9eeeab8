"""What becomes of a step run whose attempt failed: tried again, when, or failed, with which words."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from tasks.engine.attempt import Attempt
from tasks.engine.outcomes import CAP_S, Failure, judge
from tasks.errors import Permanent, Transient, Unavailable
from tasks.pipeline import Step
from tasks.sandbox import Crashed, OutOfMemory, TimedOut

TRIES = 400


def attempt(failures: int = 0, age_s: float = 0.0) -> Attempt:
    return cast(Attempt, SimpleNamespace(failures=failures, age_s=age_s))


def step(attempts: int = 10, retry_for_s: float = 86_400.0) -> Step:
    return cast(Step, SimpleNamespace(attempts=attempts, retry_for_s=retry_for_s, failure="parse"))


def delays(error: BaseException, failures: int) -> list[float]:
    """What so many steps that failed in the same way are told to wait."""
    found = [judge(error, attempt(failures), step(attempts=100)).retry_in for _ in range(TRIES)]
    assert None not in found
    return cast(list[float], found)


@pytest.mark.parametrize("error", [Transient(), ValueError("a bug"), Unavailable("storage_unavailable", "Away.")])
def test_what_may_pass_is_tried_again_until_the_attempts_are_used_up(error: Exception) -> None:
    assert judge(error, attempt(failures=8), step(attempts=10)).retry_in is not None
    assert judge(error, attempt(failures=9), step(attempts=10)).retry_in is None


def test_what_cannot_be_helped_fails_at_once_with_its_own_words() -> None:
    failure = judge(Permanent("no_text", "There is no text in it.", detail="engine x"), attempt(), step())
    assert (failure.code, failure.message, failure.retry_in) == ("no_text", "There is no text in it.", None)
    assert "engine x" in failure.detail


def test_without_its_step_nothing_is_tried_again() -> None:
    assert judge(Permanent("step_unknown", "It is gone."), attempt(), None).retry_in is None
    assert judge(ValueError("a bug"), attempt(), None).retry_in is None


@pytest.mark.parametrize("failures", [0, 3, 6])
def test_the_wait_grows_exponentially_and_is_anything_up_to_that(failures: int) -> None:
    found = delays(Transient(), failures)
    assert max(found) <= 2.0**failures
    # Full jitter: the whole width is used, so that those who failed together do not come back together.
    assert min(found) < 0.1 * 2.0**failures
    assert max(found) > 0.9 * 2.0**failures


def test_the_wait_stops_growing() -> None:
    assert 0.9 * CAP_S < max(delays(Transient(), 50)) <= CAP_S


def test_nobody_comes_back_before_the_time_they_were_told() -> None:
    assert min(delays(Transient(retry_after=40.0), 0)) == 40.0
    assert min(delays(Transient(retry_after=40.0), 8)) >= 40.0


def test_what_would_come_after_the_time_for_retries_fails_now() -> None:
    late = Transient("rate_limited", "Busy.", retry_after=100.0)
    assert judge(late, attempt(age_s=800.0), step(retry_for_s=1000.0)).retry_in is not None
    failure = judge(late, attempt(age_s=950.0), step(retry_for_s=1000.0))
    assert (failure.code, failure.retry_in) == ("rate_limited", None)


def test_only_what_is_meant_for_everybody_slows_the_queue() -> None:
    assert judge(Transient(retry_after=9.0, everybody=True), attempt(), step()).slow_s == 9.0
    assert judge(Transient(retry_after=9.0), attempt(), step()).slow_s is None


@pytest.mark.parametrize(("error", "code"), [
    (TimedOut, "parse_timeout"), (OutOfMemory, "parse_out_of_memory"), (Crashed, "parse_crashed"),
])  # fmt: skip
def test_a_child_that_was_ended_is_tried_again_at_once_under_a_code_of_its_own(error: Any, code: str) -> None:
    failure: Failure = judge(error("ended", peak_memory_bytes=2**20), attempt(), step())
    assert (failure.code, failure.retry_in) == (code, 0.0)
    assert "1 MiB" in failure.detail
