"""The figures that hold on every machine: ratios to plain RQ, measured beside it in one run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: How many times more tasks a second than plain RQ with as many workers.
LEAST_RATIO = 6.0


@pytest.mark.timeout(180)
def test_ten_thousand_tasks_go_through_the_queue_at_least_six_times_faster_than_through_plain_rq(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-m", "tests.benchmarks", "--json", "--quick", "--only", "WIDE", "--systems", "queue,rq"]
    with (tmp_path / "stderr").open("w+") as errors:
        ran = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, check=False)
        errors.seek(0)
        assert ran.returncode == 0, errors.read()
    figures = {figure["system"]: figure for figure in json.loads(ran.stdout)}
    assert figures["overnight queue"]["tasks"] == 10_000
    assert figures["overnight queue"]["ratio"] >= LEAST_RATIO, figures
