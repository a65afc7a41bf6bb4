"""TaskGraph against a naive model, through random sequences of changes (BEHAVIOUR G9 to G27)."""

from __future__ import annotations

import copy
import pickle

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from overnight.graph import Task, TaskGraph

IDS = [f"t{number}" for number in range(12)]


def combine(*_values: object) -> None:
    """Stand for a task's function, which never runs here."""


class Model:
    """A task is its id, its priority, its arguments (a result takes the place of an id) and its unmet deps."""

    def __init__(self, args: list[object], deps: list[str], priority: int) -> None:
        self.args, self.priority = args, priority
        self.unmet = list(dict.fromkeys([*deps, *(arg.task_id for arg in args if isinstance(arg, Task))]))


class GraphMachine(RuleBasedStateMachine):
    """Drives a TaskGraph and its model side by side; dependencies point to lower ids, so no cycle arises."""

    def __init__(self) -> None:
        super().__init__()
        self.graph = TaskGraph()
        self.model: dict[str, Model] = {}

    @rule(at=st.integers(0, 11), values=st.sets(st.integers(0, 11)), orders=st.sets(st.integers(0, 11)),
          priority=st.integers(-1, 1))  # fmt: skip
    def add(self, at: int, values: set[int], orders: set[int], priority: int) -> None:
        task_id = IDS[at]
        if task_id in self.model:
            return
        args: list[object] = [Task(IDS[value]) for value in values if value < at]
        deps = [IDS[order] for order in orders if order < at]
        self.graph.create_task(task_id, combine, args=args, deps=[Task(dep) for dep in deps], priority=priority)
        self.model[task_id] = Model(args, deps, priority)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def extract(self, data: st.DataObject) -> None:
        chosen = data.draw(st.lists(st.sampled_from(sorted(self.model)), unique=True, max_size=3))
        descs = self.graph.extract_tasks([Task(task_id) for task_id in chosen])
        for task_id, desc in zip(chosen, descs, strict=True):
            expected = self.model.pop(task_id)
            assert desc.args == expected.args
            assert [dep.task_id for dep in desc.deps] == expected.unmet

    @rule(task_id=st.sampled_from(IDS), value=st.integers())
    def complete(self, task_id: str, value: int) -> None:
        self.graph.process_completed_tasks([(Task(task_id), value)])
        self.model.pop(task_id, None)
        for model in self.model.values():
            if task_id in model.unmet:
                model.unmet.remove(task_id)
                model.args = [value if arg == Task(task_id) else arg for arg in model.args]

    @rule(task_id=st.sampled_from(IDS))
    def fail(self, task_id: str) -> None:
        self.graph.process_completed_tasks([(Task(task_id), ValueError())])
        gone = {task_id}
        while more := {key for key, model in self.model.items() if gone & set(model.unmet)} - gone:
            gone |= more
        self.model = {key: model for key, model in self.model.items() if key not in gone}

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def prune(self, data: st.DataObject) -> None:
        kept = set(data.draw(st.lists(st.sampled_from(sorted(self.model)), min_size=1)))
        self.graph.prune(sorted(kept))
        while more := {dep for key in kept for dep in self.model[key].unmet if dep in self.model} - kept:
            kept |= more
        self.model = {key: model for key, model in self.model.items() if key in kept}

    @rule(pickled=st.booleans())
    def copy(self, pickled: bool) -> None:
        self.graph = pickle.loads(pickle.dumps(self.graph)) if pickled else copy.deepcopy(self.graph)

    @invariant()
    def the_graph_holds_what_the_model_holds(self) -> None:
        assert [task.task_id for task in self.graph.tasks] == list(self.model)
        for task_id, model in self.model.items():
            desc = self.graph.get_task_desc(Task(task_id))
            assert desc.args == model.args
            assert [dep.task_id for dep in desc.deps] == model.unmet

    @invariant()
    def ready_tasks_are_those_without_dependencies_in_order(self) -> None:
        ready = [task_id for task_id, model in self.model.items() if not model.unmet]
        ready.sort(key=lambda task_id: -self.model[task_id].priority)
        assert [task.task_id for task in self.graph.ready_tasks()] == ready
        assert [task.task_id for task in self.graph.ready_tasks(2)] == ready[:2]

    @invariant()
    def the_order_is_the_models_walk_by_generations(self) -> None:
        unmet = {task_id: set(model.unmet) for task_id, model in self.model.items()}
        outside = {dep for deps in unmet.values() for dep in deps} - set(self.model)
        generation = sorted([task_id for task_id, deps in unmet.items() if not deps] + list(outside))
        expected: list[str] = []
        while generation:
            freed = []
            for task_id in generation:
                expected += [task_id] * (task_id in self.model)
                for dependant in self.model:
                    if task_id in unmet[dependant]:
                        unmet[dependant].remove(task_id)
                        freed += [dependant] * (not unmet[dependant])
            generation = freed
        assert [task.task_id for task in self.graph.topological_order()] == expected


TestGraph = GraphMachine.TestCase
TestGraph.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
