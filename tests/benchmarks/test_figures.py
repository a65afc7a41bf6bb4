"""The figures that hold on every machine: ratios to plain RQ and plain Dask, measured beside them in one run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.flag_files import deciding_ratio, recording_ratio
from tests.benchmarks.flat_cost import MOST_TIMES, SIZES, core_costs, scheduler_costs

ROOT = Path(__file__).resolve().parents[2]
#: How many times more tasks a second than plain RQ with as many workers.
LEAST_RATIO = 6.0
#: Of the rate at which the standard library's pool takes plain calls, what the process pool reaches with a graph, its
#: decisions, logs and cloudpickle. Waiting by turns, or a step through another thread, would leave a tenth of it.
LEAST_SHARE_OF_PLAIN_POOL = 0.3
#: How many times as long as a call through the standard library's pool, a step of a chain may take.
MOST_TIMES_PLAIN_HOP = 3.0
#: Of the files that a plain loop writes and renames in a second, how many tasks with flags run in one. A sync for each
#: flag would leave a few hundredths.
LEAST_SHARE_OF_PLAIN_FILES = 0.1
#: How many times the CPU seconds that opening and parsing all headers takes, the whole decision may take.
MOST_TIMES_PLAIN_PARSING = 2.0


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
def test_the_process_pool_keeps_up_with_plain_calls_through_the_standard_librarys(tmp_path: Path) -> None:
    """PP2."""
    figures = _measured(tmp_path, "WIDE,CHAIN", "process-pool,pool")
    assert figures["WIDE", "overnight process pool"]["tasks"] == 10_000
    wide, chain = [
        figures[name, "overnight process pool"]["median"] / figures[name, "process pool"]["median"]
        for name in ("WIDE", "CHAIN")
    ]
    assert wide >= LEAST_SHARE_OF_PLAIN_POOL, figures
    assert chain <= MOST_TIMES_PLAIN_HOP, figures


@pytest.mark.timeout(180)
def test_the_dask_executor_is_faster_than_map_on_independent_tasks_and_than_hops_on_a_chain(tmp_path: Path) -> None:
    figures = _measured(tmp_path, "DASKMAP,DASKCHAIN", "dask")
    assert figures["DASKMAP", "overnight Dask"]["tasks"] == 2_000
    assert figures["DASKMAP", "overnight Dask"]["ratio"] >= 1.0, figures
    assert figures["DASKCHAIN", "overnight Dask"]["ratio"] >= 2.0, figures


@pytest.mark.timeout(180)
def test_tasks_with_flags_run_at_a_good_part_of_the_rate_of_plain_files() -> None:
    ours, plain, ratio = recording_ratio(2_000)
    assert ratio >= LEAST_SHARE_OF_PLAIN_FILES, (ours, plain)


@pytest.mark.timeout(180)
def test_deciding_what_must_run_costs_little_more_than_parsing_the_headers() -> None:
    ours, plain, ratio = deciding_ratio(20_000)
    assert ratio <= MOST_TIMES_PLAIN_PARSING, (ours, plain)


@pytest.mark.timeout(180)
def test_a_task_costs_the_scheduler_the_same_however_many_there_are(short_directory: Path) -> None:
    """Processor time, which other load on the machine changes little, of the core alone and of the real process."""
    measured = {**core_costs(SIZES), "process": scheduler_costs(short_directory / "state", SIZES)}
    for what, costs in measured.items():
        assert max(costs.values()) <= MOST_TIMES * min(costs.values()), (what, costs)
