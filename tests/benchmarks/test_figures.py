"""The figures that hold on every machine: ratios to plain RQ and plain Dask, measured beside them in one run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: How many times more tasks a second than plain RQ with as many workers.
LEAST_RATIO = 6.0


def _measured(directory: Path, only: str, systems: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the figures of a quick run by workload and system."""
    command = [sys.executable, "-m", "tests.benchmarks", "--json", "--quick", "--only", only, "--systems", systems]
    with (directory / "stderr").open("w+") as errors:
        ran = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, check=False)
        errors.seek(0)
        assert ran.returncode == 0, errors.read()
    return {(figure["workload"], figure["system"]): figure for figure in json.loads(ran.stdout)}


@pytest.mark.timeout(180)
def test_ten_thousand_tasks_go_through_the_queue_at_least_six_times_faster_than_through_plain_rq(
    tmp_path: Path,
) -> None:
    figures = _measured(tmp_path, "WIDE", "queue,rq")
    assert figures["WIDE", "overnight queue"]["tasks"] == 10_000
    assert figures["WIDE", "overnight queue"]["ratio"] >= LEAST_RATIO, figures


@pytest.mark.timeout(180)
def test_the_dask_executor_is_faster_than_map_on_independent_tasks_and_than_hops_on_a_chain(tmp_path: Path) -> None:
    figures = _measured(tmp_path, "DASKMAP,DASKCHAIN", "dask")
    assert figures["DASKMAP", "overnight Dask"]["tasks"] == 2_000
    assert figures["DASKMAP", "overnight Dask"]["ratio"] >= 1.0, figures
    assert figures["DASKCHAIN", "overnight Dask"]["ratio"] >= 2.0, figures
