"""`overnight logs RUN TASK`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from overnight.commands.completion import complete_run, complete_task
from overnight.commands.opening import index_of, reading_run
from overnight.commands.options import json_option, server_options, verb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from overnight.client import Client
    from overnight.commands.running_log import RunningLog
    from overnight.commands.task_logs import LogFile, Section
    from overnight.config import Settings
    from overnight.store.records import RunRecord, TaskView

LOOK_SECONDS = 0.25
_SHARE = "Let workers run as this user, or share the log directory with a group of both: chgrp GROUP, chmod 2770."
_LEVELS = "Of what tasks log, records below WARNING are kept with run -v."


@verb("logs", 'overnight logs last "count json/decoder.py"', 'overnight logs last "count json/decoder.py" -f')
@click.argument("run", metavar="RUN", shell_complete=complete_run)
@click.argument("task", metavar="TASK", shell_complete=complete_task)
@click.option("-f", "--follow", is_flag=True, help="Go on printing what is added, until the task has ended.")
@server_options
@json_option
def command(*, run: str, task: str, follow: bool, settings: Settings, as_json: bool) -> None:
    """Print the log of a task: what it logged and printed, in all its attempts.

    Of attempts whose log cannot be seen from here, the end is printed that the server keeps of those that failed, and
    the last lines of one that has been running for some seconds; with -f, what is new of these as its worker tells it.
    """
    from overnight.commands.facts import tell
    from overnight.hints import hint

    if follow and as_json:
        raise click.UsageError("--follow prints text as it comes, --json facts at once: give one of them.")
    with reading_run(settings, run) as (client, record):
        number = index_of(client, record.run_id, task)
        log = _Log(client, record, number, hint(settings, "status", record.run_id, task_id=task))
        if follow:
            log.follow()
        elif as_json:
            tell("log", log.facts())
        else:
            log.print()


class _Log:
    """The log of one task. `look` is the command that tells of the task."""

    def __init__(self, client: Client, run: RunRecord, number: int, look: str) -> None:
        from overnight.commands.task_logs import LogFile
        from overnight.naming import log_name

        self._client = client
        self._run = run
        self._number = number
        self._look = look
        self.task_id = client.structure(run.run_id).task_id(number)
        place = None if run.log_dir is None else f"{run.log_dir.rstrip('/')}/{log_name(self.task_id)}"
        self._file: LogFile | None = None if place is None else LogFile(place)
        self._seen: set[int] = set()
        self._told: set[int] = set()

    def print(self) -> None:
        """Print what there is; say on standard error, or raise Refused, where there is nothing."""
        view, sections = self._view(), self._sections()
        found = [*sections, *self._kept(), *self._running(view, sections)]
        for section in found:
            _write(section.text)
        if not found:
            _tell_of_no_log(self._run, view, self.task_id, self._file, look=self._look)

    def facts(self) -> dict[str, object]:
        """Return the attempts as plain values."""
        sections = self._sections()
        attempts = [{"attempt": one.attempt, "from": "file", "text": one.text} for one in sections]
        told = [*self._kept(), *self._running(self._view(), sections)]
        attempts += [{"attempt": one.attempt, "from": "server", "text": one.text} for one in told]
        place = self._file.place if self._file is not None and sections else None
        return {"run": self._run.run_id, "task": self.task_id, "file": place, "attempts": attempts}

    def follow(self) -> None:
        """Print what there is and what is added, until the task, or the run, is over."""
        import time

        from overnight.commands.running_log import RunningLog
        from overnight.core.states import TaskState

        running = RunningLog(self._client.deployment, self._run.run_id, self.task_id)
        sections = self._sections()
        said = _write("".join(running.logged(section.text) for section in sections))
        said += _write("".join(section.text for section in self._kept()))
        is_waiting = not said
        while True:
            view = self._view()
            is_over = self._is_over(view)
            added = running.logged(self._added())
            has_ended = view.attempt != running.attempt or view.state is not TaskState.RUNNING
            if has_ended and running.attempt not in {None, *self._seen, *self._told}:
                added += "".join(section.text for section in self._kept(running))
            said += _write(added + running.news(view, time.monotonic()))
            if is_waiting and not said and not is_over:
                click.echo(f"Nothing is logged yet; the task is {view.state.name.lower()}. {_LEVELS}", err=True)
            is_waiting = False
            if is_over:
                break
            time.sleep(LOOK_SECONDS)
        said += self._end(running)
        if not said:
            _tell_of_no_log(self._run, view, self.task_id, self._file, look=self._look)

    def _is_over(self, view: TaskView) -> bool:
        """Tell whether nothing more is to come: what is cancelled amid its work has ended when its worker says so."""
        from overnight.commands.running_log import running_attempt
        from overnight.core.states import TERMINAL, TaskState

        deployment = self._client.deployment
        if view.state is TaskState.CANCELLED:
            return running_attempt(deployment, self._run.run_id, view) is None
        return view.state in TERMINAL or deployment.store.run(self._run.run_id).phase.is_over

    def _added(self) -> str:
        """Return what was added to the file."""
        added = (self._file.read() if self._file is not None else None) or ""
        self._of_this_run(added)
        return added

    def _end(self, running: RunningLog) -> int:
        """Print what the server keeps of the end, or say where the rest is of what it told while the task ran; return
        how much was printed."""
        from overnight.naming import shown

        if self._file is not None:
            self._of_this_run(type(self._file)(self._file.place).read() or "")
        said = _write("".join(section.text for section in self._kept(running)))
        if running.worker is not None and running.attempt not in self._seen | self._told:
            place = (
                "is not kept"
                if self._file is None
                else f"is in {shown(self._file.place)} on {shown(running.worker.host)}"
            )
            state = self._view().state.name.lower()
            click.echo(f"Task {self.task_id!r} is {state}; what it wrote after these lines {place}.", err=True)
        return said

    def _view(self) -> TaskView:
        [view] = self._client.deployment.store.tasks(self._run.run_id, [self._number])
        return view

    def _sections(self) -> list[Section]:
        """Return what can be read of this run's attempts from here."""
        text = self._file.read() if self._file is not None else None
        return self._of_this_run(text or "")

    def _of_this_run(self, text: str) -> list[Section]:
        from overnight.commands.task_logs import sections_of

        sections = sections_of(text, self._run.run_id, self.task_id)
        self._seen |= {section.attempt for section in sections}
        return sections

    def _kept(self, running: RunningLog | None = None) -> list[Section]:
        """Return what the server keeps of failed attempts that the file does not hold, each once."""
        from overnight.commands.causes import certificates_of, opened_error
        from overnight.commands.task_logs import Section, kept_of
        from overnight.error_text import frames_of

        deployment, run_id = self._client.deployment, self._run.run_id
        held = self._seen | self._told
        kept = [one for one in certificates_of(deployment, run_id, self._number) if one.attempt not in held]
        self._told |= {one.attempt for one in kept}
        view, traces, sections = self._view(), dict[int, str](), list[Section]()
        if kept and view.error is not None:
            error = opened_error(deployment, run_id, self._number, view.error)
            traces[view.attempt] = frames_of(error.traceback, error.message)
        for one in kept:
            told = "" if running is None else running.told_of(one.attempt)
            lines = kept_of(one, self._run, self.task_id, traces.get(one.attempt, ""), told)
            sections.append(Section(one.attempt, "".join(f"{line}\n" for line in lines)))
        return sections

    def _running(self, view: TaskView, sections: Sequence[Section]) -> list[Section]:
        """Return the last lines of the attempt that runs, without those of `sections`, which the file holds."""
        from overnight.commands.running_log import RunningLog
        from overnight.commands.task_logs import Section

        running = RunningLog(self._client.deployment, self._run.run_id, self.task_id)
        for section in sections:
            running.logged(section.text)
        news = running.news(view, 0.0)
        return [Section(view.attempt, news)] if news else []


def _write(text: str) -> int:
    """Print a text; return its length."""
    from overnight.commands.task_logs import harmless

    sys.stdout.write(harmless(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()
    return len(text)


def _tell_of_no_log(run: RunRecord, view: TaskView, task_id: str, file: LogFile | None, *, look: str) -> None:
    """Say on standard error that a task that ran here wrote nothing. Raises Refused for one of which that is unknown.

    A log is made by the first line that is written to it. `look` is the command that tells of the task.
    """
    import socket

    from overnight.core.states import TaskState
    from overnight.errors import Refused
    from overnight.naming import shown

    if file is None:
        raise Refused(f"Run {run.run_id} was started without a log directory. This tells of the task: {look}")
    facts = json.loads(view.facts) if view.facts else {}
    host = facts.get("host")
    about = f"Task {task_id!r}"
    if file.is_forbidden:
        raise Refused(f"{about} may have a log, which this user may not read: {shown(file.place)}")
    if facts.get("unlogged"):
        where = f"the worker on {shown(str(host))}, which may not write to {shown(str(run.log_dir))}"
        raise Refused(f"{about} was run by {where}: what it printed was not kept. {_SHARE}")
    if host == socket.gethostname():
        _see_that_it_could_log(run, about)
        click.echo(f"{about} wrote nothing to its log. {_LEVELS}", err=True)
    elif host is not None:
        raise Refused(f"{about} ran on host {shown(str(host))}; what it wrote is there, in {shown(file.place)}.")
    elif view.state is TaskState.CACHED:
        raise Refused(f"{about} did not run in this run: its result was there already. This tells of it: {look}")
    else:
        raise Refused(f"{about} {_without_log(view, file)} This tells of it: {look}")


def _without_log(view: TaskView, file: LogFile) -> str:
    """Say of a task without a log, and of which no host is known, how it stands."""
    from overnight.core.states import TaskState
    from overnight.naming import shown

    state = view.state.name.lower()
    if view.state is TaskState.CANCELLED and view.attempt:
        return f"is {state}; if it had begun, what it wrote is in {shown(file.place)} on the host that ran it."
    if view.state in {TaskState.SKIPPED, TaskState.CANCELLED}:
        return f"has no log, as it never began; it is {state}."
    return f"has written no log so far; it is {state}. {_LEVELS}"


def _see_that_it_could_log(run: RunRecord, about: str) -> None:
    """Raise Refused if nothing can be written to the log directory: then no log says nothing of what was logged."""
    from overnight.errors import Refused
    from overnight.files import is_url, see_writable
    from overnight.naming import shown

    directory = run.log_dir or ""
    try:
        if not is_url(directory):
            see_writable(directory)
    except OSError as error:
        raise Refused(
            f"{about} has no log: its directory {shown(directory)} cannot be written to ({error.strerror}). "
            "Run it again with another --task-log-dir."
        ) from error
