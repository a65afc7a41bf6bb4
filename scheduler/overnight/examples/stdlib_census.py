"""A census of the running interpreter's own standard library: ``overnight run overnight.examples.stdlib_census:build``.

A map, two reductions and a report, on real input that every machine has:

    count <file>   one task for each .py file; the file is its declared input
    merge <package>   one task for each top-level package; modules at the top level form the package ``(modules)``
    rank imports   the import graph of all modules, from the merged packages
    write census   census.csv, census.json and census.html, its declared outputs

Values travel between tasks, files only at the two ends: a touched source file runs its count again and what
depends on it, a deleted report runs one task.
"""

from __future__ import annotations

import math
import os
import platform
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from overnight.errors import UsageError
from overnight.examples._census_count import count_file
from overnight.examples._census_merge import merge_package, rank_imports
from overnight.examples._census_report import OUTPUT_NAMES, write_census
from overnight.graph import Task, TaskGraph
from overnight.naming import shown

SINGLE_MODULES = "(modules)"

_LEFT_OUT = frozenset(("site-packages", "dist-packages", "__pycache__"))


def build(*, out: str = "./census", limit: int = 0, slow: float = 0.0, root: str | None = None) -> TaskGraph:
    """Return the graph of a census of the ``.py`` files under `root`, by default the standard library.

    `out` is the directory of the three reports. `limit`, if not 0, counts only so many files, taken evenly from
    all of them. Each count first sleeps `slow` seconds. Raises UsageError for a value out of range, and for a
    `root` that cannot be listed or holds no ``.py`` file.

    Task ids name a file relative to the standard library, and by its whole path under another `root`: the ids of
    two directories differ, and so do the records of their results.
    """
    directory = Path(root).absolute() if root else _library()
    paths = _spread(list(_python_files(directory)), int(_number("limit", limit)))
    if not paths:
        raise UsageError(f"There is no .py file under {shown(str(directory))}; give another root.")
    graph = TaskGraph()
    counts = _add_counts(graph, directory, paths, _number("slow", slow))
    _add_report(graph, counts, _about(directory), Path(out).absolute())
    return graph


def _add_counts(graph: TaskGraph, root: Path, paths: Sequence[str], pause: float) -> dict[str, list[Task]]:
    """Add a task for each path below `root`; return the tasks of each package."""
    is_library = root == _library()
    counts: dict[str, list[Task]] = {}
    for path in paths:
        file, name = str(root / path), shown(path)
        package = name.partition("/")[0] if "/" in name else SINGLE_MODULES
        task = graph.create_task(
            f"count {name if is_library else shown(file)}",
            count_file,
            args=[file, name, package, pause],
            input_files=[file],
        )
        counts.setdefault(package, []).append(task)
    return counts


def _add_report(graph: TaskGraph, counts: Mapping[str, Sequence[Task]], about: Mapping[str, str], out: Path) -> None:
    merges = [
        graph.create_task(f"merge {package}", merge_package, args=[package, tasks])
        for package, tasks in sorted(counts.items())
    ]
    ranking = graph.create_task("rank imports", rank_imports, args=[merges])
    graph.create_task(
        "write census",
        write_census,
        args=[str(out), about, merges, ranking],
        output_files=[str(out / name) for name in OUTPUT_NAMES],
    )


def _library() -> Path:
    return Path(sysconfig.get_paths()["stdlib"]).absolute()


def _about(root: Path) -> dict[str, str]:
    python = f"Python {platform.python_version()}"
    name = shown(str(root))
    return {"title": f"the {python} library" if root == _library() else name, "python": python, "root": name}


def _python_files(root: Path) -> Iterator[str]:
    """Yield the paths, relative to `root` and with ``/``, of its ``.py`` files, in a fixed order."""
    for folder, folders, names in os.walk(root, onerror=_refuse):
        folders[:] = sorted(set(folders) - _LEFT_OUT)
        for name in sorted(names):
            file = Path(folder, name)
            if name.endswith(".py") and file.is_file():
                yield file.relative_to(root).as_posix()


def _refuse(error: OSError) -> None:
    raise UsageError(f"{shown(str(error.filename))} cannot be listed: {error.strerror}.") from error


def _spread(paths: list[str], most: int) -> list[str]:
    """Return `most` of the paths at even distances, or all of them if that is fewer, or for 0."""
    if not 0 < most < len(paths):
        return paths
    return [paths[number * len(paths) // most] for number in range(most)]


def _number(name: str, value: float | str) -> float:
    """Return a parameter, given as a number or as the text of one, if it is finite and not negative."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise UsageError(f"{name} must be a number of at least 0, not {value!r}.")
    return number
