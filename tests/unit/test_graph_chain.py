"""Chains, barriers and the names of functions (BEHAVIOUR G28 to G32, C11)."""

from __future__ import annotations

import functools
import pickle
from typing import Any

import pytest

from overnight.graph import Task, TaskDesc, TaskOptions, chain_tasks, function_name, make_task, sync_tasks


def double(value: int, **kwargs: int) -> int:
    return 2 * value + sum(kwargs.values())


def fail(_value: object) -> Exception:
    return ValueError("returned")


def three(**options: Any) -> list[TaskDesc]:
    first = make_task("1", double, args=[Task("out")], deps=[Task("x")], input_files=["i1"], **options)
    second = make_task("2", double, args=(first.task,), kwargs={"self": 1}, output_files=["o2"])
    return [first, second, make_task("3", double, args=[100], input_files=["i3"])]


def test_a_chain_is_the_last_ones_task_with_the_first_ones_arguments() -> None:
    """G28."""
    descs = three()
    with pytest.raises(ValueError, match="at least one"):
        chain_tasks()
    assert chain_tasks(descs[0]) is descs[0]
    chain = chain_tasks(*descs)
    assert (chain.task, chain.args, chain.deps) == (Task("3"), [Task("out")], [Task("x"), Task("out")])
    assert (chain.input_files, chain.output_files) == (["i1", "i3"], ["o2"])


def test_a_link_may_depend_on_the_one_before_it_alone() -> None:
    """G29."""
    descs = three()
    with pytest.raises(ValueError, match=r"'3'.*'2'.*'1'"):
        chain_tasks(*descs[:2], make_task("3", double, args=[descs[0].task]))


def test_each_result_takes_the_place_of_its_task_and_others_are_dropped() -> None:
    """G29, G30."""
    descs = three()
    assert chain_tasks(*descs[:2]).func(5) == 21
    assert chain_tasks(*descs).func(5, self=1) == 200
    nested = chain_tasks(descs[0], chain_tasks(descs[1], make_task("3", double, args=[descs[1].task])))
    assert pickle.loads(pickle.dumps(nested)).func(5) == 42
    assert nested.task == Task("3")


def test_an_exception_that_a_link_returns_ends_the_chain() -> None:
    """G30."""
    first = make_task("1", fail, args=[0])
    second = make_task("2", double, args=[1])
    assert isinstance(chain_tasks(first, second).func(0), ValueError)
    with pytest.raises(ZeroDivisionError):
        chain_tasks(second, make_task("3", lambda: 1 // 0, args=[])).func(1)


def test_a_chain_takes_the_highest_options_and_the_sum_of_the_limits() -> None:
    """G31."""
    a = make_task("a", len, args=[], retries=1, timeout=2, priority=-1, queue="q", resources={"gpu": 1})
    b = make_task("b", len, args=[], retry_delay=3, timeout=5, priority=-2, resources={"gpu": 2, "cpu": 1})
    assert chain_tasks(a, b).options == TaskOptions(1, 3, 7, -1, "q", (("cpu", 1), ("gpu", 2)))
    assert chain_tasks(a, make_task("c", len, args=[])).options.timeout is None
    with pytest.raises(ValueError, match=r"'q'.*'p'"):
        chain_tasks(a, make_task("c", len, args=[], queue="p"))


def test_a_barrier_takes_and_returns_nothing() -> None:
    """G32."""
    assert sync_tasks() is None  # type: ignore[func-returns-value]


class Tool:
    def method(self) -> None: ...

    @staticmethod
    def static() -> None: ...

    def __call__(self) -> None: ...


class Hostile:
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __call__(self) -> None: ...


def test_every_callable_has_a_name() -> None:
    """C11."""
    here = __name__
    assert function_name(double) == f"{here}:double"
    assert function_name(functools.partial(functools.partial(double, 1), 2)) == f"{here}:double"
    assert function_name(Tool().method) == f"{here}:Tool.method"
    assert function_name(Tool.static) == f"{here}:Tool.static"
    assert function_name(Tool()) == f"{here}:Tool"
    assert function_name(Hostile()) == f"{here}:Hostile"
    assert function_name(len) == "builtins:len"
    assert function_name(chain_tasks(*three()).func) == " | ".join([f"{here}:double"] * 3)
