"""Bad tasks: each fails alone, is told in its own words, and all else is done (ADVERSITY 7, rows 13 to 36)."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from overnight.error_text import error_text
from tests.support.bad_tasks import Bad, Where, bad_graph, bad_tasks
from tests.support.command import Desk
from tests.support.executors import EXECUTORS, ExecutorKind

BAD = bad_tasks()
#: Each run lists at most 20 failures.
HALVES = ((13, 22), (23, 36))
KINDS = [kind for kind in EXECUTORS if not kind.name.startswith("queue")]


def concerns(kind: ExecutorKind, bad: Bad) -> bool:
    """Tell whether a bad task fails on an executor at all, without taking the tests along."""
    match bad.where:
        case Where.EVERYWHERE:
            return True
        case Where.CROSSING:
            return kind.crosses_process and kind.name != "sequential-forked"
        case Where.APART:
            return not kind.in_driver and not kind.name.startswith("dask")
        case Where.ELSEWHERE:
            return not kind.in_driver and kind.name != "sequential-forked"
        case Where.ON_QUEUE:
            return False


@cache
def ended(kind: ExecutorKind, directory: Path) -> dict[str, Any]:
    """Run all bad tasks of an executor in one graph; return what came of each task."""
    concerned = [bad for bad in BAD if concerns(kind, bad)]
    with kind.make(directory, keep_going=True) as executor:
        results = {task.task_id: result for task, result in executor.execute(bad_graph(concerned))}
        assert executor.summary is not None
        assert len(executor.summary.failed) == len(executor.summary.skipped) == len(concerned)
    assert results["bystander"] == "unharmed"
    return results


def check(bad: Bad, type_name: str, message: str) -> None:
    assert type_name.rpartition(".")[2] == bad.type_name or not bad.type_name
    assert re.search(bad.message, message, re.DOTALL), message[:1000]
    assert len(message.encode()) <= 64 * 1024


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bad")


@pytest.mark.parametrize(
    ("kind", "bad"),
    [pytest.param(k, b, id=f"{k.name}, {b.task_id}") for k in KINDS for b in BAD if concerns(k, b)],
)
def test_a_bad_task_fails_alone_in_its_own_words(kind: ExecutorKind, bad: Bad, directory: Path) -> None:
    error = ended(kind, directory / kind.name)[bad.culprit]
    assert isinstance(error, BaseException)
    text = error_text(error)
    check(bad, text.type_name, text.message)


@pytest.fixture(scope="module")
def by_command(place: Desk) -> dict[str, dict[str, Any]]:
    """What `overnight run` says of the failure of each task."""
    found: dict[str, dict[str, Any]] = {}
    for first, last in HALVES:
        words = ("tests.support.bad_tasks:rows", "-p", f"first={first}", "-p", f"last={last}", "--keep-going")
        ending = place.run("run", *words, "--json")
        concerned = [bad for bad in BAD if first <= bad.row <= last]
        assert ending.status == 1
        assert "Traceback" not in ending.err
        consumers = sum(bad.consumer for bad in concerned)
        counts = {"done": 1 + consumers, "failed": len(concerned), "skipped": len(concerned) - consumers}
        assert ending.facts["counts"] == counts
        found |= {failed["task"]: failed for failed in ending.facts["failed"]}
        rest = 2 * len(concerned) - consumers
        assert f"{rest} of {2 * len(concerned) + 1} tasks would run" in place.run("run", *words, "-n").out
    return found


@pytest.mark.timeout(240)
def test_an_argument_that_no_message_can_hold_fails_its_tasks_alone_before_it_is_sent(place: Desk) -> None:
    """Row 15, shared by tasks or not: its size is told, and what to do instead."""
    ending = place.run("run", "tests.support.bad_tasks:too_large", "--keep-going", "--json")
    assert ending.status == 1, ending.err
    assert "Traceback" not in ending.err
    assert ending.facts["counts"] == {"done": 1, "failed": 3}
    for failed in ending.facts["failed"]:
        assert failed["type"].rpartition(".")[2] == "TaskNotPicklable"
        assert re.search(rf"of task '{failed['task']}' pickles to 5\d{{8}} bytes, above the limit", failed["message"])
        assert "pass the file's path" in failed["message"]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.task_id)
def test_the_command_tells_each_failure_in_one_sentence(by_command: dict[str, dict[str, Any]], bad: Bad) -> None:
    """Exit status 1; the same command runs these tasks again and none other."""
    failed = by_command[bad.culprit]
    check(bad, failed["type"], failed["message"])
