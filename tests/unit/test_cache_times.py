"""A record judged by file times: every row of the table of C9, and C10."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import pytest

from overnight.cache import CacheRecord, CacheRecordType, FileTaskCache
from overnight.files import look_up
from overnight.making import make_task
from overnight.task import Task, TaskDesc

FLAG_TIME = 5_000


def work() -> None:
    """Stand for a task's function."""


class Scene:
    """A task `a` with a COMPUTED flag of time 5000 and files of given times."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.cache = FileTaskCache(str(directory / "status"))
        self.cache.cache(Task("a"), is_error=False, result="kept")
        self._age(directory / "status" / "a.flag", FLAG_TIME)

    def file(self, name: str, seconds: float) -> str:
        path = self.directory / name
        path.write_text(name)
        return self._age(path, seconds)

    def folder(self, name: str, seconds: float) -> str:
        path = self.directory / name
        path.mkdir()
        return self._age(path, seconds)

    def missing(self, name: str) -> str:
        return str(self.directory / name)

    def _age(self, path: Path, seconds: float) -> str:
        os.utime(path, ns=(int(seconds * 10**9), int(seconds * 10**9)))
        return str(path)

    def record(self, **declared: Any) -> CacheRecord:
        return self.cache.get_record(self.desc(**declared))

    def stands(self, **declared: Any) -> bool:
        return self.record(**declared).type is CacheRecordType.COMPUTED

    @staticmethod
    def desc(**declared: Any) -> TaskDesc:
        return make_task("a", work, args=[], **declared)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


KINDS = ["output_files", "intermediate_output_files"]


OLD, EVEN, NEW = 4_000, FLAG_TIME, 6_000
#: Each row of the table of C9: times of outputs, intermediates and inputs (None: missing), and whether the record of
#: time EVEN stands.
TABLE: list[tuple[list[int | None], list[int | None], list[int | None], bool]] = [
    ([OLD, None], [], [], False),  # any output missing
    ([OLD], [], [], True),  # all exist, no inputs
    ([NEW], [], [OLD, None], False),  # an input missing
    ([EVEN, OLD], [], [EVEN], False),  # newest input > oldest output
    ([EVEN, NEW], [], [OLD, EVEN], True),  # newest input equal
    ([NEW], [], [EVEN], True),  # older
    ([NEW + 2], [], [NEW], True),  # the flag's own time is not looked at
    ([], [OLD], [], True),  # only intermediates, all exist: likewise
    ([], [NEW], [OLD, None], False),
    ([], [EVEN, OLD], [EVEN], False),
    ([], [EVEN, NEW], [OLD, EVEN], True),
    ([], [NEW + 2], [NEW], True),
    ([], [OLD, None], [], True),  # any intermediate missing: the flag rule
    ([], [OLD, None], [OLD, None], False),
    ([], [NEW, None], [NEW], False),
    ([], [OLD, None], [EVEN], True),
    ([NEW], [None], [EVEN], True),  # outputs and intermediates: the outputs decide alone
    ([NEW], [OLD], [EVEN], True),
    ([OLD], [NEW], [EVEN], False),
    ([None], [NEW], [], False),
    ([], [], [], True),  # the flag rule: nothing declared, no inputs
    ([], [], [OLD, None], False),
    ([], [], [NEW], False),
    ([], [], [EVEN, OLD], True),
]


@pytest.mark.parametrize(("outputs", "intermediates", "inputs", "stands"), TABLE)
def test_each_row_of_the_table_is_as_it_says(
    scene: Scene, outputs: list[int | None], intermediates: list[int | None], inputs: list[int | None], stands: bool
) -> None:
    """C9: also that a record which does not stand keeps its payload, and that without a flag nothing stands."""

    def files(kind: str, times: list[int | None]) -> list[str]:
        names = [f"{kind}{number}" for number in range(len(times))]
        pairs = zip(names, times, strict=True)
        return [scene.missing(name) if time is None else scene.file(name, time) for name, time in pairs]

    declared = {
        "output_files": files("o", outputs),
        "intermediate_output_files": files("m", intermediates),
        "input_files": files("i", inputs),
    }
    expected = CacheRecordType.COMPUTED if stands else CacheRecordType.NEEDS_COMPUTE
    assert scene.record(**declared) == CacheRecord(expected, "kept")
    (scene.directory / "status" / "a.flag").unlink()
    assert scene.record(**declared) == CacheRecord(CacheRecordType.NEEDS_COMPUTE)


def test_a_missing_output_needs_compute_and_keeps_the_payload(scene: Scene) -> None:
    """C9."""
    record = scene.record(output_files=[scene.file("o1", 1), scene.missing("o2")])
    assert record == CacheRecord(CacheRecordType.NEEDS_COMPUTE, "kept")
    assert record.reason == f"output {scene.missing('o2')} is missing"


@pytest.mark.parametrize("kind", KINDS)
def test_existing_products_without_inputs_stand(scene: Scene, kind: str) -> None:
    """C9."""
    assert scene.stands(**{kind: [scene.file("o", 1)]})


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_input_needs_compute(scene: Scene, kind: str) -> None:
    """C9."""
    files = {kind: [scene.file("o", 9_000)], "input_files": [scene.file("i", 1), scene.missing("j")]}
    assert scene.record(**files).reason == f"input {scene.missing('j')} is missing"


@pytest.mark.parametrize("kind", KINDS)
def test_the_newest_input_is_compared_with_the_oldest_product_strictly(scene: Scene, kind: str) -> None:
    """C9: full resolution, equal stands, the flag's own time is not looked at."""
    products = [scene.file("o1", 8_000), scene.file("o2", 9_000)]
    inputs = [scene.file("i1", 1), scene.file("i2", 8_000)]
    assert scene.stands(**{kind: products}, input_files=inputs)
    scene.file("i2", 8_000.000001)
    assert not scene.stands(**{kind: products}, input_files=inputs)


def test_the_reason_names_files_and_age(scene: Scene) -> None:
    """F, reasons."""
    declared = {"output_files": [scene.file("o", 1_000)], "input_files": [scene.file("i", 8_200)]}
    assert (
        scene.record(**declared).reason
        == f"input {scene.missing('i')} is newer than output {scene.missing('o')} by 2 h"
    )


def test_outputs_decide_alone_over_intermediates(scene: Scene) -> None:
    """C9."""
    declared = {"output_files": [scene.file("o", 3_000)], "input_files": [scene.file("i", 2_000)]}
    assert scene.stands(**declared, intermediate_output_files=[scene.missing("m")])
    assert scene.stands(**declared, intermediate_output_files=[scene.file("m2", 1_000)])


@pytest.mark.parametrize("seconds", [FLAG_TIME, 1])
def test_with_intermediates_missing_the_flag_is_compared(scene: Scene, seconds: float) -> None:
    """C9: the flag rule."""
    declared = {"intermediate_output_files": [scene.file("m1", 1), scene.missing("m2")]}
    assert scene.stands(**declared)
    assert scene.stands(**declared, input_files=[scene.file("i", seconds)])
    assert not scene.stands(**declared, input_files=[scene.file("late", FLAG_TIME + 1)])
    assert not scene.stands(**declared, input_files=[scene.missing("none")])


def test_with_nothing_declared_the_flag_is_compared(scene: Scene) -> None:
    """C9: the flag rule."""
    assert scene.stands()
    assert scene.stands(input_files=[scene.file("i", FLAG_TIME)])
    assert not scene.stands(input_files=[scene.file("late", FLAG_TIME + 1)])
    assert not scene.stands(input_files=[scene.missing("none")])


def test_without_a_flag_files_prove_nothing_and_an_error_stays_one(scene: Scene) -> None:
    """C9."""
    output = scene.file("o", 9_000)
    fresh = FileTaskCache(str(scene.directory / "empty"))
    assert fresh.get_record(scene.desc(output_files=[output])).type is CacheRecordType.NEEDS_COMPUTE
    scene.cache.cache(Task("a"), is_error=True, result=ValueError())
    assert scene.record(output_files=[output]).type is CacheRecordType.ERROR
    assert scene.record(output_files=[scene.missing("p")]).type is CacheRecordType.ERROR


def test_a_directory_counts_by_existence_among_inputs_and_by_the_flag_among_outputs(scene: Scene) -> None:
    """C10, R19."""
    assert scene.stands(input_files=[scene.folder("in", 9_000)])
    out = scene.folder("out", 1)
    assert scene.stands(output_files=[out], input_files=[scene.file("i", FLAG_TIME)])
    assert not scene.stands(output_files=[out], input_files=[scene.file("late", FLAG_TIME + 1)])


def test_declared_files_may_be_urls(scene: Scene) -> None:
    """C6."""
    import fsspec

    system = fsspec.filesystem("memory")
    root = f"memory://{uuid.uuid4().hex}"
    for name in ("one", "two"):
        system.pipe_file(f"{root}/d/{name}", b"x")
    assert set(look_up([f"{root}/d/one", f"{root}/d/two", f"{root}/d/none", f"{root}/d"])) == {
        f"{root}/d/one", f"{root}/d/two", f"{root}/d",
    }  # fmt: skip
    assert scene.stands(output_files=[f"{root}/d/one"])
    assert not scene.stands(output_files=[f"{root}/d/none"])
    assert not scene.stands(input_files=[f"{root}/d/one"])  # newer than the flag
    assert scene.stands(output_files=[f"{root}/d/one"], input_files=[scene.file("i", 9_000)])


def test_one_look_finds_what_many_names_lead_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F5: links are followed, dangling ones are missing, odd spellings work."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d").mkdir()
    for name in ("a", "b", "c", "d/x"):
        (tmp_path / name).write_text(name)
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "dangling").symlink_to("none")
    there = ["a", "b", "c", "link", "d/", ".", "d/x", str(tmp_path / "a"), f"file://{tmp_path}/b", "./a"]
    assert set(look_up([*there, "dangling", "none", "none/x", "a/x", ""])) == set(there)
