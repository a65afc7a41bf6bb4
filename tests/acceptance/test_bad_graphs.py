"""Graphs that cannot run, and ids that only look as if they could do harm (ADVERSITY 7, rows 1 to 12)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from overnight.cache import FileTaskCache
from tests.support import bad_graphs
from tests.support.bad_graphs import STRANGE_IDS
from tests.support.command import Desk
from tests.support.executors import EXECUTORS, ExecutorKind

GRAPHS = "tests.support.bad_graphs"
KINDS = [kind for kind in EXECUTORS if not kind.name.startswith("queue")]


@dataclass(frozen=True)
class Invalid:
    """A function of `bad_graphs` and the sentence that it earns."""

    target: str
    sentence: str


INVALID = {
    "row 1: a cycle": Invalid("tests.support.graphs:cyclic", "Cyclic dependency: 'a' -> 'b' -> 'c' -> 'a'."),
    "row 2: a task that depends on itself": Invalid(f"{GRAPHS}:itself", "Cyclic dependency: 'me' -> 'me'."),
    "row 3: an id that is taken": Invalid(f"{GRAPHS}:twice", "Task 'same' is already in the graph"),
    "row 4: a dependency that is not there": Invalid(
        f"{GRAPHS}:misspelt", "Task 'sort-1' depends on 'allign-1', which is neither in the graph nor completed; did "
        "you mean 'align-1'?",
    ),
    "row 11: an empty id": Invalid(f"{GRAPHS}:no_id", "A task id must not be empty."),
    "row 11: an id with NUL": Invalid(f"{GRAPHS}:nul_id", r"A task id must not hold NUL: 'a\x00b'."),
    "row 11: an id with a lone surrogate": Invalid(f"{GRAPHS}:surrogate_id", "must not hold a lone surrogate"),
}  # fmt: skip


@pytest.mark.parametrize("invalid", INVALID.values(), ids=INVALID.keys())
def test_an_invalid_graph_is_one_sentence_and_nothing_runs(tmp_path: Path, invalid: Invalid) -> None:
    given = Desk(tmp_path)
    found = given.run("run", invalid.target, "-d", "flags")
    assert (found.status, found.out) == (3, "")
    assert invalid.sentence in found.sentence
    assert not list(tmp_path.glob("flags/*"))
    assert not (given.state_dir / "server").exists()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_strange_ids_stay_inside_and_apart_on(kind: ExecutorKind, tmp_path: Path) -> None:
    """Rows 8, 9, 10 and 12."""
    home = tmp_path / "home"
    status = home / "a" / "b" / "status"
    status.mkdir(parents=True)
    cache = FileTaskCache(str(status))
    with kind.make(home / "a" / "b", task_cache=cache) as executor:
        results = {task.task_id: result for task, result in executor.execute(bad_graphs.strange_ids())}
    assert results.pop("total") == sum(results.values()) == sum(range(len(STRANGE_IDS)))
    assert {task_id for task_id in STRANGE_IDS if len(task_id) <= 200} < results.keys(), "only longer ids are cut"
    assert len(list(status.glob("*.flag"))) == len(STRANGE_IDS) + 1
    outside = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_relative_to(home / "a" / "b")]
    assert outside == []


def test_strange_ids_are_told_escaped_and_done_once_by_the_command(place: Desk) -> None:
    """Rows 8, 9, 10 and 12."""
    words = ("run", f"{GRAPHS}:strange_ids", "-d", "strange", "--task-log-dir", "strange-logs")
    found = place.run(*words)
    assert found.status == 0, found.err
    assert len(list((place.directory / "strange").glob("*.flag"))) == len(STRANGE_IDS) + 1
    shown = found.out + found.err + place.run("status").out + place.run("status", "last", "two\nlines").out
    shown += place.run(*words, "-n").out
    assert not {"\x1b", "\r", "\0"}.intersection(shown)
    assert f"0 of {len(STRANGE_IDS) + 1} tasks would run" in shown
    assert not [path for path in place.directory.rglob("*escape*") if "strange" not in str(path.parent.name)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_task_in_plain_containers_is_a_dependency_and_elsewhere_is_not_looked_for(
    kind: ExecutorKind, tmp_path: Path
) -> None:
    """Row 5."""
    with kind.make(tmp_path) as executor:
        results = {task.task_id: result for task, result in executor.execute(bad_graphs.nested())}
    assert results == {"inner": 21, "found": 42, "not found": "inner"}


def test_such_containers_are_looked_into_by_the_command_too(place: Desk) -> None:
    """Row 5."""
    assert place.run("run", f"{GRAPHS}:nested").status == 0
