"""One numbered execution of a step run: what the ledger hands out with a claim."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID


@dataclass(frozen=True)
class Stored:
    """A JSON value as the ledger keeps it: in the row, or in Storage under a pointer."""

    value: Any = None
    blob: dict[str, Any] | None = None


@dataclass(frozen=True)
class Reuse:
    """An earlier result of the same work. `text`: of the document, as that result describes it; a pointer."""

    result_id: str
    stored: Stored
    skipped: bool
    text: dict[str, Any] | None

    @classmethod
    def from_work(cls, reuse: dict[str, Any]) -> Reuse:
        """Read the part of `ledger.begin`'s answer that is about it."""
        return cls(reuse["result"], Stored(reuse["value"], reuse["blob"]), reuse["skipped"], reuse.get("text"))


@dataclass(frozen=True)
class Attempt:
    """What a worker needs to run a step once. `number` is the fencing token of every later write."""

    step_run: UUID
    number: int
    failures: int
    age_s: float
    previous_error: str | None
    job: UUID
    tenant: UUID
    pipeline: str
    step: str
    item: int | None
    item_value: Any
    params: dict[str, Any]
    document: dict[str, Any] | None
    inputs: dict[str, dict[str, Any]]
    mapped: bool
    deploy: str
    version: int
    reuse: Reuse | None

    @classmethod
    def from_work(cls, work: dict[str, Any]) -> Attempt:
        """Read what `ledger.begin` says of it."""
        reuse = work["reuse"]
        return cls(
            step_run=UUID(work["step_run"]),
            number=work["attempt"],
            failures=work["failures"],
            age_s=work["age_s"],
            previous_error=work["previous_error"],
            job=UUID(work["job"]),
            tenant=UUID(work["tenant"]),
            pipeline=work["pipeline"],
            step=work["step"],
            item=work["item"],
            item_value=work["item_value"],
            params=work["params"],
            document=work["document"],
            inputs=work["inputs"],
            mapped=work["mapped"],
            deploy=work["deploy"],
            version=work["version"],
            reuse=Reuse.from_work(reuse) if reuse else None,
        )

    @property
    def token(self) -> dict[str, Any]:
        """What every write of this attempt carries."""
        return {"step_run": self.step_run, "attempt": self.number}
