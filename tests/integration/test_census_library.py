"""The census of a part of the standard library, and what building its graph costs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

from overnight.cache import FileTaskCache
from overnight.examples.stdlib_census import build
from overnight.sequential_executor import SequentialExecutor
from tests.support.drain import drain
from tests.support.plain_census import plain_census

LIBRARY = Path(sysconfig.get_paths()["stdlib"])


@pytest.mark.timeout(120)  # counts the lines twice, in this process
def test_totals_of_a_part_of_the_library_equal_those_of_a_plain_loop(tmp_path: Path) -> None:
    part = tmp_path / "part"
    for package in ("asyncio", "collections", "email", "http", "importlib", "xml"):
        shutil.copytree(LIBRARY / package, part / package, ignore=shutil.ignore_patterns("__pycache__"))
    drain(build(root=str(part), out=str(tmp_path)))
    found = json.loads((tmp_path / "census.json").read_text("utf-8"))
    assert found["totals"] == plain_census(str(part))
    assert found["totals"]["files"] > 100
    assert found["ranks"][0]["module"].startswith("asyncio.")


def test_only_what_depends_on_a_change_runs_again(tmp_path: Path) -> None:
    """F3."""
    root, out = tmp_path / "sources", tmp_path / "out"
    for package in ("json", "html"):
        shutil.copytree(LIBRARY / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))

    def executed() -> list[str]:
        with SequentialExecutor(FileTaskCache(str(tmp_path / "status"))) as executor:
            return [task.task_id for task, _ in executor.execute(build(root=str(root), out=str(out)))]

    assert len(executed()) == len(list(root.rglob("*.py"))) + 4
    assert executed() == []
    (out / "census.csv").unlink()
    assert executed() == ["write census"]
    assert (out / "census.csv").exists()
    touched = root / "json" / "decoder.py"
    later = time.time_ns() + 10**10
    os.utime(touched, ns=(later, later))
    assert executed() == [f"count {touched}", "merge json", "rank imports", "write census"]


def test_building_the_graph_imports_no_heavy_package() -> None:
    """P3."""
    program = (
        "import sys\n"
        "from overnight.examples.stdlib_census import build\n"
        "build()\n"
        "print([name for name in ('networkx', 'redis', 'rq', 'dask', 'distributed') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
