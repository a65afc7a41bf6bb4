"""The one place of package `overnight` that pickles and unpickles what belongs to users.

Both directions are cloudpickle, so that lambdas, closures, bound methods and objects of `__main__` travel. What
is unpickled here was sealed and checked before: no caller hands over bytes of unknown origin. Plain values of
built-in types take pickle's own, faster path; the bytes load the same.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import repeat
from typing import Any, Protocol, TypeVar

import cloudpickle

from overnight.errors import FAULTS_OF_OBJECTS, RemoteTaskError, ResultNotPicklable, TaskNotPicklable
from overnight.naming import shown
from overnight.task import Task

LARGEST_INPUT_BYTES = 512 * 1024 * 1024 - 1024 * 1024
#: An exception above this is told by its text alone, which is bounded.
LARGEST_EXCEPTION_BYTES = 1024 * 1024
_PROTOCOL = 5
T = TypeVar("T")
_PLAIN_TYPES = frozenset({type(None), bool, int, float, complex, str, bytes, Task})
_MOST_PARTS_LOOKED_AT = 20
_DEEPEST_SEARCH = 6
_MOST_PARTS_SEARCHED = 200


class Writable(Protocol):
    """What a pickler writes to."""

    def write(self, data: Any, /) -> Any:
        """Take in a piece."""


def dumps(value: Any) -> bytes:
    """Return `value` pickled. Raises whatever pickling it raises."""
    if _is_plain(value):
        return pickle.dumps(value, _PROTOCOL)
    data: bytes = cloudpickle.dumps(value, protocol=_PROTOCOL)
    return data


def _is_plain(value: Any, depth: int = 2) -> bool:
    """Tell whether a value is made of plain types alone, as far as a short look shows."""
    kind = type(value)
    if kind in _PLAIN_TYPES:
        return True
    if kind is dict:
        return not value or (_is_plain(list(value), depth) and _is_plain(list(value.values()), depth))
    if kind is not list and kind is not tuple:
        return False
    if _PLAIN_TYPES.issuperset(map(type, value)):
        return True
    return depth > 0 and len(value) <= _MOST_PARTS_LOOKED_AT and all(map(_is_plain, value, repeat(depth - 1)))


def dumps_noting(value: Any, noted: type[T]) -> tuple[bytes, list[T]]:
    """Return `value` pickled, and the objects of one type that are in it, in order. Raises whatever pickling raises."""
    if _is_plain(value):
        return pickle.dumps(value, _PROTOCOL), []
    buffer = io.BytesIO()
    pickler = _NotingPickler(buffer, noted)
    pickler.dump(value)
    return buffer.getvalue(), pickler.found


class _NotingPickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    def __init__(self, file: io.BytesIO, noted: type) -> None:
        super().__init__(file, protocol=_PROTOCOL)
        self._noted = noted
        self.found: list[Any] = []

    def reducer_override(self, value: Any) -> Any:
        if type(value) is self._noted:
            self.found.append(value)
        return super().reducer_override(value)


def dump_into(value: Any, file: Writable, keep_apart: Callable[[pickle.PickleBuffer], bool]) -> None:
    """Pickle `value` into a file as `dumps` does; `keep_apart` answers a false value for a buffer that it takes itself.

    Raises whatever pickling it raises. A large bytes object is written as it is, without a copy.
    """
    pickler: Any = pickle.Pickler if _is_plain(value) else cloudpickle.Pickler
    pickler(file, protocol=_PROTOCOL, buffer_callback=keep_apart).dump(value)


def loads(data: bytes | memoryview, buffers: Sequence[memoryview] = ()) -> Any:
    """Return the value that `data`, which its caller has verified, stands for. Raises whatever loading raises.

    `buffers` are what the pickler was told to keep apart, in order.
    """
    return pickle.loads(data, buffers=buffers)


def dump_input(value: Any, what: str, *, limit_bytes: int = LARGEST_INPUT_BYTES) -> bytes:
    """Return a function or argument pickled; `what` names it, as in ``"argument 2 of task 'a'"``.

    Raise TaskNotPicklable, naming the part at fault, if it cannot be pickled or is above the limit.
    """
    try:
        data = dumps(value)
    except FAULTS_OF_OBJECTS as error:
        raise TaskNotPicklable(
            f"{what} cannot be sent to another process: {describe_unpicklable(value)} ({_one_line(error)})"
        ) from error
    if len(data) > limit_bytes:
        raise TaskNotPicklable(
            f"{what} pickles to {len(data)} bytes, above the limit of {limit_bytes}; "
            f"write it to a file and pass the file's path."
        )
    return data


def dump_arguments(
    args: Sequence[Any], kwargs: Mapping[str, Any], task: str, *, limit_bytes: int = LARGEST_INPUT_BYTES
) -> bytes:
    """Return the arguments of a task pickled as one pair; `task` names it, as in ``"task 'a'"``.

    Raise TaskNotPicklable, naming the argument and its part at fault, if they cannot be or are above the limit.
    """
    try:
        return dump_input((args, kwargs), f"An argument of {task}", limit_bytes=limit_bytes)
    except TaskNotPicklable:
        for name, value in (*enumerate(args), *kwargs.items()):
            if not _is_picklable(value):
                dump_input(value, f"Argument {name!r} of {task}")
        raise


def dump_result(value: Any, task_id: str, *, limit_bytes: int | None = None) -> bytes:
    """Return a result pickled. Raise ResultNotPicklable if it cannot be pickled or is above the limit."""
    with _faults_of_result(value, task_id):
        data = dumps(value)
    if limit_bytes is not None and len(data) > limit_bytes:
        raise ResultNotPicklable(
            f"The result of task {task_id!r} pickles to {len(data)} bytes, above the limit of {limit_bytes}; "
            f"write it to a file and return the file's path."
        )
    return data


def dump_result_into(
    value: Any, task_id: str, file: Writable, keep_apart: Callable[[pickle.PickleBuffer], bool]
) -> None:
    """Pickle a result as `dump_into` does. Raise ResultNotPicklable if it cannot be pickled."""
    with _faults_of_result(value, task_id):
        dump_into(value, file, keep_apart)


@contextmanager
def _faults_of_result(value: Any, task_id: str) -> Iterator[None]:
    try:
        yield
    except FAULTS_OF_OBJECTS as error:
        better = "a list instead of a generator" if isinstance(value, Iterator) else "plain data, or the path of a file"
        raise ResultNotPicklable(
            f"The result of task {task_id!r}, of type {type_name(type(value))}, cannot be sent back: "
            f"{describe_unpicklable(value)} ({_one_line(error)}); return {better}."
        ) from error


class _ExceptionPickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """Reduces exceptions by their own rule, whatever a library has registered for them.

    That of tblib, which `distributed` loads, would drop what a constructor sets and add the traceback.
    """

    def reducer_override(self, value: Any) -> Any:
        if issubclass(type(value), BaseException):
            return value.__reduce_ex__(_PROTOCOL)
        return super().reducer_override(value)


def dump_exception(error: BaseException) -> bytes:
    """Return an exception pickled, or nothing if it cannot be or is above the limit: its text then stands for it."""
    buffer = io.BytesIO()
    try:
        _ExceptionPickler(buffer, protocol=_PROTOCOL).dump(error)
        data = buffer.getvalue()
    except FAULTS_OF_OBJECTS:  # a user's class may raise anything here, and the text remains
        return b""
    return data if len(data) <= LARGEST_EXCEPTION_BYTES else b""


def load_exception(data: bytes | memoryview, text: RemoteTaskError) -> BaseException:
    """Return the exception that `dump_exception` stored, or `text` if there is none or it cannot be rebuilt here."""
    if not data:
        return text
    try:
        error = loads(data)
    except FAULTS_OF_OBJECTS:  # a user's class may raise anything here, and the text remains
        return text
    return error if isinstance(error, BaseException) else text


def type_name(kind: type) -> str:
    """Return the name of a type with its module, without one for built-in types."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def describe_unpicklable(value: Any) -> str:
    """Name the innermost part of `value` that cannot be pickled, by the path that leads to it.

    For a function whose closure holds a lock: ``"closure variable 'lock' is a _thread.lock"``. The search is
    bounded; if it finds no smaller part, the whole value is named.
    """
    path: list[str] = []
    part = value
    while len(path) < _DEEPEST_SEARCH:
        found = next(((step, inner) for step, inner in _parts(part) if not _is_picklable(inner)), None)
        if found is None:
            break
        path.append(found[0])
        part = found[1]
    where = ", ".join(path) or "it"
    return f"{where} is a {type_name(type(part))}"


def _is_picklable(value: Any) -> bool:
    try:
        dumps(value)
    except FAULTS_OF_OBJECTS:  # that it raises is the answer
        return False
    return True


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    for count, part in enumerate(_all_parts(value)):
        if count >= _MOST_PARTS_SEARCHED:
            return
        yield part


def _all_parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, (list, tuple)):
        yield from ((f"item {index}", item) for index, item in enumerate(value))
    elif isinstance(value, dict):
        yield from ((f"key {key!r:.60}", item) for key, item in value.items())
    elif hasattr(value, "__code__"):
        yield from _parts_of_function(value)
    elif hasattr(value, "__func__"):
        yield "its object", value.__self__
    elif isinstance(getattr(value, "__dict__", None), dict) and not isinstance(value, type):
        yield from ((f"attribute {name!r}", item) for name, item in vars(value).items())


def _parts_of_function(function: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield f"closure variable {name!r}", cell.cell_contents
        except ValueError:
            continue  # the variable is not bound yet
    for index, default in enumerate(function.__defaults__ or ()):
        yield f"default {index}", default
    for name in code.co_names:
        if name in function.__globals__:
            yield f"global {name!r}", function.__globals__[name]


def _one_line(error: BaseException) -> str:
    try:
        text = f"{type(error).__name__}: {error}"
    except FAULTS_OF_OBJECTS:  # a user's __str__ may raise anything
        text = f"{type(error).__name__}: <unprintable>"
    return shown(text)[:300]
