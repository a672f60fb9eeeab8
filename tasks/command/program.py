"""The list of subcommands, and what becomes of an error that one of them raises.

Exit codes: 0 done; 1 refused or failed; 2 wrong settings or wrong use, and for `watch` a cancelled job;
130 stopped by Ctrl-C.
"""

from __future__ import annotations

import importlib
import io
import sys
from typing import NoReturn, cast

import click

COMMANDS = {
    "up": ("tasks.command.up:up", "Run everything here: Postgres, the API and a worker."),
    "submit": ("tasks.command.jobs:submit", "Upload files and start a job for each."),
    "watch": ("tasks.command.watch:watch", "Follow a job live, or see how it went."),
    "jobs": ("tasks.command.jobs:jobs", "List jobs, newest first."),
    "explain": ("tasks.command.explain:explain", "Show a job's history and what it waits for."),
    "cancel": ("tasks.command.jobs:cancel", "Stop a job."),
    "retry": ("tasks.command.jobs:retry", "Take a failed job up again where it failed."),
    "review": ("tasks.command.review:review", "List what waits for a person."),
    "approve": ("tasks.command.review:approve", "Approve what waits: its job goes on."),
    "reject": ("tasks.command.review:reject", "Reject what waits: its job fails."),
    "reprocess": ("tasks.command.review:reprocess", "Run the job that waits again from a step."),
    "artifacts": ("tasks.command.jobs:artifacts", "List a job's artifacts, or save them."),
    "doctor": ("tasks.command.doctor:doctor", "Check that everything works, and say what to do if not."),
    "pause": ("tasks.command.pauses:pause", "Begin nothing more of a queue or of a tenant."),
    "resume": ("tasks.command.pauses:resume", "Go on with a queue or a tenant that was paused."),
    "limits": ("tasks.command.limits:limits", "Show or change what one tenant may have."),
    "migrate": ("tasks.command.release:migrate", "Bring the database up to date and publish the pipelines."),
    "worker": ("tasks.command.release:worker", "Run a worker until it is told to stop."),
    "settings": ("tasks.command.release:settings", "Show every setting, its meaning and its value."),
}


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every name, in the order of COMMANDS."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command; None when there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        return cast(click.Command, getattr(importlib.import_module(module), name))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list for `--help`, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ledgerline", prog_name="ledgerline")
def program() -> None:
    """Ledgerline runs slow document work in the background and shows it while it happens.

    Begin with `ledgerline up`. It needs nothing else to be installed.
    """


def main() -> NoReturn:
    """What the console script calls."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that has no ✓ shows a ? instead of a stack of error messages.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line. Returns the exit code; errors that are meant for people become sentences."""
    try:
        result = program.main(args=arguments, prog_name="ledgerline", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        # Whoever read our output (`head`, say) has seen enough.
        sys.stderr.close()
        return 0
    except Exception as error:
        return _report(error)
    return result if isinstance(result, int) else 0


def _report(error: Exception) -> int:
    from tasks.errors import LedgerlineError
    from tasks.settings import SettingsInvalid

    if isinstance(error, SettingsInvalid):
        click.echo("These settings are missing or wrong:", err=True)
        click.echo("\n".join(f"  {line}" for line in str(error).splitlines()), err=True)
        return 2
    if isinstance(error, LedgerlineError):
        click.echo(str(error), err=True)
        return 1
    raise error
