"""The census of the whole standard library, and what building its graph costs."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from overnight.examples.stdlib_census import build
from tests.support.drain import drain
from tests.support.plain_census import plain_census


@pytest.mark.timeout(600)  # counts about 900,000 lines twice, in this process
def test_totals_of_the_whole_library_equal_those_of_a_plain_loop(tmp_path: Path) -> None:
    drain(build(out=str(tmp_path)))
    found = json.loads((tmp_path / "census.json").read_text("utf-8"))
    assert found["totals"] == plain_census(sysconfig.get_paths()["stdlib"])
    assert found["totals"]["files"] > 500
    assert found["ranks"][0]["module"] == "os"


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
