"""What must run: the pure rule (F1 to F3), over views made by hand and random graphs."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from overnight.freshness import FileTime, Identity, OwnRecord, TaskFiles, duration_text, identity_difference
from overnight.must_run import MustRun, TaskView

STANDS = OwnRecord(None, flag_time_ns=100)
NEVER = OwnRecord("never ran")


def task(
    name: str,
    *deps: int,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    middle: Sequence[str] = (),
    record: OwnRecord = STANDS,
) -> TaskView:
    return TaskView(name, deps, TaskFiles(inputs, outputs, middle), record)


def times(**seconds: int) -> dict[str, FileTime]:
    return {name: FileTime(second) for name, second in seconds.items()}


def reasons(tasks: Sequence[TaskView], files: dict[str, FileTime], shared: Sequence[str] = ()) -> dict[str, str]:
    rule = MustRun(tasks, shared, files)
    return {tasks[number].name: reason for number, reason in rule.reasons.items()}


def test_nothing_runs_where_everything_stands() -> None:
    """F3."""
    assert reasons([task("a"), task("b", 0)], {}) == {}


def test_descendants_of_a_task_that_runs_run() -> None:
    """F2 a, c."""
    tasks = [task("a", record=NEVER), task("b", 0), task("c", 1), task("d")]
    assert reasons(tasks, {}) == {"a": "never ran", "b": "needs a, which will run", "c": "needs b, which will run"}


PIPELINE = [
    task("part1", middle=["m1"]),
    task("part2", middle=["m2"]),
    task("merge", 0, 1, inputs=["m1", "m2"], outputs=["all"]),
    task("index", 2, inputs=["all"], outputs=["tbi"]),
]


def test_intermediates_deleted_by_their_consumer_run_nothing() -> None:
    """F1, F3, R20."""
    assert reasons(PIPELINE, times(all=200, tbi=300)) == {}


def test_a_deleted_output_runs_its_task_what_rebuilds_for_it_and_its_dependants() -> None:
    """F2 a, c, d, R20."""
    assert reasons(PIPELINE, times(tbi=300)) == {
        "merge": "output all is missing",
        "index": "input all is missing",
        "part1": "must rebuild m1, which merge reads",
        "part2": "must rebuild m2, which merge reads",
    }


def test_only_the_missing_intermediate_is_rebuilt() -> None:
    """F2 d."""
    assert set(reasons(PIPELINE, times(m1=150, tbi=300))) == {"merge", "index", "part2"}


def test_a_chain_of_deleted_intermediates_is_rebuilt_from_its_first() -> None:
    """F2 d: applies to tasks that entered by any rule."""
    tasks = [
        task("aside"),
        task("a", middle=["m1"]),
        task("b", 1, inputs=["m1"], middle=["m2"]),
        task("c", 2, inputs=["m2"], outputs=["o"]),
    ]
    assert reasons(tasks, times(o=200)) == {}
    assert set(reasons(tasks, {})) == {"a", "b", "c"}


def test_a_file_of_a_distant_ancestor_is_exempt_and_one_of_a_stranger_is_not() -> None:
    """F1: ancestors alone."""
    tasks = [task("far", middle=["m"]), task("between", 0), task("reader", 1, inputs=["m"])]
    assert reasons(tasks, {}) == {}
    strangers = [task("far", middle=["m"]), task("between"), task("reader", 1, inputs=["m"])]
    assert reasons(strangers, {}) == {"reader": "input m is missing"}


def test_a_missing_output_of_an_ancestor_is_not_exempt() -> None:
    """F1, F2 d."""
    tasks = [task("a", middle=["m"], outputs=["o"]), task("b", 0, inputs=["o"])]
    assert set(reasons(tasks, times(m=1))) == {"a", "b"}


def test_an_existing_intermediate_counts_as_any_input() -> None:
    """F1."""
    found = reasons(PIPELINE, times(m1=250, m2=150, all=200, tbi=300))
    assert found["merge"] == "input m1 is newer than output all by 50 ns"
    assert set(found) == {"merge", "index"}


def test_files_of_the_whole_graph_are_inputs_of_every_task() -> None:
    """C9, G14."""
    tasks = [task("a"), task("b", outputs=["o"])]
    assert reasons(tasks, times(config=100, o=99), ["config"]) == {"b": "input config is newer than output o by 1 ns"}
    assert set(reasons(tasks, times(o=99), ["config"])) == {"a", "b"}


def test_records_of_a_foreign_cache_stand_as_they_are() -> None:
    """F1."""
    decided = OwnRecord(None, decided=True)
    assert reasons([task("a", outputs=["none"], record=decided)], {}) == {}


def test_a_task_added_later_brings_its_dependants_and_rebuilders() -> None:
    """F2 e."""
    rule = MustRun(PIPELINE, (), times(all=200, tbi=300))
    rule.also_run(2, "its result is needed and cannot be loaded")
    assert {PIPELINE[number].name for number in rule.reasons} == {"part1", "part2", "merge", "index"}
    rule.also_run(2, "again")
    assert rule.reasons[2] == "its result is needed and cannot be loaded"


def test_more_rebuilders_than_one_round_takes_are_all_found() -> None:
    """F1: ancestry is answered in rounds of 4096."""
    many = 5_000
    parts = [task(f"part{n}", middle=[f"m{n}"]) for n in range(many)]
    tasks = [*parts, task("barrier", *range(many)), task("merge", many, inputs=[f"m{n}" for n in range(many)])]
    assert reasons(tasks, {}) == {}
    tasks[-1] = task("merge", many, inputs=[f"m{n}" for n in range(many)], record=NEVER)
    assert len(reasons(tasks, {})) == many + 2


def test_only_qualified_names_count_where_one_side_is_main() -> None:
    """C15."""
    stored = Identity("__main__:f | lib:g", None, None)
    assert identity_difference(stored, "pipe:f | lib:g", [], "3.11.9") is None
    assert identity_difference(stored, "pipe:f | other:g", [], "3.11.9") is not None
    assert identity_difference(stored, "pipe:f", [], "3.11.9") is not None
    assert identity_difference(Identity(None, None, "3.11.2"), "m:f", ["x"], "3.11.9") is None
    assert identity_difference(Identity(None, (), "3.1.2"), "m:f", [], "3.11.9") is not None


def test_durations_are_told_in_their_largest_unit() -> None:
    assert [duration_text(int(s * 10**9)) for s in (0.004, 5, 90, 7200, 200_000)] == [
        "4 ms",
        "5 s",
        "1.5 min",
        "2 h",
        "2.31 d",
    ]


FILES = ["f0", "f1", "f2", "f3"]
names = st.lists(st.sampled_from(FILES), max_size=2, unique=True)


@st.composite
def scenes(draw: st.DrawFn) -> tuple[list[TaskView], dict[str, FileTime]]:
    tasks: list[TaskView] = []
    for number in range(draw(st.integers(1, 7))):
        deps = draw(st.lists(st.integers(0, number - 1), max_size=3, unique=True)) if number else []
        record = draw(st.sampled_from([STANDS, STANDS, STANDS, NEVER]))
        tasks.append(
            task(f"t{number}", *deps, inputs=draw(names), outputs=draw(names), middle=draw(names), record=record)
        )
    present = draw(st.dictionaries(st.sampled_from(FILES), st.sampled_from([50, 100, 150])))
    return tasks, {name: FileTime(time) for name, time in present.items()}


def ancestors(tasks: Sequence[TaskView], number: int) -> set[int]:
    found: set[int] = set()
    for dep in tasks[number].deps:
        found |= {dep} | ancestors(tasks, dep)
    return found


def own_stands(tasks: Sequence[TaskView], number: int, files: dict[str, FileTime]) -> bool:
    """C9 and F1, spelled out anew from the table."""
    view = tasks[number]
    if view.record.reason:
        return False
    exempt = {path for up in ancestors(tasks, number) for path in tasks[up].files.intermediates if path not in files}
    if any(path not in files for path in view.files.outputs):
        return False
    if any(path not in files and path not in exempt for path in view.files.inputs):
        return False
    newest = max((files[path].mtime_ns or 0 for path in view.files.inputs if path in files), default=None)
    products = view.files.outputs or view.files.intermediates
    if not products or any(path not in files for path in products):
        oldest = 100
    else:
        oldest = min(files[path].mtime_ns or 0 for path in products)
    return newest is None or newest <= oldest


def expected(tasks: Sequence[TaskView], files: dict[str, FileTime]) -> set[int]:
    """F2 by repeating its rules until nothing changes."""
    must = {number for number in range(len(tasks)) if not own_stands(tasks, number, files)}
    while True:
        more = {number for number, view in enumerate(tasks) if set(view.deps) & must}
        for number in must:
            lacking = {path for path in tasks[number].files.inputs if path not in files}
            for up in ancestors(tasks, number):
                if lacking & {*tasks[up].files.outputs, *tasks[up].files.intermediates}:
                    more.add(up)
        if more <= must:
            return must
        must |= more


@given(scene=scenes())
def test_the_set_is_the_one_that_the_statements_spell_out(scene: tuple[list[TaskView], dict[str, FileTime]]) -> None:
    """F1, F2."""
    tasks, files = scene
    assert set(MustRun(tasks, (), files).reasons) == expected(tasks, files)
