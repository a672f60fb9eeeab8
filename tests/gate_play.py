"""What people and workers do around gates."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from ledger_play import Play, Row, Work, items

from tasks import ledger

PACKAGES = ("sample_pipelines", "sample_graphs")


def open_reviews(play: Play, job: UUID) -> dict[str, Row]:
    rows = play.all("select * from reviews where job_id = %s and status = 'open'", job)
    return {row["step"]: row for row in rows}


def reviews(play: Play, job: UUID) -> list[tuple[str, str]]:
    rows = play.all("select step, status from reviews where job_id = %s order by id", job)
    return [(row["step"], row["status"]) for row in rows]


def decide(play: Play, job: UUID, step: str, decision: Any, comment: str = "", from_step: str | None = None) -> None:
    review = open_reviews(play, job)[step]
    assert ledger.decide(play.connection, review["id"], play.tenant, play.user, decision, comment, from_step) == job


def work_on(play: Play, width: int = 3) -> list[tuple[str, int | None]]:
    """Work until only people can go on. Returns the step runs that were worked on."""
    done = []
    while works := play.begin_all():
        for work in works:
            assert play.complete(work, work["item"], items(width) if work["mapped"] else None)
            done.append((work["step"], work["item"]))
        assert play.drift() == []
    return sorted(done, key=str)


def waiting(play: Play) -> UUID:
    """A job that waits for its reviewer and for nothing else."""
    job = play.submit("reviewed")
    work_on(play)
    assert play.job(job)["status"] == "awaiting_review"
    return job


def branching(play: Play) -> tuple[UUID, dict[int, Work]]:
    """A job with an open gate, beside which three items are being worked on."""
    job = play.submit("branched")
    play.complete(play.begin(), 0, items(3))
    return job, {work["item"]: work for work in play.begin_all()}
