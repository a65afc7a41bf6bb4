"""Which commands find one another's run (ADVERSITY 7, number 41): a forced one has its own, and never beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from overnight.cache import NO_TASK_CACHE
from overnight.config import Settings
from overnight.core.states import RunPhase, TaskState
from overnight.errors import InvalidTask, Refused, UsageError
from overnight.graph import TaskGraph
from overnight.keyring import Keyring
from overnight.launch import Launched, launch
from overnight.run_key import RunOptions
from overnight.store.memory import MemoryStore
from overnight.store.records import Epoch, Verdict
from overnight.task import TaskDesc
from tests.support.graphs import chain


class Place:
    """A server and a directory from which runs of one graph are started."""

    def __init__(self, directory: Path, *, status_dir: str | None) -> None:
        graph = chain(n=2)
        self._descs: list[TaskDesc] = [graph.get_task_desc(task) for task in graph.tasks]
        self._settings = Settings(state_dir=directory / "state")
        self._options = RunOptions(name="tool", command="tool", status_dir=status_dir)
        self.store = MemoryStore()

    def start(self, *, force: bool = False) -> Launched:
        options = replace(self._options, force=force)
        return launch(self.store, self._descs, None, NO_TASK_CACHE, options, self._settings, Keyring())

    def end(self, run_id: str) -> None:
        epoch = self.store.take_epoch("s", "s", 60.0)
        assert isinstance(epoch, Epoch)
        self.store.settle(epoch, run_id, [Verdict(task, TaskState.CANCELLED) for task in range(2)])
        assert self.store.finish(epoch, run_id, RunPhase.CANCELLED)


@pytest.fixture(params=["status directory", "none"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(tmp_path, status_dir=str(tmp_path / "status") if request.param != "none" else None)


def test_a_forced_command_does_not_attach_to_the_run_of_the_same_command_without_force(place: Place) -> None:
    """What had finished in that run before would not run again."""
    run_id = place.start().run.run_id
    with pytest.raises(Refused, match=f"is in use by run {run_id} .* since "):
        place.start(force=True)
    place.end(run_id)
    forced = place.start(force=True)
    assert not forced.attached
    assert forced.run.run_id != run_id


def test_the_same_forced_command_attaches_to_its_run(place: Place) -> None:
    forced = place.start(force=True)
    again = place.start(force=True)
    assert (again.attached, again.run.run_id) == (True, forced.run.run_id)
    with pytest.raises(Refused, match="overnight follow"):
        place.start()


def test_studies_without_a_status_directory_stay_apart(tmp_path: Path) -> None:
    """Decision 0006: their arguments tell them apart, and neither is in the other's way."""
    place, other = Place(tmp_path, status_dir=None), Place(tmp_path, status_dir=None)
    other.store = place.store
    other._descs = [replace(desc, args=[*desc.args, 1]) for desc in other._descs]  # a study of its own
    assert place.start().run.run_id != other.start(force=True).run.run_id


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"status_dir": "st\udcff"}, r"The status directory st\udcff"),
        ({"log_dir": "lg\udcff"}, r"The log directory lg\udcff"),
        ({"queue": "q\udcff"}, r"The queue q\udcff"),
        (
            {"command": "overnight run f.py:build -p name=\udcff"},
            r"The command overnight run f.py:build -p name=\udcff",
        ),
    ],
)
def test_what_a_run_is_called_is_text(options: dict[str, str], what: str) -> None:
    with pytest.raises(UsageError) as refused:
        RunOptions(**options)  # type: ignore[arg-type]  # each of them is a text
    assert str(refused.value) == f"{what} of a run is no text in UTF-8: give it another name."


def test_the_queue_of_a_task_is_text() -> None:
    with pytest.raises(InvalidTask, match="queue must be a name, or None"):
        TaskGraph().create_task("a", int, args=[], queue="q\udcff")
