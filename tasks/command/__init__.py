"""The `ledgerline` command. Each subcommand is loaded when it is called, so that most never load the engine."""

from tasks.command.program import main

__all__ = ["main"]
