"""How a run is to be carried out, and what identifies it: a client that was killed finds its run again by its key."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from overnight.chain import function_name
from overnight.config import KEEP_SECONDS
from overnight.errors import FAULTS_OF_OBJECTS, UsageError
from overnight.json_text import encoded
from overnight.naming import is_text, shown
from overnight.pickling import dumps
from overnight.shared_arguments import SharedArguments
from overnight.task import Task, TaskDesc

_FORCED = "-forced"
#: Arguments of these types are told apart by their JSON, a Task by its id in a list; that is quicker than a pickle.
_SIMPLE = frozenset({str, int, bool, type(None), Task})


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run is to be carried out. `command` is what started it: with the graph and `force` it identifies the run.

    Beside other runs one of twice the `weight` is given twice the time of workers.
    `force`: nothing that was finished before counts, so such a run is another one than that of the same command.
    Raises UsageError for a name that is no text, such as one of a directory in another encoding than UTF-8: servers
    and records hold nothing else.
    """

    name: str = ""
    command: str = ""
    queue: str = "default"
    status_dir: str | None = None
    log_dir: str | None = None
    verbosity: int = 0
    fail_fast: bool = False
    fork_tasks: bool = False
    resource_limits: Mapping[str, float] = field(default_factory=dict)
    weight: float = 1.0
    force: bool = False
    keep_seconds: float = KEEP_SECONDS
    pass_environment: Sequence[str] = ()
    drop_environment: Sequence[str] = ()

    def __post_init__(self) -> None:
        named = {
            "name": self.name,
            "queue": self.queue,
            "status directory": self.status_dir,
            "log directory": self.log_dir,
            "command": self.command,
        }
        for what, name in named.items():
            if name is not None and not is_text(name):
                raise UsageError(f"The {what} {shown(name)} of a run is no text in UTF-8: give it another name.")


def graph_key(descs: Sequence[TaskDesc], options: RunOptions) -> str:
    """Return what identifies a command and its graph: who ran what where; id, function, dependencies of each task.

    A forced command has a key of its own.
    """
    digest = hashlib.sha256()
    head = [os.getuid(), socket.gethostname(), str(Path.cwd()), options.command, options.status_dir, options.queue]
    digest.update(encoded(head))
    names: dict[int, str] = {}
    for desc in descs:
        name = names.get(id(desc.func)) or names.setdefault(id(desc.func), function_name(desc.func))
        digest.update(encoded([desc.task.task_id, name, [dependency.task_id for dependency in desc.deps]]))
    if options.status_dir is None:
        _add_arguments(digest, descs)
    return digest.hexdigest() + (_FORCED if options.force else "")


def place_of(key: str, options: RunOptions) -> str:
    """Return what one active run at a time may use: its status directory, or else what the command itself writes.

    So a forced command and the same without force never run side by side.
    """
    return options.status_dir or key.removesuffix(_FORCED)


def _add_arguments(digest: hashlib._Hash, descs: Sequence[TaskDesc]) -> None:
    """Make the arguments part of the key: without a status directory nothing else tells two studies apart."""
    shared = SharedArguments()
    are_simple = [not desc.kwargs and _SIMPLE.issuperset(map(type, desc.args)) for desc in descs]
    if not all(are_simple):
        shared.observe(descs)
    for desc, is_simple in zip(descs, are_simple, strict=True):
        if is_simple:
            digest.update(encoded([[value.task_id] if type(value) is Task else value for value in desc.args]))
            continue
        try:
            digest.update(dumps(shared.replaced(desc.args, desc.kwargs)))
        except FAULTS_OF_OBJECTS:  # what cannot be pickled fails as that task alone; it identifies nothing
            digest.update(b"-")


def is_forced(key: str) -> bool:
    """Tell whether a key is that of a forced command."""
    return key.endswith(_FORCED)


def same_command(one: str, other: str) -> bool:
    """Tell whether two keys are those of one command, forced or not."""
    return one.removesuffix(_FORCED) == other.removesuffix(_FORCED)
