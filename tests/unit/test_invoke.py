"""Running one task: outcomes, time limits, and the log around an attempt."""

from __future__ import annotations

import gc
import logging
import signal
import sys
import time
import traceback
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from overnight.errors import TaskTimedOut
from overnight.invoke import Outcome, attempt, invoke
from tests.support import tasks

#: The suite's own time limit is a thread; these tests use the timer signal themselves.
LIMIT_SECONDS = 0.05


def test_an_outcome_says_result_start_duration_and_memory() -> None:
    """B16."""
    before = time.time()
    outcome = invoke(tasks.give, ["x"], {})
    assert (outcome.ok, outcome.value) == (True, "x")
    assert before <= outcome.started <= time.time()
    assert 0 <= outcome.seconds < 5
    assert outcome.peak_memory > 1_000_000


def test_a_raised_exception_is_the_outcome_and_its_traceback_begins_in_the_task() -> None:
    outcome = invoke(tasks.fail, ["reason"], {})
    assert not outcome.ok
    assert [frame.name for frame in traceback.extract_tb(outcome.value.__traceback__)] == ["fail"]


def test_a_returned_exception_is_a_failure() -> None:
    """G23."""
    outcome = invoke(tasks.fail_by_return, [], {})
    assert not outcome.ok
    assert str(outcome.value) == "returned"


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, tasks.Fatal])
def test_every_base_exception_is_an_outcome(error: type[BaseException]) -> None:
    """B10."""

    def raise_it() -> None:
        raise error

    assert isinstance(invoke(raise_it, [], {}).value, error)


def test_exceptions_that_are_to_pass_do() -> None:
    """B10: an interrupt of the driver."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        invoke(interrupt, [], {}, passing=(KeyboardInterrupt,))


def test_a_failed_outcome_does_not_keep_itself_alive() -> None:
    """B15: no cycle through the frame that called the task."""

    class Marked(Exception):
        pass

    def raise_it() -> None:
        raise Marked

    gc.disable()
    try:
        outcome = invoke(raise_it, [], {})
        error = weakref.ref(outcome.value)
        del outcome
        assert error() is None
    finally:
        gc.enable()


class TestATimeLimit:
    def test_interrupts_a_task(self) -> None:
        """O4."""
        outcome = invoke(tasks.hang, [], {}, timeout=LIMIT_SECONDS)
        assert isinstance(outcome.value, TaskTimedOut)
        assert outcome.seconds >= LIMIT_SECONDS

    def test_is_a_failure_even_of_a_task_that_swallows_it(self) -> None:
        """O4."""

        def swallow() -> str | None:
            try:
                tasks.hang()
            except TimeoutError:
                return "went on"
            return None

        assert isinstance(invoke(swallow, [], {}, timeout=LIMIT_SECONDS).value, TaskTimedOut)

    def test_interrupts_again_a_task_that_goes_on(self) -> None:
        def swallow_once() -> None:
            try:
                tasks.hang()
            except TimeoutError:
                tasks.hang()

        outcome = invoke(swallow_once, [], {}, timeout=LIMIT_SECONDS)
        assert isinstance(outcome.value, TaskTimedOut)

    def test_stays_the_failure_of_a_task_that_raises_another_error_for_it(self) -> None:
        def translate() -> None:
            try:
                tasks.hang()
            except TimeoutError as error:
                raise RuntimeError("translated") from error

        error = invoke(translate, [], {}, timeout=LIMIT_SECONDS).value
        assert isinstance(error, TaskTimedOut)
        assert isinstance(error.__cause__, RuntimeError)

    def test_that_is_not_reached_changes_nothing(self) -> None:
        assert invoke(tasks.give, ["x"], {}, timeout=60).value == "x"
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)

    def test_gives_handler_and_timer_of_the_process_back(self) -> None:
        def own_handler(_number: Any, _frame: Any) -> None:
            pytest.fail("the process's own timer went off")

        former = signal.signal(signal.SIGALRM, own_handler)
        signal.setitimer(signal.ITIMER_REAL, 500, 7)
        try:
            invoke(tasks.hang, [], {}, timeout=LIMIT_SECONDS)
            delay, interval = signal.getitimer(signal.ITIMER_REAL)
            assert signal.getsignal(signal.SIGALRM) is own_handler
            assert 400 < delay < 500
            assert interval == 7
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, former)

    @pytest.mark.parametrize("limit", [1e-6, 1e-5, 1e-4])
    def test_that_is_over_at_once_leaves_no_timer(self, limit: float) -> None:
        for _ in range(1000):
            outcome = invoke(tasks.give, ["x"], {}, timeout=limit)
            assert outcome.value == "x" or isinstance(outcome.value, TaskTimedOut)
            assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)

    @pytest.mark.parametrize("step", range(1, 40))
    def test_that_strikes_at_any_call_on_the_way_leaves_no_timer_and_no_handler(self, step: int) -> None:
        def own_handler(_number: Any, _frame: Any) -> None: ...

        calls = 0

        def strike(_frame: Any, event: str, _arg: Any) -> None:
            nonlocal calls
            calls += event in ("call", "c_return")
            if calls == step:
                signal.raise_signal(signal.SIGALRM)

        former = signal.signal(signal.SIGALRM, own_handler)
        try:
            sys.setprofile(strike)
            outcome = invoke(tasks.give, ["x"], {}, timeout=500)
            sys.setprofile(None)
            assert outcome.value == "x" or isinstance(outcome.value, TaskTimedOut)
            assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
            assert signal.getsignal(signal.SIGALRM) is own_handler
        finally:
            sys.setprofile(None)
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, former)


def run_attempt(directory: Path, func: Callable[..., Any], *args: Any, **options: Any) -> Outcome:
    return attempt("a task", func, args, {}, log_dir=str(directory), run_id="r1", **options)


def log_text(directory: Path) -> str:
    (path,) = directory.iterdir()
    return path.read_text(encoding="utf-8")


def test_a_silent_attempt_makes_no_file(tmp_path: Path) -> None:
    run_attempt(tmp_path, tasks.give, "x")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_attempt_leaves_type_message_and_traceback_in_its_log(tmp_path: Path) -> None:
    """N5, N3: with a separator line per attempt."""
    for number in (1, 2):
        run_attempt(tmp_path, tasks.fail, "reason", attempt=number)
    text = log_text(tmp_path)
    assert text.count("ValueError: reason") == 2
    assert "---- a task run r1 attempt 1 " in text
    assert "---- a task run r1 attempt 2 " in text


def test_start_end_duration_and_memory_are_logged_at_verbosity_one(tmp_path: Path) -> None:
    """B16."""
    run_attempt(tmp_path, tasks.give, "x", verbosity=1)
    lines = log_text(tmp_path).splitlines()
    assert "task_executor INFO task <a task> started, attempt 1" in lines[1]
    assert "task_executor INFO task <a task> ended after" in lines[2]


def test_a_failure_without_a_log_directory_is_still_logged(caplog: pytest.LogCaptureFixture) -> None:
    """B16, B2."""
    attempt("a", tasks.fail, [], {})
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("task_executor", logging.ERROR)
    assert record.exc_info is not None
