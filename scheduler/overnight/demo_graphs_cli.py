"""A tool with four small graphs of tasks that sleep, to try executors and options on (BEHAVIOUR D1 to D3).

    python -m overnight.demo_graphs_cli C --jobs 4 --graph-params 20 0.5 1

A shape builds a graph from its parameters: how many tasks there are, and how many seconds they sleep in the mean.
The seconds travel as text, as they were typed, down to the tasks.
"""

from __future__ import annotations

import logging
import math
import random
import sys
import time
import traceback
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from overnight.cli_tools import TaskGraphCli
from overnight.errors import OvernightError, UsageError
from overnight.graph import Task, TaskGraph
from overnight.task_log import level_of

SEED = 42
_SHORTEST_SECONDS = 0.1
_SPREAD = 0.7
_RESULT_LENGTH = 2000
_MOST_JOINED = 5


def timeout(seconds: str) -> float:
    """Return how many seconds to sleep: 0.0 for 0 or less, otherwise at random around `seconds`, 0.1 or more."""
    mean = float(seconds)
    if mean <= 0:
        return 0.0
    return max(_SHORTEST_SECONDS, random.gauss(mean, _SPREAD * mean))


def task_part(seconds: str) -> str:
    """Sleep and return 2000 letters P."""
    time.sleep(timeout(seconds))
    return "P" * _RESULT_LENGTH


def task_part_b(seconds: str) -> str:
    """Sleep and return 2000 letters B."""
    time.sleep(timeout(seconds))
    return "B" * _RESULT_LENGTH


def task_part_c(seconds: str, *_args: str) -> str:
    """Sleep and return 2000 letters C."""
    time.sleep(timeout(seconds))
    return "C" * _RESULT_LENGTH


def task_summary(seconds: str) -> None:
    """Sleep."""
    time.sleep(timeout(seconds))


def task_summary_b(seconds: str, *args: str) -> str:
    """Sleep and return up to five results joined with "b"; of more the first five, joined with "c"."""
    time.sleep(timeout(seconds))
    return ("b" if len(args) <= _MOST_JOINED else "c").join(args[:_MOST_JOINED])


def task_summary_c(seconds: str, *args: str) -> str:
    """Sleep and return up to five results joined with "b"; of more the first five, joined with "c"."""
    time.sleep(timeout(seconds))
    return ("b" if len(args) <= _MOST_JOINED else "c").join(args[:_MOST_JOINED])


@dataclass(frozen=True, slots=True)
class Shape:
    """A kind of graph: how it is built, and its parameters with their defaults; the last two are seconds."""

    build: Callable[[TaskGraph, list[int], str, str], None]
    names: tuple[str, ...]
    defaults: tuple[str, ...]


def build_demo_graph(graph_type: str, graph_params: list[str] | None) -> TaskGraph:
    """Build a demo graph, A, B, C or D, and print one line about it.

    `graph_params` are how many parts (for D: how many clicks before that), the seconds of a part and those of a
    summary; None means the defaults. Raises UsageError for an unknown type and for parameters that do not fit.
    """
    shape = _SHAPES.get(graph_type)
    if shape is None:
        raise UsageError(f"Unknown graph {graph_type!r}; the known ones are {', '.join(_SHAPES)}.")
    params = list(shape.defaults if graph_params is None else graph_params)
    if len(params) != len(shape.names):
        raise UsageError(
            f"Graph {graph_type} takes {len(shape.names)} parameters ({', '.join(shape.names)}), "
            f"not {len(params)}: {' '.join(params)}."
        )
    *counts, part_seconds, summary_seconds = params
    graph = TaskGraph()
    shape.build(
        graph, [_count(text) for text in counts], _checked_seconds(part_seconds), _checked_seconds(summary_seconds)
    )
    facts = ", ".join(f"{name} {value}" for name, value in zip(shape.names, params, strict=True))
    sys.stdout.write(f"Graph {graph_type}: {len(graph)} tasks ({facts})\n")
    return graph


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"A number of tasks must be 0 or more, not {text!r}.")
    return int(text)


def _checked_seconds(text: str) -> str:
    try:
        finite = math.isfinite(float(text))
    except ValueError:
        finite = False
    if not finite:
        raise UsageError(f"Seconds must be a number, not {text!r}.")
    return text


def _build_a(graph: TaskGraph, counts: list[int], part_seconds: str, summary_seconds: str) -> None:
    _add_fan_in(graph, task_part, _part_ids(counts[0]), "summary", part_seconds, summary_seconds)


def _build_b(graph: TaskGraph, counts: list[int], part_seconds: str, summary_seconds: str) -> None:
    _add_fan_in(graph, task_part_b, _part_ids(counts[0]), "summary", part_seconds, summary_seconds)


def _build_c(graph: TaskGraph, counts: list[int], part_seconds: str, summary_seconds: str) -> None:
    parts = [graph.create_task(name, task_part_b, args=[part_seconds]) for name in _part_ids(counts[0])]
    summary = graph.create_task("summary", task_summary_b, args=[summary_seconds, *parts])
    second_parts = [
        graph.create_task(f"part2 {number}", task_part_c, args=[part_seconds, summary]) for number in range(counts[0])
    ]
    graph.create_task("summary2", task_summary_c, args=[summary_seconds, *second_parts])


def _build_d(graph: TaskGraph, counts: list[int], part_seconds: str, summary_seconds: str) -> None:
    clicks, parts = counts
    for click in range(clicks):
        names = [f"part {click}:{number}" for number in range(parts)]
        _add_fan_in(graph, task_part, names, f"summary {click}", part_seconds, summary_seconds)


def _part_ids(parts: int) -> list[str]:
    return [f"part {number}" for number in range(parts)]


def _add_fan_in(
    graph: TaskGraph, part: Callable[[str], str], names: Sequence[str], summary: str, part_seconds: str, seconds: str
) -> None:
    """Add parts and a summary that waits for them and takes none of their results."""
    deps: list[Task] = [graph.create_task(name, part, args=[part_seconds]) for name in names]
    graph.create_task(summary, task_summary, args=[seconds], deps=deps)


_PARTS = ("parts", "seconds of a part", "seconds of a summary")
_SHAPES = {
    "A": Shape(_build_a, _PARTS, ("10", "2", "2")),
    "B": Shape(_build_b, _PARTS, ("2", "5", "10")),
    "C": Shape(_build_c, _PARTS, ("2", "5", "10")),
    "D": Shape(_build_d, ("clicks", *_PARTS), ("5", "10", "2", "2")),
}


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="demo_graphs_cli", description="Run one of four graphs of tasks that sleep.")
    parser.add_argument("graph", nargs="?", choices=_SHAPES, default="A", help="which graph (default: A)")
    parser.add_argument(
        "--graph-params", "-gp", nargs="+", metavar="N",
        help="how many parts (D: clicks and parts), then the seconds of a part and of a summary",
    )  # fmt: skip
    parser.add_argument("--verbose", "-v", "-V", action="count", default=0, help="log more; may be repeated")
    parser.add_argument("--logfile", metavar="FILE", help="log to this file instead of the terminal")
    TaskGraphCli.add_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> None:
    """Run the tool. SystemExit 1 if tasks failed, 2 if it was called in a way that cannot be used."""
    parser = _parser()
    options = parser.parse_args(argv)
    random.seed(SEED)
    try:
        with _logging_to(options.logfile, options.verbose):
            succeeded = _process(options)
    except UsageError as error:
        parser.error(str(error))
    except OvernightError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_status)
    if not succeeded:
        sys.exit(1)


def _process(options: Namespace) -> bool:
    """Return whether all went well; the first failure of a run that does not keep going is printed here."""
    graph = build_demo_graph(options.graph, options.graph_params)
    try:
        return TaskGraphCli.process_graph(graph, **vars(options))
    except OvernightError:
        raise
    except Exception:  # the task's own, which may be anything
        traceback.print_exc()
        return False


@contextmanager
def _logging_to(logfile: str | None, verbosity: int) -> Iterator[None]:
    """Log at the level of the verbosity; leave the logging of the process as it was."""
    handler = _log_handler(logfile)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    former = root.level
    root.addHandler(handler)
    root.setLevel(level_of(verbosity))
    try:
        yield
    finally:
        root.setLevel(former)
        root.removeHandler(handler)
        handler.close()


def _log_handler(logfile: str | None) -> logging.Handler:
    if logfile is None:
        return logging.StreamHandler()
    try:
        return logging.FileHandler(logfile, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"The log file {logfile} cannot be written: {error}.") from error


if __name__ == "__main__":
    main()
