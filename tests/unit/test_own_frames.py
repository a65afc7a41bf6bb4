"""Which frames of a traceback are the user's, and where a failure is said to be."""

from __future__ import annotations

import ctypes
import json
import threading
import traceback
from pathlib import Path

import pytest

import overnight
from overnight.chain import chain_tasks
from overnight.errors import ResultNotPicklable, TaskNotPicklable
from overnight.graph import TaskGraph
from overnight.invoke import invoke
from overnight.own_frames import place_in_dump, place_of, without_dumped_own_frames
from overnight.pickling import dump_result
from overnight.submission import raise_unsendable


def parse() -> None:
    json.loads("{")


def told(failed: object) -> str:
    assert isinstance(failed, BaseException)
    return "".join(traceback.format_exception(failed))


def test_a_failure_inside_a_library_is_placed_where_the_user_called_it() -> None:
    line = parse.__code__.co_firstlineno + 1
    assert place_of(told(invoke(parse, [], {}).value)) == f"test_own_frames.py:{line} in parse"


def test_of_chained_exceptions_the_one_that_was_raised_last_is_placed() -> None:
    def fail() -> None:
        try:
            parse()
        except ValueError as error:
            raise KeyError("second") from error

    assert (place_of(told(invoke(fail, [], {}).value)) or "").endswith(" in fail")


def test_a_failure_without_frames_has_no_place() -> None:
    assert place_of("ValueError: returned\n") is None


def test_a_result_that_cannot_be_pickled_has_no_place_in_the_pickler() -> None:
    with pytest.raises(ResultNotPicklable, match=r"return plain data, or the path of a file\.$") as raised:
        dump_result(threading.Lock(), "task")
    text = told(raised.value.with_traceback(None))
    assert "cloudpickle.py" in text
    assert place_of(text) is None


def test_the_frames_of_a_chain_and_of_a_time_limit_are_left_out() -> None:
    chain = chain_tasks(TaskGraph.make_task("first", parse, args=[]), TaskGraph.make_task("last", parse, args=[]))
    failed = invoke(chain.func, [], {}, timeout=60.0).value
    assert next(frame.name for frame in traceback.extract_tb(failed.__traceback__)) == "parse"


def test_a_failure_that_overnight_itself_tells_has_no_place() -> None:
    """ADVERSITY 7: its own code is nothing that a user could mend."""
    assert place_of(told(invoke(raise_unsendable, [TaskNotPicklable("a lock")], {}).value)) is None


def test_a_crash_is_placed_by_the_innermost_frame_of_the_user_and_told_without_ours() -> None:
    """The interpreter's own report, in which the innermost frame comes first."""
    own = Path(overnight.__file__).parent / "invoke.py"
    said = (
        "about to die\nFatal Python error: Segmentation fault\n\nCurrent thread 0x1 (most recent call first):\n"
        f'  File "{ctypes.__file__}", line 515 in string_at\n  File "/home/me/flow.py", line 20 in dies\n'
        f'  File "{own}", line 79 in invoke\n  File "<frozen runpy>", line 88 in _run_code\n'
    )
    assert place_in_dump(said) == "flow.py:20 in dies"
    assert without_dumped_own_frames(said) == said.partition(f'  File "{own}"')[0]
    assert place_in_dump("nothing of that kind") is None
