"""What a worker makes of tasks that succeed, fail, die, hang, or return what cannot travel."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from overnight.core.states import TaskState
from overnight.errors import ResultNotPicklable, TaskDied, TaskTimedOut
from overnight.store.records import Happening, Request
from overnight.task import Task
from overnight_worker.tail import TAIL_SECONDS
from tests.support import worker_tasks as tasks
from tests.support.small_scheduler import Plan, SmallScheduler, WorkerProcess, worker


@pytest.fixture(scope="module")
def own_server(redis_server: str) -> str:
    from tests.support.servers import connect

    with connect(redis_server) as connection:
        connection.flushall()
    return redis_server


@pytest.fixture(scope="module")
def running_worker(own_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    """One worker for all tests of this module: each test also shows that the one before it did no harm."""
    with worker(own_server, tmp_path_factory.mktemp("worker")) as process:
        yield process


@pytest.fixture
def run(own_server: str, running_worker: WorkerProcess) -> Iterator[SmallScheduler]:
    scheduler = SmallScheduler(own_server)
    yield scheduler
    scheduler.close()


def outcome_of(run: SmallScheduler, tmp_path: Path, plan: Plan, **context: Any) -> Any:
    """Run one task; return its result, or the exception on record."""
    run.submit([plan], tmp_path, context=context)
    run.dispatch(0)
    run.wait_ended(0)
    return run.result(0) if run.state(0) is TaskState.DONE else run.error(0)


def test_a_batch_of_tasks_succeeds_each_with_its_own_result(run: SmallScheduler, tmp_path: Path) -> None:
    run.submit([Plan(tasks.plus, (number, 1)) for number in range(20)], tmp_path)
    run.dispatch(*range(20))
    run.wait_ended()
    assert [run.result(number) for number in range(20)] == [number + 1 for number in range(20)]


def test_what_waits_behind_a_slow_task_of_its_batch_goes_back_and_runs_while_that_goes_on(
    run: SmallScheduler, tmp_path: Path
) -> None:
    """A batch made for a quarter of a second may hold a task of an hour."""
    gate = tmp_path / "gate"
    slow, quick = Plan(tasks.wait_for_file, (str(gate),)), Plan(tasks.answer)
    run.submit([quick, slow, quick, quick], tmp_path)
    run.dispatch(0, 1, 2, 3)
    run.wait_for(lambda: [run.state(task) for task in (2, 3)] == [TaskState.PENDING] * 2)
    assert [run.state(task) for task in (0, 1)] == [TaskState.DONE, TaskState.RUNNING]
    gate.touch()
    run.wait_ended(1)
    run.dispatch(2, 3)
    run.wait_ended()
    assert [run.result(task) for task in range(4)] == [42, "waited", 42, 42]


def test_what_needs_a_slow_task_of_its_batch_stays_with_it(run: SmallScheduler, tmp_path: Path) -> None:
    """Nowhere else could it run; what one member of the chain returned is handed on in the child."""
    gate = tmp_path / "gate"
    plans = [Plan(tasks.wait_for_file, (str(gate),)), Plan(tasks.plus, (Task("0"), "!"), (0,))]
    plans.append(Plan(tasks.plus, (Task("1"), "?"), (1,)))
    run.submit(plans, tmp_path)
    run.dispatch(0, 1, 2)
    run.wait_for(Path(f"{gate}.begun").exists)
    time.sleep(2 * TAIL_SECONDS)  # long enough for a tail to be released: that none is has no signal
    gate.touch()
    run.wait_ended()
    assert run.result(2) == "waited!?"
    assert [run.view(task).attempt for task in range(3)] == [1, 1, 1]


def test_the_next_batch_begins_before_the_last_commit_of_the_one_before(run: SmallScheduler, tmp_path: Path) -> None:
    """The child does not wait for the store between two batches, if the second is at hand."""
    gate = tmp_path / "gate"
    run.submit([Plan(tasks.wait_for_file, (str(gate),)), Plan(tasks.answer)], tmp_path)
    run.dispatch(0)
    run.wait_for(Path(f"{gate}.begun").exists)
    run.dispatch(1)
    gate.touch()
    run.wait_ended()
    told = [event.what for event in run.store.follow(run.run_id, "0", 0)]
    assert [what for what in told if what in (Happening.CLAIMED, Happening.COMMITTED)] == [
        Happening.CLAIMED, Happening.CLAIMED, Happening.COMMITTED, Happening.COMMITTED,
    ]  # fmt: skip
    assert (run.result(0), run.result(1)) == ("waited", 42)


def test_the_next_entry_is_taken_while_the_last_task_of_a_batch_runs_and_goes_back_if_that_takes_long(
    run: SmallScheduler, tmp_path: Path
) -> None:
    """Between two batches its claim alone is left to do; but nobody else could have what lies behind a slow task."""

    def calls(command: str) -> int:
        statistics: Any = run.client.info("commandstats")
        return int(statistics.get(f"cmdstat_{command}", {"calls": 0})["calls"])

    first, last = tmp_path / "first", tmp_path / "last"
    plans = [Plan(tasks.wait_for_file, (str(first),)), Plan(tasks.wait_for_file, (str(last),), (0,))]
    run.submit([*plans, Plan(tasks.answer)], tmp_path)
    run.dispatch(0, 1)
    run.wait_for(Path(f"{first}.begun").exists)
    run.dispatch(2)
    taken, pushed = calls("lmove"), calls("rpush")
    first.touch()
    run.wait_for(lambda: calls("lmove") > taken)
    run.wait_for(lambda: calls("rpush") > pushed and run.transport.depth("default") == 1)
    assert run.state(1) is TaskState.RUNNING
    last.touch()
    run.wait_ended()
    assert [run.view(task).attempt for task in range(3)] == [1, 1, 1]


def test_lambdas_and_closures_run(run: SmallScheduler, tmp_path: Path) -> None:
    """B19."""
    offset = 7
    assert outcome_of(run, tmp_path, Plan(lambda value: value + offset, (1,))) == 8


def test_a_raised_exception_is_the_tasks_failure_with_its_traceback(run: SmallScheduler, tmp_path: Path) -> None:
    error = outcome_of(run, tmp_path, Plan(tasks.fail))
    assert isinstance(error, ValueError)
    assert str(error) == "no such chromosome"


def test_a_returned_exception_is_a_failure(run: SmallScheduler, tmp_path: Path) -> None:
    """G23."""
    assert isinstance(outcome_of(run, tmp_path, Plan(tasks.return_error)), KeyError)


def test_sys_exit_is_that_tasks_failure(run: SmallScheduler, tmp_path: Path) -> None:
    """B10."""
    assert isinstance(outcome_of(run, tmp_path, Plan(tasks.leave_politely)), SystemExit)


@pytest.mark.parametrize("status", [0, 7])
def test_a_process_that_exits_without_an_outcome_has_died_whatever_its_status(
    run: SmallScheduler, tmp_path: Path, status: int
) -> None:
    """B18."""
    error = outcome_of(run, tmp_path, Plan(tasks.leave, (status,)))
    assert isinstance(error, TaskDied)
    assert (error.exit_code, error.signal) == (status, None)
    assert error.worker


def test_a_segmentation_fault_is_named_with_last_words_and_charges_only_its_task(
    run: SmallScheduler, tmp_path: Path
) -> None:
    """P10, QX4."""
    plans = [Plan(tasks.answer), Plan(tasks.crash), Plan(tasks.answer)]
    run.submit(plans, tmp_path)
    run.dispatch(0, 1, 2)
    run.wait_ended()
    assert [run.state(0), run.state(2)] == [TaskState.DONE, TaskState.DONE]
    error = run.error(1)
    assert isinstance(error, TaskDied)
    assert error.signal == "SIGSEGV"
    assert "last words" in str(error)
    assert "Fatal Python error: Segmentation fault" in str(error)


def test_a_task_killed_with_sigkill_has_died_of_it(run: SmallScheduler, tmp_path: Path) -> None:
    """R3."""
    error = outcome_of(run, tmp_path, Plan(tasks.kill_itself))
    assert isinstance(error, TaskDied)
    assert error.signal == "SIGKILL"


def test_a_task_over_its_time_limit_is_interrupted(run: SmallScheduler, tmp_path: Path) -> None:
    """O4."""
    assert isinstance(outcome_of(run, tmp_path, Plan(tasks.sleep, (60,), timeout=0.2)), TaskTimedOut)


def test_code_that_swallows_the_interruption_is_killed_and_the_rest_goes_on(
    run: SmallScheduler, tmp_path: Path
) -> None:
    """O4."""
    run.submit([Plan(tasks.ignore_everything, (60,), timeout=0.2), Plan(tasks.answer)], tmp_path)
    run.dispatch(0, 1)
    run.wait_ended(0)
    assert isinstance(run.error(0), TaskTimedOut)
    assert "was killed" in str(run.error(0))
    run.wait_for(lambda: run.state(1) is TaskState.PENDING)  # it had not begun and went back from behind the slow one
    run.dispatch(1)
    run.wait_ended(1)
    assert run.result(1) == 42


def test_code_that_holds_the_gil_in_c_is_killed_at_its_limit(run: SmallScheduler, tmp_path: Path) -> None:
    """O4, P6: heartbeats do not depend on the child."""
    assert isinstance(outcome_of(run, tmp_path, Plan(tasks.block_in_c, (60,), timeout=0.2)), TaskTimedOut)


@pytest.mark.parametrize(("call", "words"), [(tasks.generator, "return a list"), (tasks.lock, "lock")])
def test_a_result_that_cannot_be_pickled_is_named(run: SmallScheduler, tmp_path: Path, call: Any, words: str) -> None:
    """B20."""
    error = outcome_of(run, tmp_path, Plan(call))
    assert isinstance(error, ResultNotPicklable)
    assert words in str(error)
    assert "task-0" in str(error)


def test_a_missing_module_is_named_with_worker_and_path(run: SmallScheduler, tmp_path: Path) -> None:
    """QX10."""
    path = tmp_path / "only_here.py"
    path.write_text("def call():\n    return 1\n")
    spec = importlib.util.spec_from_file_location("only_here", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["only_here"] = module
    try:
        spec.loader.exec_module(module)
        error = outcome_of(run, tmp_path, Plan(module.call))
    finally:
        del sys.modules["only_here"]
    assert isinstance(error, ModuleNotFoundError)
    assert "'only_here'" in str(error)
    assert "missing on worker" in str(error)
    assert "sys.path" in str(error)


def test_values_travel_from_task_to_task_inside_a_batch(run: SmallScheduler, tmp_path: Path) -> None:
    plans = [Plan(tasks.answer)]
    plans += [Plan(tasks.plus, (Task(str(number)), 1), (number,)) for number in range(20)]
    run.submit(plans, tmp_path)
    run.dispatch(*range(21))
    run.wait_ended()
    assert run.result(20) == 62


def test_values_travel_from_batch_to_batch(run: SmallScheduler, tmp_path: Path) -> None:
    plans = [Plan(tasks.answer), Plan(tasks.answer), Plan(tasks.plus, (Task("0"), Task("1")), (0, 1))]
    run.submit(plans, tmp_path)
    run.dispatch(0)
    run.dispatch(1)
    run.wait_ended(0, 1)
    run.dispatch(2)
    run.wait_ended(2)
    assert run.result(2) == 84


def test_two_consumers_of_one_value_do_not_see_what_the_other_did_to_it(run: SmallScheduler, tmp_path: Path) -> None:
    plans = [Plan(list), *(Plan(tasks.append, (Task("0"), number), (0,)) for number in (1, 2))]
    run.submit(plans, tmp_path)
    run.dispatch(0)
    run.wait_ended(0)
    run.dispatch(1, 2)
    run.wait_ended()
    assert [run.result(1), run.result(2)] == [[1], [2]]


def test_dependants_of_a_failed_member_go_back_unstarted(run: SmallScheduler, tmp_path: Path) -> None:
    """P5."""
    run.submit([Plan(tasks.fail), Plan(tasks.note, (str(tmp_path / "ledger"),), (0,))], tmp_path)
    run.dispatch(0, 1)
    run.wait_ended(0)
    run.wait_for(lambda: run.state(1) is TaskState.PENDING)
    assert not (tmp_path / "ledger").exists()


def test_a_result_that_cannot_be_loaded_is_the_consumers_failure(run: SmallScheduler, tmp_path: Path) -> None:
    """ADVERSITY 7, 19."""
    run.submit([Plan(tasks.Unloadable), Plan(tasks.length, (Task("0"),), (0,))], tmp_path)
    run.dispatch(0)
    run.wait_ended(0)
    run.dispatch(1)
    run.wait_ended(1)
    assert run.state(0) is TaskState.DONE
    error = run.error(1)
    assert isinstance(error, ModuleNotFoundError)
    assert "The result of 'task-0' needs module 'no_such_module_anywhere'" in str(error)


def test_tasks_find_the_drivers_surroundings_and_none_of_overnights_secrets(
    run: SmallScheduler, tmp_path: Path
) -> None:
    """B21, QX9, M6."""
    found = outcome_of(run, tmp_path, Plan(tasks.surroundings))
    assert found["directory"] == str(tmp_path)
    assert (found["umask"], found["driver"], found["secrets"]) == (0o027, "yes", [])


def test_what_a_task_changes_is_put_right_for_the_next_one(run: SmallScheduler, tmp_path: Path) -> None:
    """ADVERSITY 7, 33."""
    run.submit([Plan(tasks.make_a_mess), Plan(tasks.surroundings), Plan(tasks.surroundings)], tmp_path)
    run.dispatch(0, 1, 2)
    run.wait_ended()
    found, other = run.result(1), run.result(2)
    assert (found["directory"], found["umask"], found["driver"]) == (str(tmp_path), 0o027, "yes")
    assert (found["mess"], found["usr1"]) == (None, True)
    assert (found["recursion"], found["disabled"]) == (sys.getrecursionlimit(), 0)
    assert found["random"] != other["random"]


def test_a_child_with_threads_left_in_it_is_replaced(run: SmallScheduler, tmp_path: Path) -> None:
    """ADVERSITY 7, 34."""
    run.submit([Plan(tasks.leave_a_thread), Plan(tasks.process_id)], tmp_path)
    run.dispatch(0)
    run.wait_ended(0)
    run.dispatch(1)
    run.wait_ended(1)
    assert run.result(0) != run.result(1)


def test_shared_arguments_reach_each_of_their_tasks_afresh(run: SmallScheduler, tmp_path: Path) -> None:
    """QX8."""
    shared = run.share(["common"])
    run.submit([Plan(tasks.append, (shared, number)) for number in range(2)], tmp_path)
    run.dispatch(0, 1)
    run.wait_ended()
    assert [run.result(0), run.result(1)] == [["common", 0], ["common", 1]]


def test_a_warm_child_is_kept_from_batch_to_batch(run: SmallScheduler, tmp_path: Path) -> None:
    run.submit([Plan(tasks.process_id), Plan(tasks.process_id)], tmp_path)
    run.dispatch(0)
    run.wait_ended(0)
    run.dispatch(1)
    run.wait_ended(1)
    assert run.result(0) == run.result(1)


def test_a_module_that_changed_between_two_runs_is_loaded_anew(
    run: SmallScheduler, own_server: str, tmp_path: Path
) -> None:
    source = tmp_path / "edited_module.py"

    def call_it() -> Any:
        import edited_module  # type: ignore[import-not-found]  # the test writes it

        return edited_module.VALUE

    found = []
    for value in (1, 22):
        source.write_text(f"VALUE = {value}\n")
        one = SmallScheduler(own_server)
        one.submit([Plan(call_it)], tmp_path, context={"import_paths": [str(tmp_path)]})
        one.dispatch(0)
        one.wait_ended(0)
        found.append(one.result(0))
        one.close()
    assert found == [1, 22]


def test_a_module_that_was_mended_before_a_retry_is_loaded_anew(run: SmallScheduler, tmp_path: Path) -> None:
    """So that who mends the code of a run that has failed need not know which worker had loaded it."""
    source = tmp_path / "mended_module.py"
    source.write_text("def value(): raise ValueError")

    def call_it() -> Any:
        import mended_module  # type: ignore[import-not-found]  # the test writes it

        return mended_module.value()

    run.submit([Plan(call_it)], tmp_path, context={"import_paths": [str(tmp_path)]})
    run.dispatch(0)
    run.wait_ended(0)
    run.settle_failed(0)
    source.write_text("def value(): return 'mended'")
    run.store.request(run.run_id, Request.RETRY, [0])
    run.dispatch(0)
    run.wait_for(lambda: run.state(0) is TaskState.DONE)
    assert run.result(0) == "mended"


def test_fork_tasks_gives_each_task_a_process_of_its_own(run: SmallScheduler, tmp_path: Path) -> None:
    """B17."""
    plans = [Plan(tasks.process_id), Plan(tasks.process_id), Plan(tasks.leave, (5,)), Plan(tasks.fail)]
    run.submit([*plans, Plan(tasks.plus, (Task("0"), 0), (0,))], tmp_path, context={"fork_tasks": True})
    run.dispatch(0, 1, 2, 3)
    run.wait_ended(0, 1, 2, 3)
    run.dispatch(4)
    run.wait_ended(4)
    assert len({run.result(0), run.result(1)}) == 2
    assert run.result(4) == run.result(0)
    died = run.error(2)
    assert isinstance(died, TaskDied)
    assert died.exit_code == 5
    assert isinstance(run.error(3), ValueError)


def test_logs_and_prints_go_to_the_log_of_their_task(run: SmallScheduler, tmp_path: Path) -> None:
    """N4, N5."""
    logs = tmp_path / "logs"
    logs.mkdir()
    run.submit([Plan(tasks.speak), Plan(tasks.fail), Plan(tasks.crash)], tmp_path, context={"log_dir": str(logs)})
    run.dispatch(0, 1, 2)
    run.wait_ended()
    spoken = (logs / "log_task-0.log").read_text()
    assert all(words in spoken for words in ("a warning of the task", "printed", "from a child program"))
    assert spoken.count("a warning of the task") == 1
    failed = (logs / "log_task-1.log").read_text()
    assert failed.count("ValueError: no such chromosome") == 1
    assert [line.split()[-1] for line in failed.splitlines() if line.startswith("  File ")] == ["fail"]
    died = (logs / "log_task-2.log").read_text()
    assert "SIGSEGV" in died
    assert "last words" in died
    assert "printed" not in died


def test_large_results_go_by_reference_to_redis_and_to_their_consumer(run: SmallScheduler, tmp_path: Path) -> None:
    """QX8."""
    run.submit([Plan(tasks.large, (2,)), Plan(tasks.length, (Task("0"),), (0,))], tmp_path)
    run.dispatch(0)
    run.wait_ended(0)
    run.dispatch(1)
    run.wait_ended(1)
    assert run.stored(0).locator == "redis:"
    assert run.result(1) == 2_000_000


def test_a_large_value_that_many_tasks_of_a_worker_take_is_read_and_loaded_once(
    run: SmallScheduler, tmp_path: Path
) -> None:
    """QX8: it is gone from its place after the first of them, and an address is not used twice while it is kept."""
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    takers = [Plan(id, (Task("0"),), (0,)), Plan(id, (Task("0"),), (0,)), Plan(tasks.length, (Task("0"),), (0,))]
    run.submit([Plan(tasks.large, (1,)), *takers], tmp_path, context={"blob_dir": str(blobs)})
    run.dispatch(0)
    run.wait_ended(0)
    run.dispatch(1)
    run.wait_ended(1)
    (blobs / run.stored(0).digest.hex()).unlink()
    for task in (2, 3):
        run.dispatch(task)
        run.wait_ended(task)
    assert run.result(1) == run.result(2)
    assert run.result(3) == 1_000_000


def test_a_large_value_that_can_be_changed_reaches_each_task_as_it_was(run: SmallScheduler, tmp_path: Path) -> None:
    """QX8."""
    plans = [Plan(numbers, (50_000,)), *[Plan(changed, (Task("0"),), (0,)) for _ in range(3)]]
    run.submit(plans, tmp_path)
    for task in range(4):
        run.dispatch(task)
        run.wait_ended(task)
    assert [run.result(task) for task in (1, 2, 3)] == [0, 0, 0]


def numbers(count: int) -> list[int]:
    return [0] + [1_000_000] * count


def changed(values: list[int]) -> int:
    """Return the first value, and change it."""
    first, values[0] = values[0], 99
    return first


def test_large_results_go_to_the_blob_directory_where_there_is_one(run: SmallScheduler, tmp_path: Path) -> None:
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    plans = [Plan(tasks.large, (1,)), Plan(tasks.length, (Task("0"),), (0,))]
    run.submit(plans, tmp_path, context={"blob_dir": str(blobs)})
    run.dispatch(0)
    run.wait_ended(0)
    run.dispatch(1)
    run.wait_ended(1)
    stored = run.stored(0)
    assert stored.locator == f"file:{blobs / stored.digest.hex()}"
    assert run.result(1) == 1_000_000


def test_a_result_above_the_limit_of_redis_fails_with_its_size(run: SmallScheduler, tmp_path: Path) -> None:
    """ADVERSITY 7, 18."""
    error = outcome_of(run, tmp_path, Plan(tasks.large, (70,)))
    assert isinstance(error, ResultNotPicklable)
    assert "700000" in str(error)


def test_facts_for_people_name_worker_time_and_memory(run: SmallScheduler, tmp_path: Path) -> None:
    import json

    outcome_of(run, tmp_path, Plan(tasks.answer))
    facts = json.loads(run.view(0).facts or b"")
    assert facts["attempt"] == 1
    assert facts["peak_memory"] > 1_000_000
    assert facts["worker"]
    assert 0 <= facts["seconds"] < 10
