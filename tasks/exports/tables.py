"""Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def write_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; columns whose head ends in ":" are set to the right. Cells must be escaped already."""
    rule = ["---:" if name.endswith(":") else "---" for name in head]
    lines = [[name.rstrip(":") for name in head], rule, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
