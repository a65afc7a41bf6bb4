"""Every error that overnight raises or records, under one root.

Where the documented API promises a built-in class (ValueError, KeyError, AssertionError), the error declared
here is a subclass of that too, so callers may catch either.

Two families: errors that are *raised* to the caller of a function, and `TaskError`, errors that overnight
itself produces as the *result* of a task.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

LONGEST_CYCLE_SHOWN = 20


class OvernightError(Exception):
    """The root of everything that overnight raises. `exit_status` is what the command exits with."""

    exit_status = 1


# Errors of the caller: what was typed, configured or built.


class UsageError(OvernightError, ValueError):
    """What was typed or configured cannot be used."""

    exit_status = 2


class UnusableDirectory(UsageError, OSError):
    """A directory that was given cannot be made, or nothing can be written there."""


class GraphError(OvernightError, ValueError):
    """The graph cannot be built or run as it stands."""

    exit_status = 3


class InvalidTaskId(GraphError):
    """A task id is empty or holds NUL or a lone surrogate."""


class InvalidTask(GraphError):
    """A task's options, arguments or chain do not fit together."""


class DuplicateTask(GraphError):
    """A task id is already in the graph, in the same batch of additions, or finished in the active run."""


class UnknownTask(GraphError):
    """A task was named that the graph does not hold."""


class UnknownTaskName(UsageError, UnknownTask):
    """What was typed for a task names none of the graph."""


class CyclicGraph(GraphError):
    """The dependencies form a cycle; `cycle` holds its task ids in order."""

    def __init__(self, cycle: Sequence[str]) -> None:
        self.cycle = tuple(cycle)
        shown = [repr(task_id) for task_id in self.cycle[:LONGEST_CYCLE_SHOWN]]
        if len(self.cycle) > LONGEST_CYCLE_SHOWN:
            shown.append(f"... ({len(self.cycle)} tasks)")
        else:
            shown.append(shown[0])
        super().__init__(f"Cyclic dependency: {' -> '.join(shown)}. Remove one of these dependencies.")

    def __reduce__(self) -> tuple[type[CyclicGraph], tuple[tuple[str, ...]]]:
        return type(self), (self.cycle,)


class MissingDependency(GraphError):
    """A task depends on one that is neither in the graph nor completed."""


class BlockedTasks(GraphError):
    """Nothing runs, nothing is ready and tasks are left."""


class RunInProgress(OvernightError, AssertionError):
    """`execute` was called while a run of the same executor is active."""


class RecordMismatch(OvernightError, AssertionError):
    """The result of a cache record that is not COMPUTED, or the error of one that is not ERROR, was asked for."""


class MissingExtra(OvernightError, ImportError):
    """A feature needs a package that is not installed; the message names the extra."""

    exit_status = 2


# Errors of the surroundings: server, workers, directories.


class Unreachable(OvernightError, ConnectionError):
    """Redis, or what else a run needs, cannot be reached or used."""

    exit_status = 4


class NoRoom(Unreachable):
    """The server serves as many clients as its maxclients allows."""


class StoreFull(Unreachable):
    """The server's memory or disk is full: the step was refused whole and may be repeated when there is room."""


class MisusedKey(Unreachable):
    """A key that all runs share holds another type than overnight keeps there: whoever needs it waits."""


class Refused(OvernightError):
    """What was asked for was understood and is declined."""

    exit_status = 5


class ServerUnfit(Refused):
    """The Redis server is configured so that a run could be lost on it."""


class AddedMeanwhile(Refused):
    """Another client adds tasks to the run too: what the run holds is to be read before more are added."""

    def __init__(self, run_id: str, added: int, first: int) -> None:
        super().__init__(f"Run {run_id} holds {added} tasks, some of another client; none can be added at {first} now.")


class StillEnding(Refused):
    """Whoever waited for the end of an earlier run of the same command was told to stop."""


class UnknownRun(Refused, KeyError):
    """No run has that id, prefix or name; or Redis no longer knows it."""

    def __str__(self) -> str:
        return Exception.__str__(self)


class UnknownRunName(UnknownRun):
    """What was typed for a run names none, or more than one."""

    exit_status = 2


class RunCancelled(Refused):
    """The run was cancelled from elsewhere; `run_id` names it."""

    def __init__(self, run_id: str, reason: str = "it was cancelled") -> None:
        self.run_id = run_id
        self.reason = reason
        super().__init__(f"Run {run_id} ended before all its tasks: {reason}.")

    def __reduce__(self) -> tuple[type[RunCancelled], tuple[str, str]]:
        return type(self), (self.run_id, self.reason)


class Fenced(OvernightError):
    """This scheduler no longer holds the right to dispatch."""


class InvariantBroken(OvernightError):
    """The core's own bookkeeping contradicts itself: a defect of overnight, never of a task."""


class DamagedRun(Unreachable):
    """What the server holds of a run contradicts itself, so that one of overnight's scripts failed on it."""


class BadSeal(OvernightError):
    """A stored record is damaged, of another format, of another place, or not signed by a known key."""


class UnknownKey(BadSeal):
    """A sealed record is signed by a key that this process does not have, or not signed where it has one."""


class UnreadableRun(Refused, BadSeal):
    """What the server holds of a run cannot be believed by this process: its key, or its version, is another one."""


class ForeignRecord(BadSeal):
    """A sealed record is whole but of another protocol version or Python minor version; both sides are named."""


def remedy(error: Exception) -> str:
    """Return the sentence that says what to do about a run that `error` keeps from being read."""
    if isinstance(error, UnknownKey):
        return (
            "Give clients, schedulers and workers the same OVERNIGHT_SECRET_KEY or OVERNIGHT_SECRET_KEY_FILE "
            "and restart them."
        )
    if isinstance(error, ForeignRecord):
        return "Use the version of overnight and Python that the run was started with."
    return "Cancel the run and start it again; what is recorded as finished is kept."


# Failures that overnight produces as a task's result.


class TaskError(OvernightError):
    """A failure that overnight itself records as the outcome of a task."""


class TaskDied(TaskError):
    """The process of a task ended without an outcome.

    `signal` is the name of the signal that ended it (``"SIGSEGV"``) or None; `exit_code` its exit code or None;
    `worker` names the worker that ran it or None.
    """

    def __init__(
        self,
        message: str,
        *,
        signal: str | None = None,
        exit_code: int | None = None,
        worker: str | None = None,
    ) -> None:
        super().__init__(message)
        self.signal = signal
        self.exit_code = exit_code
        self.worker = worker

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_died, (str(self), self.signal, self.exit_code, self.worker)


def _rebuild_died(message: str, signal: str | None, exit_code: int | None, worker: str | None) -> TaskDied:
    return TaskDied(message, signal=signal, exit_code=exit_code, worker=worker)


class InputLost(TaskError):
    """The result of a dependency is not where it was recorded, or is damaged, as the task's worker sees it."""


class TaskTimedOut(TaskError, TimeoutError):
    """An attempt ran longer than the task's `timeout`."""


class TaskNotPicklable(TaskError):
    """A function or argument cannot be sent to another process. Repeating cannot help."""


class ResultNotPicklable(TaskError):
    """A result cannot be sent back from another process. Repeating cannot help."""


class UnresolvedTask(TaskError):
    """A Task among the arguments has no result, or sits where it cannot be replaced. Repeating cannot help."""


class RemoteTaskError(TaskError):
    """Stands for an exception that cannot be rebuilt here; its type name, message and traceback are text."""

    def __init__(self, type_name: str, message: str, traceback_text: str = "") -> None:
        super().__init__(f"{type_name}: {message}" if message else type_name)
        self.type_name = type_name
        self.message = message
        self.traceback_text = traceback_text

    def __reduce__(self) -> tuple[type[RemoteTaskError], tuple[str, str, str]]:
        return type(self), (self.type_name, self.message, self.traceback_text)


#: What a user's `__reduce__`, `__setstate__` or `__str__` may raise and overnight takes for a fault of that object. A
#: KeyboardInterrupt is not among them: it cannot be told from one of the person at the keyboard.
FAULTS_OF_OBJECTS: tuple[type[BaseException], ...] = (Exception, SystemExit, GeneratorExit)

#: Failures that cannot end otherwise, so that `retries` does not apply to them.
HOPELESS: tuple[type[TaskError], ...] = (TaskNotPicklable, ResultNotPicklable, UnresolvedTask)


def nearest(name: str, known: Sequence[str]) -> str:
    """Return the end of a sentence about an unknown name: ``"; did you mean 'part-1'?"`` for a misspelt one, or "."."""
    found = get_close_matches(name, known[:10_000], n=1)
    return f"; did you mean {found[0]!r}?" if found else "."
