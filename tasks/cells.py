"""Cells of tables that people open in a spreadsheet."""

from __future__ import annotations

# What a spreadsheet takes for the beginning of a formula, also after a tab or the end of a line.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def escape_cell(value: object) -> str:
    """A CSV cell that no spreadsheet takes for a formula."""
    if isinstance(value, bool | int | float):
        return str(value)
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(FORMULA) else text
