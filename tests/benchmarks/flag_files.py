"""What recording and reading flags costs beside the least that files cost: ``python -m tests.benchmarks.flag_files``.

Both sides take turns, so that whatever else the machine does meets both alike.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from overnight.cache import FileTaskCache
from overnight.inspection import decide
from overnight.sequential_executor import SequentialExecutor
from tests.benchmarks import status_100k
from tests.support import graphs

ROUNDS = 3
FLAG_BYTES = 600


def plain_writing(directory: Path, files: int) -> float:
    """Write and rename so many files of a flag's size, nothing else; return files a second."""
    directory.mkdir()
    data = b"x" * FLAG_BYTES
    began = time.perf_counter()
    for number in range(files):
        temporary = f"{directory}/{number}.tmp"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(descriptor, data)
        os.close(descriptor)
        os.rename(temporary, f"{directory}/{number}.flag")  # noqa: PTH104 - the least that it can cost
    return files / (time.perf_counter() - began)


def recording(directory: Path, tasks: int) -> float:
    """Run so many no-ops one after the other with a flag each; return tasks a second."""
    graph = graphs.noops(n=tasks)
    cache = FileTaskCache(str(directory / "status"))
    began = time.perf_counter()
    with SequentialExecutor(cache, task_log_dir=str(directory / "logs")) as executor:
        done = sum(1 for _ in executor.execute(graph))
    seconds = time.perf_counter() - began
    if done != tasks or len(list((directory / "status").iterdir())) != tasks:
        raise RuntimeError("Not every task has left a flag.")
    return tasks / seconds


def recording_ratio(tasks: int) -> tuple[float, float, float]:
    """Return tasks a second with flags, files a second of plain writing, and the median of the rounds' ratios."""
    rounds = []
    with tempfile.TemporaryDirectory(prefix="ob-") as place:
        for number in range(ROUNDS):
            plain = plain_writing(Path(place) / f"plain{number}", tasks)
            ours = recording(Path(place) / f"ours{number}", tasks)
            rounds.append((ours, plain, ours / plain))
    ours, plain, ratio = (statistics.median(values) for values in zip(*rounds, strict=True))
    return ours, plain, ratio


def deciding_ratio(tasks: int) -> tuple[float, float, float]:
    """Return CPU seconds of `decide`, half of the tasks having flags, of parsing their headers, and the ratio."""
    with tempfile.TemporaryDirectory(prefix="ob-") as directory:
        graph = status_100k.built(tasks)
        status_100k.written(graph, directory, tasks // 2)
        rounds = []
        for _ in range(ROUNDS):
            plain = _cpu_seconds(lambda: status_100k.parsed_plainly(directory))
            ours = _cpu_seconds(lambda: decide(graph, FileTaskCache(directory)))
            rounds.append((ours, plain, ours / plain))
    ours, plain, ratio = (statistics.median(values) for values in zip(*rounds, strict=True))
    return ours, plain, ratio


def _cpu_seconds(action: Callable[[], object]) -> float:
    began = time.process_time()
    action()
    return time.process_time() - began


def main() -> None:
    ours, plain, ratio = recording_ratio(10_000)
    print(f"10,000 no-ops with flags: {ours:.0f} tasks/s beside {plain:.0f} plain files/s, ratio {ratio:.2f}")
    ours, plain, ratio = deciding_ratio(100_000)
    print(f"deciding 100,000 tasks: {ours:.2f} s of CPU beside {plain:.2f} s of plain parsing, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
