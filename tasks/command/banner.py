"""What `up` shows when everything runs: where things are, how to submit, how to stop."""

from __future__ import annotations

from rich.panel import Panel
from rich.table import Table

from tasks.command.console import console, nearby, program_name, say
from tasks.command.state import DEFAULT, StateFolder


def print_banner(state: StateFolder, url: str, *, has_key: bool) -> None:
    """Print it: in a frame where somebody looks, as plain lines where not."""
    out, facts = console(), _facts(state, url, has_key=has_key)
    if not out.is_terminal:
        for label, text in facts:
            say(label.lower(), text)
        return
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, text in facts:
        grid.add_row(label, text)
    out.print(Panel(grid, title="Ledgerline runs", border_style="green", expand=False))


def _facts(state: StateFolder, url: str, *, has_key: bool) -> list[tuple[str, str]]:
    option = "" if state.path == DEFAULT.absolute() else f" --state {nearby(state.path)}"
    key = f"{nearby(state.key)}  (send it as: Authorization: Bearer …)" if has_key else "yours: set LEDGERLINE_TOKEN"
    return [
        ("API", f"{url}/api/v1"),
        ("Docs", f"{url}/api/v1/docs"),
        ("Key", key),
        ("State", nearby(state.path)),
        ("Logs", nearby(state.logs)),
        ("Submit", f"{program_name()} submit FILE --watch{option}"),
        ("Stop", "Ctrl-C"),
    ]
