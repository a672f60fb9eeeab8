"""What the commands print, and how."""

from __future__ import annotations

import shutil
import sys
from datetime import datetime
from functools import cache
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

# Where nobody looks at a screen, lines must not be broken: other programs read them.
_WIDTH_OF_FILES = 200

STATUS_STYLES = {
    "queued": "cyan",
    "running": "blue",
    "awaiting_review": "magenta",
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
}


@cache
def console() -> Console:
    """Standard output. One for the whole process, so that lines and a moving bar do not mix."""
    plain = not sys.stdout.isatty()
    return Console(highlight=False, soft_wrap=plain, width=_WIDTH_OF_FILES if plain else None)


def say(topic: str, text: str, style: str = "") -> None:
    """One line of a story: what it is about, then what happened."""
    console().print(Text.assemble((f"{topic:<9} ", "bold"), (text, style)))


def table(*columns: str) -> Table:
    """A table without lines, with headings."""
    made = Table(box=None, header_style="bold", pad_edge=False)
    for number, column in enumerate(columns):
        made.add_column(column, overflow="fold", no_wrap=number == 0)
    return made


def status_text(status: str) -> Text:
    """A job's status in its colour."""
    return Text(status, STATUS_STYLES.get(status, ""))


def clock(moment: str) -> str:
    """An ISO time as local date and time of day."""
    return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def seconds(value: float) -> str:
    """A duration for people."""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def size(count: int) -> str:
    """A number of bytes for people."""
    value = float(count)
    for unit in ("bytes", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def nearby(path: Path) -> str:
    """A path, relative when it is under the working directory."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def program_name() -> str:
    """How to call this program again from where the user is."""
    called = Path(sys.argv[0])
    found = shutil.which("ledgerline")
    if called.name != "ledgerline" or (found and Path(found).resolve() == called.resolve()):
        return "ledgerline"
    return nearby(called.absolute())
