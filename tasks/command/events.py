"""A job's events as they come out of the API, and the wire format they are streamed in (server-sent events)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

TERMINAL = ("completed", "failed", "cancelled")


@dataclass(frozen=True)
class Event:
    """One line of a job's history. `status` and `percent` are the job's, after it happened."""

    seq: int
    at: str
    kind: str
    stage: str
    step: str | None
    item: int | None
    attempt: int | None
    message: str
    status: str
    percent: int
    current: int | None
    total: int | None
    code: str | None

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Event:
        """Read an event row of the API or the database."""
        data = row.get("data") or {}
        return cls(
            seq=int(row["seq"]),
            at=str(row["at"]),
            kind=str(row["kind"]),
            stage=row.get("stage") or "",
            step=row.get("step"),
            item=row.get("item"),
            attempt=row.get("attempt"),
            message=row.get("message") or "",
            status=str(data.get("status") or ""),
            percent=int(data.get("percent") or 0),
            current=data.get("current"),
            total=data.get("total"),
            code=data.get("code"),
        )

    @property
    def where(self) -> str:
        """The step, and for a map step its item, counted from 1."""
        if self.step is None:
            return ""
        return self.step if self.item is None else f"{self.step} {self.item + 1}"


@dataclass(frozen=True)
class Frame:
    """One message of a stream."""

    event: str
    id: str
    data: str

    def json(self) -> dict[str, Any]:
        """The data, read as a JSON object."""
        return dict(json.loads(self.data))


def read_frames(lines: Iterable[str]) -> Iterator[Frame]:
    """Messages out of the lines of an event stream. Comments and messages without data are left out."""
    fields: dict[str, list[str]] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            fields.setdefault(name, []).append(value.removeprefix(" "))
            continue
        if "data" in fields:
            yield Frame(_last(fields, "event", "message"), _last(fields, "id", ""), "\n".join(fields["data"]))
        fields = {}


def _last(fields: dict[str, list[str]], name: str, default: str) -> str:
    return fields.get(name, [default])[-1]
