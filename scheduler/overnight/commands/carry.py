"""Carry a command's work to its end: put the run in place or attach to it, watch it, tell how it ended."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

from overnight.commands.ending import Ending, exit_status, read_ending
from overnight.commands.facts import tell
from overnight.commands.interrupts import Interrupts
from overnight.commands.notice_options import await_notices, start_notifier
from overnight.commands.progress import Display, open_display
from overnight.commands.screen import say, say_to_people
from overnight.commands.unwritten import unwritten_line, unwritten_outputs
from overnight.commands.watch import Left, Watch
from overnight.commands.work import Work
from overnight.core.states import RunPhase, TaskState
from overnight.deployment import Deployment
from overnight.errors import StillEnding, UnknownRun, Unreachable
from overnight.hints import command_line, hint
from overnight.launch import Launched, launch
from overnight.naming import shown
from overnight.shared_limits import limits_text, told_limits
from overnight.store.connection import hidden
from overnight.store.records import Request, RunRecord

_HUNG_UP_STATUS = 129


def typed_command() -> str:
    """Return the command line of this process, ready to be typed again; passwords hidden."""
    return command_line(hidden(word) for word in sys.argv[1:])


def nothing_to_do(work: Work) -> str:
    """Say why nothing has to run."""
    if work.graph.empty():
        return "Nothing to do: the graph has no tasks."
    place = shown(work.status_dir)
    if len(work.graph) == 1:
        return f"Nothing to do: the one task is finished; its record is in {place}."
    return f"Nothing to do: all {len(work.graph)} tasks are finished; their records are in {place}."


def nothing(work: Work, *, as_json: bool) -> int:
    """Tell that nothing has to run; return the exit status."""
    if as_json:
        tell("nothing", {"run": None, "total": len(work.graph)})
    else:
        say(nothing_to_do(work))
    return 0


def submit(work: Work, deployment: Deployment, display: Display, stop: threading.Event | None = None) -> Launched:
    """Put the run in place, or attach to it; a run that an interrupted command left paused goes on.

    Raises StillEnding if `stop` is set while an earlier run of the command is waited for.
    """
    launched = launch(
        deployment.store,
        work.descs,
        work.decisions,
        work.cache,
        work.options,
        deployment.settings,
        deployment.keyring,
        stop,
    )
    run = launched.run
    if launched.attached:
        display.line(f"Attached to run {run.run_id}, which this command started before.")
    else:
        display.line(f"Run {run.run_id}: {len(work.to_run)} of {run.total} tasks to run.")
    if run.paused:
        display.line("It was paused and goes on.")
        deployment.store.request(run.run_id, Request.RESUME)
    for line in _other_limits(work, deployment, run):
        display.line(line)
    start_notifier(work.request.notices, work.settings, run.run_id)
    return launched


def _other_limits(work: Work, deployment: Deployment, run: RunRecord) -> Iterator[str]:
    """Say where the limits of resources that were asked for do not hold: a run that was there before keeps its own, a
    scheduler that runs since before those over all runs."""
    asked = work.options.resource_limits
    if not asked:
        return
    words = f"OVERNIGHT_RESOURCE_LIMITS={shown(limits_text(asked))}"
    if run.resource_limits != asked:
        yield f"{words} does not hold for this run, which began with: {shown(limits_text(run.resource_limits))}."
    scheduler = deployment.store.scheduler()
    over_all = None if scheduler is None else told_limits(scheduler.description)
    if over_all is not None and any(over_all.get(name) != amount for name, amount in asked.items()):
        alone = "" if run.resource_limits != asked else f"; {words} holds for this run alone"
        yield f"The scheduler that is there has other limits over all runs: {shown(limits_text(over_all))}{alone}."


class Carried:
    """One invocation of `run`, from an open deployment to the exit status."""

    def __init__(self, work: Work, deployment: Deployment, interrupts: Interrupts, *, as_json: bool) -> None:
        self._work = work
        self._deployment = deployment
        self._interrupts = interrupts
        self._as_json = as_json
        self._own_runs: list[str] = []
        self._display: Display = open_display(as_json=as_json)

    def to_the_end(self) -> int:
        """Watch until the run has ended, or a signal ended it; return the exit status."""
        try:
            ended = self._ended()
        finally:
            self._display.close()
        if ended is None:
            return nothing(self._work, as_json=self._as_json)
        if ended is Left.HUNG_UP or (ended is Left.UNPLACED and self._interrupts.hung_up):
            self._deployment.close(stop=False)
            return _HUNG_UP_STATUS
        if ended is Left.UNPLACED:
            self._say(f"Stopped while no run of it was in place. This continues: {typed_command()}")
            return self._interrupts.exit_status
        run_id = self._own_runs[-1]
        if ended is Left.UNATTENDED:
            self._say(f"Stopped; the next scheduler ends run {run_id}. This continues: {typed_command()}")
            return self._interrupts.exit_status
        if ended is Left.IMPATIENT:
            look = hint(self._deployment.settings, "status", run_id)
            self._say(f"The run may still be going on: {look}. This continues it: {typed_command()}")
            return self._interrupts.exit_status
        status = self._tell(run_id, ended)
        await_notices(self._work.request.notices, self._work.settings, run_id)
        return status

    def _ended(self) -> RunPhase | Left | None:
        """Return how the run ended; None if there is nothing left to run after all."""
        while True:
            try:
                launched = submit(self._work, self._deployment, self._display, self._interrupts.wake)
                self._own_runs.append(launched.run.run_id)
                if launched.attached:
                    self._display.line("Stopping this command (Ctrl-C) stops the run.")
                own = launched.submission
                ids = [task.task_id for task in own.tasks]
                watch = Watch(self._deployment, launched.run, ids, self._display, self._interrupts, own=own)
                return watch.until_proven()
            except StillEnding:
                return Left.UNPLACED
            except UnknownRun:
                self._display.line("Redis no longer knows the run; what is recorded as finished is kept.")
            if self._interrupts.wake.is_set():
                return Left.UNPLACED
            self._work.read_again(self._own_runs)
            if not self._work.to_run:
                return None

    def _tell(self, run_id: str, ended: RunPhase) -> int:
        ids = [task.task_id for task in self._work.graph.tasks]
        ending = read_ending(self._deployment, run_id, ids, every_failure=self._as_json)
        self._print(ending)
        self._tell_of_outputs(run_id)
        if ended is RunPhase.SUCCEEDED:
            return 0
        if self._interrupts.count:
            self._say(f"Stopped by a signal; what is finished is kept. This continues: {typed_command()}")
            return self._interrupts.exit_status
        if ended is RunPhase.CANCELLED:
            self._say(f"The run was cancelled from elsewhere. This continues: {typed_command()}")
        elif not self._as_json:
            say(f"What is finished is kept. When the cause is mended, this continues: {typed_command()}")
        return exit_status(ended)

    def _tell_of_outputs(self, run_id: str) -> None:
        try:
            codes = self._deployment.store.states(run_id)[::2]
        except (Unreachable, UnknownRun):  # how the run has ended is told already
            return
        done = [number for number, code in enumerate(codes) if code == TaskState.DONE]
        unwritten = unwritten_outputs(self._work.descs, done)
        if unwritten:
            self._say(unwritten_line(unwritten))

    def _print(self, ending: Ending) -> None:
        if self._as_json:
            tell("outcome", ending.as_json())
            return
        for line in ending.lines(verbose=self._work.request.verbosity > 0):
            say(line)

    def _say(self, text: str) -> None:
        say_to_people(text, as_json=self._as_json)
