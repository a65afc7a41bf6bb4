"""What is stored once for all tasks that take it (QX8)."""

from __future__ import annotations

from typing import Any

import pytest

from overnight.graph import TaskGraph
from overnight.pickling import loads
from overnight.shared_arguments import LARGE_BYTES, SharedArgument, SharedArguments, put_back


def observed(*arguments: Any) -> tuple[SharedArguments, list[list[Any]]]:
    """Return what is shared of tasks with one argument each, and the arguments as they travel."""
    graph = TaskGraph()
    descs = [
        graph.get_task_desc(graph.create_task(str(number), print, args=[argument]))
        for number, argument in enumerate(arguments)
    ]
    shared = SharedArguments()
    shared.observe(descs)
    return shared, [shared.replaced(desc.args, desc.kwargs)[0] for desc in descs]


def test_an_argument_of_several_tasks_is_stored_once() -> None:
    value = ["x" * 400, "y" * 400]
    shared, sent = observed(value, value, value)
    assert len(shared.blobs) == 1
    assert all(isinstance(args[0], SharedArgument) for args in sent)


@pytest.mark.parametrize("make", [lambda: [1.5] * LARGE_BYTES, lambda: bytes(2 * LARGE_BYTES), lambda: {*range(9000)}])
def test_large_arguments_that_are_equal_are_stored_once(make: Any) -> None:
    shared, sent = observed(make(), make(), make())
    assert len(shared.blobs) == 1
    (body,) = shared.blobs.values()
    assert [put_back(args, {}, {args[0].digest: loads(body)})[0] for args in sent] == [[make()]] * 3


def test_large_arguments_that_differ_stay_apart() -> None:
    shared, sent = observed(bytes(2 * LARGE_BYTES), b"x" * 2 * LARGE_BYTES)
    assert len(shared.blobs) == 2
    assert sent[0] != sent[1]


def test_small_arguments_and_those_that_hold_tasks_stay_where_they_are() -> None:
    graph = TaskGraph()
    task = graph.create_task("t", print, args=[])
    shared, sent = observed(["small"], [task, "z" * LARGE_BYTES], [task, "z" * LARGE_BYTES])
    assert not shared.blobs
    assert sent[0] == [["small"]]
