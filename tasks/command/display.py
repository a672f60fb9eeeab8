"""A job in motion on the screen: a bar with stages for people, plain lines for files and pipes."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tasks.command.console import STATUS_STYLES, clock, console, seconds
from tasks.command.events import TERMINAL, Event

_FIRST_STAGE = "initializing"
_PERCENT_STEP = 10
_NEWS = {
    "step_retrying", "step_released", "step_failed", "step_skipped", "gate_decided", "awaiting_review", "repaired",
    "reopened",
}  # fmt: skip
_FRAMES_PER_S = 10
_BAR_WIDTH = 40


@dataclass
class Standing:
    """What the events so far add up to. `stages`: those the job goes through, as far as they are known beforehand."""

    status: str = "queued"
    stage: str = _FIRST_STAGE
    percent: int = 0
    message: str = ""
    code: str | None = None
    reused: int = 0
    stages: list[str] = field(default_factory=lambda: [_FIRST_STAGE])
    began: datetime | None = None
    now: datetime | None = None

    def take(self, event: Event) -> None:
        """Take one more event into account."""
        self.now = datetime.fromisoformat(event.at)
        self.began = self.began or self.now
        self.status = event.status or self.status
        self.stage = event.stage or self.stage
        self.percent = event.percent
        self.code = event.code
        self.reused += event.kind == "reused"
        self.message = describe(event) or self.message
        if self.stage not in self.stages:
            self.stages.append(self.stage)

    @property
    def over(self) -> bool:
        """Whether the job is over."""
        return self.status in TERMINAL

    @property
    def lasted_s(self) -> float:
        """Seconds between the first event and the last."""
        return (self.now - self.began).total_seconds() if self.now and self.began else 0.0

    @property
    def lasts_s(self) -> float:
        """Seconds since the first event while the job goes on, by this machine's clock; then as `lasted_s`."""
        if self.over or self.began is None:
            return self.lasted_s
        return max(self.lasted_s, (datetime.now(UTC) - self.began).total_seconds())

    def summary(self) -> str:
        """The end in one sentence."""
        if self.status == "completed":
            again = f"; {self.reused} step{' was' if self.reused == 1 else 's were'} done before" if self.reused else ""
            return f"completed in {seconds(self.lasted_s)}{again}"
        return f"{self.status} after {seconds(self.lasted_s)}: {self.code + ': ' if self.code else ''}{self.message}"


def describe(event: Event) -> str:
    """An event in a few words; nothing for those that change nothing people would ask about."""
    if event.kind == "step_started":
        return event.where
    if event.kind == "reused":
        return f"{event.where}: done before"
    if event.kind == "step_retrying":
        return f"{event.where}: will be tried again. {event.message}"
    if event.kind == "step_completed" and event.total and event.total > 1:
        return f"{event.step}: {event.current} of {event.total}"
    if event.kind == "progress":
        return f"{event.where}: {event.message or f'{event.current} of {event.total}'}"
    return event.message


class Display(Protocol):
    """Where a followed job is shown."""

    standing: Standing

    def show(self, event: Event) -> None:
        """Take one more event."""

    def note(self, sentence: str) -> None:
        """Say something that is not an event of the job."""

    def close(self) -> None:
        """Leave the screen tidy. Nothing is shown afterwards."""


def open_display(title: str, stages: list[str]) -> Display:
    """A bar where somebody looks, lines where not. `stages`: what the job goes through, in order."""
    return Bar(title, stages, console()) if console().is_terminal else Lines(title, console())


class Lines:
    """The title, then one line for each stage, each tenth of the way and each surprise."""

    def __init__(self, title: str, out: Console) -> None:
        out.print(title, markup=False)
        self.standing = Standing()
        self._out = out
        self._open = True
        self._stage = ""
        self._tenth = -1

    def show(self, event: Event) -> None:
        """See Display."""
        if not self._open:
            return
        self.standing.take(event)
        tenth = event.percent // _PERCENT_STEP
        if event.kind in _NEWS or self.standing.stage != self._stage or tenth > self._tenth or self.standing.over:
            self._print(event)
        self._stage, self._tenth = self.standing.stage, max(self._tenth, tenth)

    def note(self, sentence: str) -> None:
        """See Display."""
        if self._open:
            self._out.print(sentence, markup=False)

    def close(self) -> None:
        """See Display."""
        self._open = False

    def _print(self, event: Event) -> None:
        where = self.standing.status if self.standing.over else self.standing.stage
        text = describe(event)
        self._out.print(f"{clock(event.at)}  {event.percent:>3} %  {where:<13} {text}".rstrip(), markup=False)


class Bar:
    """The title, the stages with marks, a bar, and what is happening; redrawn in place."""

    def __init__(self, title: str, stages: list[str], out: Console) -> None:
        self.standing = Standing(stages=[_FIRST_STAGE, *(stage for stage in stages if stage != _FIRST_STAGE)])
        self._title = title
        self._open = True
        self._live = Live(self, console=out, refresh_per_second=_FRAMES_PER_S, transient=False)
        self._live.start()

    def show(self, event: Event) -> None:
        """See Display."""
        if self._open:
            self.standing.take(event)

    def note(self, sentence: str) -> None:
        """See Display."""
        if self._open:
            self._live.console.print(sentence, style="yellow", markup=False)

    def close(self) -> None:
        """See Display."""
        if self._open:
            self._open = False
            self._live.stop()

    def __rich__(self) -> Group:
        standing = self.standing
        row = Table.grid(padding=(0, 2))
        style = STATUS_STYLES.get(standing.status, "blue")
        bar = ProgressBar(100, standing.percent, width=_BAR_WIDTH, complete_style=style, finished_style=style)
        row.add_row(bar, f"{standing.percent} %", seconds(standing.lasts_s))
        return Group(
            Text(self._title, "bold", no_wrap=True, overflow="ellipsis"),
            Padding(self._stages(), (0, 2)),
            Padding(row, (0, 2)),
            Padding(Text(standing.message, "dim", no_wrap=True, overflow="ellipsis"), (0, 2)),
        )

    def _stages(self) -> Text:
        line = Text(no_wrap=True, overflow="ellipsis")
        for stage in self.standing.stages:
            mark, style = self._mark(stage)
            line.append(f"{mark} {stage}   ", style)
        return line

    def _mark(self, stage: str) -> tuple[str, str]:
        standing = self.standing
        here, now = standing.stages.index(stage), standing.stages.index(standing.stage)
        if here < now or standing.status == "completed":
            return "✓", "green"
        if here > now:
            return "○", "dim"
        return {"failed": ("✗", "red"), "cancelled": ("✗", "yellow")}.get(standing.status, ("●", "blue"))
