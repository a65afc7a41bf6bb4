"""Graphs that are no graphs, and graphs that are but look as if they could do harm (ADVERSITY 7, rows 1 to 12)."""

from __future__ import annotations

import unicodedata

from overnight.graph import Task, TaskGraph
from tests.support.functions import total, value_of

#: Ids that are whole words to their user and something else to a shell, a terminal, a file system or a format.
STRANGE_IDS = (
    "with/slash", "with space", "emoji \N{SNOWMAN}", unicodedata.normalize("NFC", "t\u00eate"),
    unicodedata.normalize("NFD", "t\u00eate"), "long " * 2000, "../../escape", "/abs/escape", "C:\\escape",
    "s3://bucket/escape", "chr1:1-1000", "a::b", "two\nlines", "\x1b[31mred\x1b[0m", "%s %d {0}", "carriage\rreturn",
    "case", "CASE", "a b", "a-b", "a_b", ".", "..", "~", "-k", "<script>", "nul", "CON", "a.flag", "*",
)  # fmt: skip


def strange_ids() -> TaskGraph:
    """One task for each of the ids, its value their number in order, and ``total``, their sum."""
    graph = TaskGraph()
    tasks = [graph.create_task(task_id, value_of, args=[number]) for number, task_id in enumerate(STRANGE_IDS)]
    graph.create_task("total", total, args=[tasks])
    return graph


def itself() -> TaskGraph:
    graph = TaskGraph()
    graph.create_task("me", value_of, args=[1], deps=[Task("me")])
    return graph


def twice() -> TaskGraph:
    graph = TaskGraph()
    graph.create_task("same", value_of, args=[1])
    graph.create_task("same", value_of, args=[2])
    return graph


def misspelt() -> TaskGraph:
    graph = TaskGraph()
    graph.create_task("align-1", value_of, args=[1])
    graph.create_task("sort-1", value_of, args=[1], deps=[Task("allign-1")])
    return graph


def no_id() -> TaskGraph:
    return _of_one("")


def nul_id() -> TaskGraph:
    return _of_one("a\0b")


def surrogate_id() -> TaskGraph:
    return _of_one("a\ud800b")


def nested() -> TaskGraph:
    """``found`` takes ``inner`` from a list in a tuple in a dict; ``not found`` holds it where nobody looks."""
    graph = TaskGraph()
    inner = graph.create_task("inner", value_of, args=[21])
    graph.create_task("found", add_up, args=[{"deep": ([inner], inner)}])
    graph.create_task("not found", name_of, args=[Holder(inner)])
    return graph


class Holder:
    """A container of a type that arguments are not searched in."""

    def __init__(self, task: Task) -> None:
        self.task = task


def add_up(given: dict[str, tuple[list[int], int]]) -> int:
    [first], second = given["deep"]
    return first + second


def name_of(holder: Holder) -> str:
    return holder.task.task_id


def _of_one(task_id: str) -> TaskGraph:
    graph = TaskGraph()
    graph.create_task(task_id, value_of, args=[1])
    return graph
