"""What the sealed records carry: the graph's structure, a task for a worker, a result, an error, a run's context.

Structure and facts are JSON and may be read by anyone who may read the run; only `TaskMessage.payload`, blobs and the
bodies of results and errors are pickles, and only a task's own process opens those. All bodies are bytes here.

Digests are SHA-256 over serialised bytes (32 bytes). Task numbers are indices in the run.
"""

from __future__ import annotations

import functools
import hashlib
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, ParamSpec, TypeVar

from overnight.core.events import DEFAULT_RULES, TaskRules
from overnight.errors import BadSeal
from overnight.json_text import decoded, encoded
from overnight.keyring import Keyring
from overnight.wire import Purpose, open_sealed, seal

LARGEST_SPEC_CHUNK = 256 << 20
_LENGTH = struct.Struct(">I")
_FAULTS_OF_FORM = (ValueError, TypeError, LookupError, AttributeError, RecursionError, struct.error, zlib.error)
_P = ParamSpec("_P")
_R = TypeVar("_R")


def _of_known_form(opened: Callable[_P, _R]) -> Callable[_P, _R]:
    """Have a reader say BadSeal of a content of another form: where no key is set, anyone can seal one."""

    @functools.wraps(opened)
    def checked(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return opened(*args, **kwargs)
        except _FAULTS_OF_FORM as error:
            raise BadSeal("The content of a sealed record is none that overnight writes.") from error

    return checked


@dataclass(frozen=True, slots=True)
class SpecChunk:
    """The structure of tasks `first`, `first + 1`, ...: what scheduler and readers need of them.

    `functions` is a table of function names; `function_of` gives each task's number in it. `rules` holds the tasks,
    by offset in the chunk, whose rules are not the default; `reasons` those of which it was known why they had to run.
    """

    first: int
    ids: Sequence[str]
    functions: Sequence[str]
    function_of: Sequence[int]
    dependencies: Sequence[Sequence[int]]
    rules: dict[int, TaskRules] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)

    def sealed(self, run_id: str, keyring: Keyring) -> bytes:
        """Return the chunk as a record bound to the run and its first index."""
        content = [
            self.ids,
            self.functions,
            self.function_of,
            self.dependencies,
            {str(offset): asdict(rules) for offset, rules in self.rules.items()},
            *([{str(offset): reason for offset, reason in self.reasons.items()}] if self.reasons else []),
        ]
        body = zlib.compress(encoded(content), 1)
        return seal(Purpose.SPEC, {"run": run_id, "first": self.first}, body, keyring)

    @classmethod
    @_of_known_form
    def opened(cls, record: bytes, run_id: str, keyring: Keyring) -> SpecChunk:
        """Return the chunk of a record; BadSeal if it is damaged or of another run."""
        opened = open_sealed(record, Purpose.SPEC, keyring, bound={"run": run_id})
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(opened.body, LARGEST_SPEC_CHUNK)
        if unpacker.unconsumed_tail:
            raise BadSeal(f"A chunk of the graph unpacks to more than {LARGEST_SPEC_CHUNK} bytes.")
        ids, functions, function_of, dependencies, rules, *more = decoded(text)
        return cls(
            opened.header["first"],
            ids,
            functions,
            function_of,
            dependencies,
            {int(offset): _rules(fields) for offset, fields in rules.items()},
            {int(offset): str(reason) for reasons in more for offset, reason in reasons.items()},
        )

    def rules_of(self, offset: int) -> TaskRules:
        """Return the rules of the task at `offset` in the chunk."""
        return self.rules.get(offset, DEFAULT_RULES)


def _rules(fields: dict[str, Any]) -> TaskRules:
    resources = tuple((name, amount) for name, amount in fields.pop("resources"))
    return TaskRules(**fields, resources=resources)


class TaskFacts(NamedTuple):
    """What a worker's supervisor must know of a task without opening its pickle.

    `dependencies` are all declared ones in declared order, `dependency_ids` their ids; `values` are those whose results
    the arguments hold, a subset. `function_digest` and `blobs` name the run's blobs that the payload refers to.
    """

    task_id: str
    function: str
    function_digest: str
    dependencies: Sequence[int]
    dependency_ids: Sequence[str]
    values: Sequence[int]
    blobs: Sequence[str]
    timeout: float | None = None


class TaskMessage(NamedTuple):
    """One task as a worker receives it: readable facts and the pickled arguments."""

    facts: TaskFacts
    payload: bytes

    def sealed(self, run_id: str, task: int, keyring: Keyring) -> bytes:
        """Return the message as a record bound to its run and index. Facts are a list in the order of their fields:
        there is one message a task, and names would be half of it."""
        facts = encoded(list(self.facts))
        body = _LENGTH.pack(len(facts)) + facts + self.payload
        return seal(Purpose.TASK, {"run": run_id, "task": task}, body, keyring)

    @classmethod
    @_of_known_form
    def opened(cls, record: bytes, run_id: str, task: int, keyring: Keyring) -> TaskMessage:
        """Return the message of a record; ForeignRecord if another Python made it, BadSeal if it is damaged."""
        opened = open_sealed(record, Purpose.TASK, keyring, bound={"run": run_id, "task": task}, any_python=False)
        (length,) = _LENGTH.unpack_from(opened.body)
        facts = decoded(opened.body[_LENGTH.size : _LENGTH.size + length])
        return cls(TaskFacts(*facts), opened.body[_LENGTH.size + length :])


class StoredResult(NamedTuple):
    """A recorded success. `digest` is the SHA-256 of the serialised result, as in a flag's `body_sha256`.

    Either `body` holds the serialised result, or `locator` says where it lies: ``flag:<path>``, ``file:<path>``,
    ``redis:`` (a blob of the run named by the digest) or any fsspec URL of a flag after ``flag:``.
    """

    digest: bytes
    size: int
    body: bytes | None = None
    locator: str | None = None

    def sealed(self, run_id: str, task: int, keyring: Keyring) -> bytes:
        """Return the result as a record bound to its run and index. A body speaks for itself."""
        header: dict[str, Any] = {"run": run_id, "task": task, "size": self.size}
        if self.body is None:
            header |= {"digest": self.digest.hex(), "locator": self.locator}
        return seal(Purpose.RESULT, header, self.body or b"", keyring)

    @classmethod
    @_of_known_form
    def opened(cls, record: bytes, run_id: str, task: int, keyring: Keyring) -> StoredResult:
        """Return the result of a record; ForeignRecord or BadSeal as `open_sealed` says."""
        opened = open_sealed(record, Purpose.RESULT, keyring, bound={"run": run_id, "task": task}, any_python=False)
        header, body = opened.header, opened.body
        if "locator" in header:
            return cls(bytes.fromhex(header["digest"]), header["size"], locator=header["locator"])
        if header["size"] != len(body):
            raise BadSeal(f"A recorded result of {header['size']} bytes was found with {len(body)}.")
        return cls(hashlib.sha256(body).digest(), len(body), body=body)


@dataclass(frozen=True, slots=True)
class StoredError:
    """A recorded failure: text for people, bounded in length, and the pickled exception (empty if it cannot be)."""

    type_name: str
    message: str
    traceback: str
    body: bytes = b""

    def sealed(self, run_id: str, task: int, keyring: Keyring) -> bytes:
        """Return the error as a record bound to its run and index."""
        header = {
            "run": run_id,
            "task": task,
            "type": self.type_name,
            "message": self.message,
            "traceback": self.traceback,
        }
        return seal(Purpose.ERROR, header, self.body, keyring)

    @classmethod
    @_of_known_form
    def opened(cls, record: bytes, run_id: str, task: int, keyring: Keyring) -> StoredError:
        """Return the error of a record; BadSeal if it is damaged. The body may be of another Python minor."""
        opened = open_sealed(record, Purpose.ERROR, keyring, bound={"run": run_id, "task": task})
        header = opened.header
        return cls(header["type"], header["message"], header["traceback"], opened.body)


@dataclass(frozen=True, slots=True)
class RunContext:
    """What tasks of a run find around them (BEHAVIOUR B21, QX9): the driver's surroundings."""

    directory: str
    umask: int
    environment: dict[str, str]
    import_paths: Sequence[str]
    log_dir: str | None
    verbosity: int
    status_dir: str | None
    blob_dir: str | None
    fork_tasks: bool = False

    def sealed(self, run_id: str, keyring: Keyring) -> bytes:
        """Return the context as a record bound to its run."""
        return seal(Purpose.CONTEXT, {"run": run_id}, encoded(asdict(self)), keyring)

    @classmethod
    @_of_known_form
    def opened(cls, record: bytes, run_id: str, keyring: Keyring) -> RunContext:
        """Return the context of a record; BadSeal if it is damaged or of another run."""
        opened = open_sealed(record, Purpose.CONTEXT, keyring, bound={"run": run_id}, any_python=False)
        return cls(**decoded(opened.body))


def sealed_blob(run_id: str, digest: str, body: bytes, keyring: Keyring) -> bytes:
    """Return a function or shared argument as a record bound to its run and the digest of its bytes."""
    return seal(Purpose.BLOB, {"run": run_id, "digest": digest}, body, keyring)


def opened_blob(record: bytes, run_id: str, digest: str, keyring: Keyring) -> bytes:
    """Return the bytes of a blob; ForeignRecord or BadSeal as `open_sealed` says."""
    bound = {"run": run_id, "digest": digest}
    return open_sealed(record, Purpose.BLOB, keyring, bound=bound, any_python=False).body
