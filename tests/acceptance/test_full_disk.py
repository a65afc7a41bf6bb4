"""A full disk under the status directory costs no result and no run (C7, P13)."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command import desk

TASKS = 200


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory on a file system of its own, of 128 KiB. Mounting one needs the rights of root."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_the_run_goes_on_says_what_runs_again_and_heals_when_there_is_room(
    short_directory: Path, small_disk: Path
) -> None:
    """C7, P13: results stay in Redis; what has no flag runs again next time, and only that."""
    command = ["run", "tests.support.graphs:noops", "-p", f"n={TASKS}", "-d", str(small_disk), "-j", "1"]
    with desk(short_directory / "full-disk") as given:
        first = given.run(*command)
        recorded = len(list(small_disk.glob("*.flag")))

        assert first.status == 0, first.err
        assert 0 < recorded < TASKS
        assert f"{TASKS - recorded} records could not be written to {small_disk}" in first.out
        assert first.err.count("No space left on device") == 1
        assert [path for path in small_disk.iterdir() if path.suffix != ".flag"] == []

        subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
        second = given.run(*command)

        assert f"{TASKS - recorded} of {TASKS} tasks to run" in second.out
        assert second.status == 0
        assert len(list(small_disk.glob("*.flag"))) == TASKS
