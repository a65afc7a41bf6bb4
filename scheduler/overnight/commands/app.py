"""The group of all verbs, and the one place where errors become a sentence and an exit status."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import click

from overnight.commands.interrupts import Interrupted
from overnight.commands.screen import SteadyStream, steady_streams, unwritten
from overnight.errors import OvernightError, nearest
from overnight.naming import shown, without_controls

#: The verbs in the order in which people meet them, each with its line in the list, which fits 80 columns uncut.
VERBS = {
    "run": "Run the graph that TARGET makes, to its end.",
    "submit": "Start the graph that TARGET makes and leave it running.",
    "plan": "Say what a run of TARGET would do, and why.",
    "runs": "List the runs that are kept, newest first.",
    "status": "Show where a run stands, or one task of it.",
    "follow": "Watch a run until it is over.",
    "report": "Write one page that tells a whole run.",
    "logs": "Print what a task logged and printed.",
    "why": "Say why a task runs, waits, failed, was skipped or would run.",
    "cancel": "Stop a run; what is finished is kept.",
    "pause": "Start nothing more of a run until it is resumed.",
    "resume": "Let a paused run go on.",
    "retry": "Run failed and cancelled tasks of a run again.",
    "graph": "Draw a graph with the states of its tasks as colours.",
    "workers": "List the workers that are there, and what each is doing.",
    "scheduler": "Run a scheduler until SIGTERM.",
    "worker": "Run tasks from queues until SIGTERM.",
    "doctor": "Check settings, server, keys, directories and workers.",
    "demo": "Try it: a census of Python's own standard library.",
}
#: Those that change nothing: where nobody reads what they tell, they end.
TELLING = frozenset({"plan", "runs", "status", "follow", "report", "logs", "why", "graph", "workers", "doctor"})
DEBUG_VARIABLE = "OVERNIGHT_DEBUG"


class Verbs(click.Group):
    """Finds each verb in the module of its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        """Return the verbs in the order in which people meet them."""
        return list(VERBS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list of verbs without loading their modules."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Return a verb's command, None if there is no such verb."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"overnight.commands.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb that was typed; the error for an unknown one names the nearest."""
        if args and not args[0].startswith("-") and args[0] not in VERBS:
            raise click.UsageError(f"There is no command {args[0]!r}{nearest(args[0], list(VERBS))}", ctx)
        if args and args[0] in TELLING and isinstance(sys.stdout, SteadyStream):
            sys.stdout.end_with_reader()
        return super().resolve_command(ctx, args)


@click.command(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="\b\nExample:\n  overnight demo\n  overnight run flow.py:build -p year=2026\n\n"
    "Exit status: 0 all succeeded; 1 tasks failed; 2 usage; 3 the graph is invalid; 4 server or workers cannot "
    "be reached; 5 cancelled or refused; 130 and 143 stopped by a signal.",
)
@click.version_option(package_name="overnight", prog_name="overnight")
def overnight() -> None:
    """Run graphs of Python tasks to their end, whatever dies on the way."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command line and return the exit status; whatever goes wrong is one sentence on standard error."""
    steady_streams()
    try:
        status = _carried_out(arguments)
        sys.stdout.flush()
    except click.exceptions.Exit as gone:  # nobody reads the last line
        return gone.exit_code
    reason = unwritten()
    return status if reason is None else _told(f"Standard output cannot be written: {reason}.", status or 1)


def _carried_out(arguments: Sequence[str] | None) -> int:
    try:
        status = overnight.main(args=arguments, prog_name="overnight", standalone_mode=False)
        return status if isinstance(status, int) else 0
    except click.ClickException as error:
        return _told(_with_help(error), error.exit_code)
    except Interrupted as interrupted:
        return _told("Interrupted before anything was started.", interrupted.exit_status)
    except (click.Abort, KeyboardInterrupt):
        return 128 + signal.SIGINT
    except OvernightError as error:
        _trace()
        return _told(str(error), error.exit_status)
    except Exception as error:  # a defect of overnight itself: one sentence for the user, the rest on request
        _trace()
        return _told(_refusal_of_system(error) if isinstance(error, OSError) else _defect(error), 1)


def _defect(error: Exception) -> str:
    return f"Unexpected {type(error).__name__}: {error}. {DEBUG_VARIABLE}=1 shows where it was raised."


def _refusal_of_system(error: OSError) -> str:
    """Say what the operating system did not do: a directory that is gone, no more descriptors, a file size limit."""
    if isinstance(error, FileNotFoundError) and not _is_somewhere():
        return "The current directory does not exist any more: go to another one."
    place = f": {shown(os.fsdecode(error.filename))}" if isinstance(error.filename, str | bytes) else ""
    reason = error.strerror or f"{type(error).__name__}: {error}"
    return f"The system refuses what is needed: {reason}{place}. {DEBUG_VARIABLE}=1 shows where."


def _is_somewhere() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return False
    return True


def _with_help(error: click.ClickException) -> str:
    if not isinstance(error, click.UsageError):
        return error.format_message()
    path = error.ctx.command_path if error.ctx else "overnight"
    message = error.format_message()
    sentence = message if message.endswith((".", "?", "!")) else f"{message}."
    is_left_over = "unexpected extra argument" in message
    repeat = " Repeat -t for each task." if is_left_over and error.ctx and error.ctx.params.get("task_ids") else ""
    return f"{sentence}{repeat} '{path} --help' shows what can be given."


def _told(sentence: str, status: int) -> int:
    sys.stderr.write(f"overnight: {without_controls(sentence)}\n")
    sys.stderr.flush()
    return status


def _trace() -> None:
    if os.environ.get(DEBUG_VARIABLE) == "1":
        sys.stderr.write(traceback.format_exc())
