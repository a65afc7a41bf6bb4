"""The process pool: what a task may do to its process, and what is left when a run or its driver ends (PP, B, R)."""

from __future__ import annotations

import fcntl
import gc
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from overnight import pool_process, process_pool
from overnight.errors import (
    RemoteTaskError,
    ResultNotPicklable,
    RunCancelled,
    TaskDied,
    TaskNotPicklable,
    TaskTimedOut,
)
from overnight.graph import Task, TaskGraph
from overnight.naming import log_name
from overnight.pool_process import PoolProcess
from overnight.process_pool import usable_cpus
from overnight.process_pool_executor import PoolRun, ProcessPoolTaskExecutor
from overnight.state_dir import wait_until
from tests.support import tasks

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[ProcessPoolTaskExecutor]:
    """A pool of two processes; when it is closed nothing of it is left."""
    processes, threads = family(), threading.enumerate()
    with ProcessPoolTaskExecutor(max_workers=2, task_log_dir=str(tmp_path / "logs")) as executor:
        yield executor
    assert family() == processes
    assert threading.enumerate() == threads


def family() -> set[int]:
    """Return the ids of all descendants of this process."""
    return {process.pid for process in psutil.Process().children(recursive=True)}


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and awaits its collection does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def run(executor: ProcessPoolTaskExecutor, calls: dict[str, tuple[Any, ...]], **options: Any) -> dict[str, Any]:
    """Run independent tasks, each given as its function and arguments; return results by id."""
    graph = TaskGraph()
    for task_id, (func, *args) in calls.items():
        graph.create_task(task_id, func, args=args, **options)
    pairs = list(executor.execute(graph))
    assert len(pairs) == len(calls)
    return {task.task_id: result for task, result in pairs}


def wait_for(path: Path) -> None:
    assert wait_until(lambda: bool(tasks.noted(path)), 30)


# What a task may do to its process.


def segfault() -> None:
    import ctypes

    print("last words", flush=True)
    ctypes.string_at(0)


def close_everything() -> None:
    os.closerange(0, 1024)


def close_everything_and_hang() -> None:
    os.closerange(3, 1024)
    tasks.hang()


def write_rubbish(rubbish: bytes) -> None:
    """Write into every descriptor that takes it."""
    for entry in list(Path("/proc/self/fd").iterdir()):
        number = int(entry.name)
        if number > 2:
            try:
                fcntl.fcntl(number, fcntl.F_SETFL, os.O_NONBLOCK)
                os.write(number, rubbish)
            except OSError:
                continue


def make_everything_blocking(size: int, is_blocking: bool) -> bytes:
    for number in range(3, 64):
        try:
            os.set_blocking(number, is_blocking)
        except OSError:
            continue
    return bytes(size)


def overwrite_everything() -> None:
    """Write to the beginning of whatever has one."""
    for number in range(3, 64):
        try:
            os.lseek(number, 0, os.SEEK_SET)
            os.write(number, b"\xff" * 64)
        except OSError:
            continue


def read_everything() -> None:
    """Take whatever can be read: the orders of the tasks behind this one, and their tickets."""
    for number in range(3, 64):
        try:
            while select.select([number], [], [], 0)[0] and os.read(number, 65536):
                pass
        except (OSError, ValueError):
            continue


CULPRITS: list[tuple[Callable[..., Any], tuple[Any, ...], str]] = [
    (segfault, (), "SIGSEGV"),
    (tasks.kill_own_process, (), "SIGKILL"),
    (tasks.exit_hard, (0,), "exit code 0"),
    (tasks.exit_hard, (3,), "exit code 3"),
    (close_everything, (), "died"),
    (close_everything_and_hang, (), "closed the channel"),
    (write_rubbish, (b"x" * 100,), "wrote into the channel"),
    (write_rubbish, (b"x",), "wrote into the channel"),
]


@pytest.mark.timeout(30)
@pytest.mark.parametrize("is_blocking", [True, False])
def test_descriptors_that_a_task_makes_blocking_or_not_hold_nobody_up(
    pool: ProcessPoolTaskExecutor, is_blocking: bool
) -> None:
    """PP3: whether they block belongs to the file, which others have open too; results larger than any buffer pass."""
    names = [f"t{number}" for number in range(6)]
    size = 1 << 20
    results = run(pool, dict.fromkeys(names, (make_everything_blocking, size, is_blocking)))
    assert results == dict.fromkeys(names, bytes(size))
    assert run(pool, {"next": (tasks.give, 1)}) == {"next": 1}


@pytest.mark.timeout(30)
def test_a_task_that_writes_over_what_it_finds_open_has_its_result(pool: ProcessPoolTaskExecutor) -> None:
    """PP3: what its process has begun stands elsewhere."""
    assert run(pool, {"culprit": (overwrite_everything,), "behind": (tasks.give, 1)}) == {"culprit": None, "behind": 1}


@pytest.mark.timeout(60)
def test_orders_that_a_task_reads_away_are_given_again(
    pool: ProcessPoolTaskExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PP3: the process that waits for them in vain is replaced."""
    monkeypatch.setattr(pool_process, "BEGIN_SECONDS", 0.5)
    calls: dict[str, tuple[Any, ...]] = {f"reads {number}": (read_everything,) for number in range(4)}
    calls |= {f"innocent {number}": (tasks.give, number) for number in range(4)}
    assert run(pool, calls) == {name: args[0] if args else None for name, (_, *args) in calls.items()}


@pytest.mark.timeout(60)
def test_a_process_that_is_never_ready_is_replaced(
    pool: ProcessPoolTaskExecutor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """PP3: a process that is frozen at its start keeps no task for ever."""
    freeze_once = (
        f"import os, signal; mark = {str(tmp_path / 'frozen')!r}; "
        "os.path.exists(mark) or (open(mark, 'w').close(), os.kill(os.getpid(), signal.SIGSTOP)); "
    )
    monkeypatch.setattr(pool_process, "_COMMAND", freeze_once + pool_process._COMMAND)
    monkeypatch.setattr(pool_process, "READY_SECONDS", 3.0)
    calls = {f"task {number}": (tasks.give, number) for number in range(4)}
    assert run(pool, calls) == {f"task {number}": number for number in range(4)}
    assert (tmp_path / "frozen").exists()


@pytest.mark.parametrize("fork_tasks", [False, True])
@pytest.mark.parametrize(("func", "args", "words"), CULPRITS, ids=lambda value: getattr(value, "__name__", None))
def test_a_task_that_ruins_its_process_fails_alone(
    tmp_path: Path, func: Callable[..., Any], args: tuple[Any, ...], words: str, fork_tasks: bool
) -> None:
    """PP3, B18, R3: with tasks before it, behind it and beside it; the pool is whole again for the next run."""
    calls: dict[str, tuple[Any, ...]] = {f"before {n}": (tasks.give, n) for n in range(3)}
    calls |= {"culprit": (func, *args)}
    calls |= {f"behind {n}": (tasks.give, n) for n in range(6)}
    with ProcessPoolTaskExecutor(max_workers=2, task_log_dir=str(tmp_path / "logs"), fork_tasks=fork_tasks) as pool:
        results = run(pool, calls)
        error = results.pop("culprit")
        assert all(result == int(task_id[-1]) for task_id, result in results.items())
        assert isinstance(error, TaskDied | RemoteTaskError)
        if not fork_tasks:
            assert isinstance(error, TaskDied)
            assert words in str(error)
            assert "'culprit'" in str(error)
        assert run(pool, {"again": (tasks.give, 1)}) == {"again": 1}


@pytest.mark.parametrize("fork_tasks", [False, True])
def test_what_a_task_wrote_into_the_channel_is_charged_to_none_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fork_tasks: bool
) -> None:
    """PP3: also where the driver reads it only after the next one has begun."""
    begun, listen = tmp_path / "begun", PoolRun._listen

    def listen_late(pool_run: PoolRun, process: PoolProcess, arrived: list[Any]) -> None:
        if process.is_ready:  # until then it may have been given one task alone
            wait_for(begun)
        listen(pool_run, process, arrived)

    monkeypatch.setattr(PoolRun, "_listen", listen_late)
    with ProcessPoolTaskExecutor(max_workers=1, task_log_dir=str(tmp_path), fork_tasks=fork_tasks) as pool:
        results = run(pool, {"culprit": (write_rubbish, b"x" * 8), "behind": (tasks.note, str(begun), "behind")})
    assert isinstance(results["culprit"], TaskDied)
    assert "'culprit' was killed: it wrote into the channel" in str(results["culprit"])
    assert results["behind"] == "behind"


@pytest.mark.parametrize("fork_tasks", [False, True])
def test_the_log_of_a_task_that_died_holds_what_it_printed_and_the_reason(tmp_path: Path, fork_tasks: bool) -> None:
    """N5, PP4."""
    with ProcessPoolTaskExecutor(max_workers=1, task_log_dir=str(tmp_path), fork_tasks=fork_tasks) as pool:
        run(pool, {"culprit": (segfault,)})
    text = (tmp_path / log_name("culprit")).read_text(encoding="utf-8")
    assert "last words" in text
    assert "SIGSEGV" in text
    assert text.count("---- culprit run") == 1


def print_everywhere(text: str) -> None:
    print(text, "of Python")
    print(text, "to stderr", file=sys.stderr)
    os.write(1, f"{text} of native code\n".encode())
    subprocess.run(["/bin/echo", text, "of a program"], check=True)


@pytest.mark.parametrize("fork_tasks", [False, True])
def test_what_a_task_prints_goes_to_its_log_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], fork_tasks: bool
) -> None:
    """N5, PP4."""
    with ProcessPoolTaskExecutor(max_workers=1, task_log_dir=str(tmp_path), fork_tasks=fork_tasks) as pool:
        run(pool, {"a": (print_everywhere, "words of a"), "b": (print_everywhere, "words of b")})
    assert capfd.readouterr() == ("", "")
    for task_id, other in (("a", "b"), ("b", "a")):
        text = (tmp_path / log_name(task_id)).read_text(encoding="utf-8")
        for place in ("of Python", "to stderr", "of native code", "of a program"):
            assert f"words of {task_id} {place}" in text
        assert f"words of {other}" not in text


def spoil_everything() -> None:
    os.environ["SPOILT"] = "1"
    os.chdir("/")
    os.umask(0o777)
    os.close(1)
    sys.path.clear()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    sys.setrecursionlimit(200)
    logging.disable(logging.CRITICAL)


def look_around() -> tuple[Any, ...]:
    umask = os.umask(0)
    os.umask(umask)
    print("still printing")
    logging.getLogger("innocent").warning("still logging")
    limit = sys.getrecursionlimit()
    return os.environ.get("SPOILT"), str(Path.cwd()), umask, bool(sys.path), signal.getsignal(signal.SIGTERM), limit


def test_the_next_task_finds_what_the_driver_had_whatever_the_last_one_did(tmp_path: Path) -> None:
    """B21."""
    with ProcessPoolTaskExecutor(max_workers=1, task_log_dir=str(tmp_path)) as pool:
        results = run(pool, {"spoil": (spoil_everything,), "look": (look_around,)})
    umask = os.umask(0o22)
    os.umask(umask)
    assert results["look"] == (None, str(Path.cwd()), umask, True, signal.SIG_DFL, sys.getrecursionlimit())
    assert "still logging" in (tmp_path / log_name("look")).read_text(encoding="utf-8")


def test_each_run_has_the_surroundings_of_its_driver_at_its_first_task(
    pool: ProcessPoolTaskExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B21, R16: also in processes that served a run before."""
    pids = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        monkeypatch.setenv("PLACE", name)
        monkeypatch.setenv("OVERNIGHT_SECRET_KEY", "hidden")
        found = run(pool, {"a": (lambda: (os.getpid(), str(Path.cwd()), os.environ["PLACE"], sorted(os.environ)),)})[
            "a"
        ]
        pids.add(found[0])
        assert found[1:3] == (str(tmp_path / name), name)
        assert "OVERNIGHT_SECRET_KEY" not in found[3]
    assert len(pids) == 1


# What crosses to a process and back.


class Counter:
    """Holds a number; its methods are tasks."""

    def __init__(self, number: int) -> None:
        self.number = number

    def plus(self, other: int) -> Counter:
        return Counter(self.number + other)

    @staticmethod
    def times(first: int, second: int) -> int:
        return first * second


def raise_interrupt() -> None:
    raise KeyboardInterrupt


def test_closures_bound_and_static_methods_run(pool: ProcessPoolTaskExecutor) -> None:
    """B19."""
    captured = [1]
    results = run(
        pool,
        {
            "lambda": (lambda value: captured[0] + value, 2),
            "bound": (Counter(1).plus, 2),
            "static": (Counter.times, 2, 3),
            "builtin": (sum, [1, 2]),
        },
    )
    assert results["bound"].number == 3
    assert type(results["bound"]) is Counter
    assert (results["lambda"], results["static"], results["builtin"]) == (3, 6, 3)


@pytest.mark.parametrize("fork_tasks", [False, True])
def test_what_cannot_cross_is_the_error_of_its_task_alone(tmp_path: Path, fork_tasks: bool) -> None:
    """B18, B19, B20, B10, R11."""
    lock = threading.Lock()
    with ProcessPoolTaskExecutor(max_workers=2, task_log_dir=str(tmp_path), fork_tasks=fork_tasks) as pool:
        results = run(
            pool,
            {
                "argument": (tasks.give, lock),
                "function": (lambda: lock,),
                "result": (tasks.lock,),
                "exception": (tasks.raise_unrebuildable,),
                "exit": (tasks.exit_politely,),
                "interrupt": (raise_interrupt,),
                "good": (tasks.give, 1),
            },
            retries=1,
        )
    assert isinstance(results["argument"], TaskNotPicklable)
    assert "'argument'" in str(results["argument"])
    assert isinstance(results["function"], TaskNotPicklable)
    assert isinstance(results["result"], ResultNotPicklable)
    assert "ResultNotPicklable" in (tmp_path / log_name("result")).read_text("utf-8")
    assert isinstance(results["exception"], RemoteTaskError)
    assert isinstance(results["exit"], SystemExit)
    assert isinstance(results["interrupt"], KeyboardInterrupt)
    assert results["good"] == 1


def test_arguments_and_results_larger_than_any_buffer_pass(pool: ProcessPoolTaskExecutor) -> None:
    """B15."""
    graph = TaskGraph()
    large = os.urandom(5_000_000)
    first = graph.create_task("first", tasks.give, args=[large])
    graph.create_task("second", tasks.give, args=[first])
    assert [result == large for _, result in pool.execute(graph)] == [True, True]


def test_a_process_may_take_its_time_to_read_a_large_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PP3: as long as it reads on it is not replaced, however long all of it takes."""
    judged: list[tuple[int, float | None]] = []
    flush = PoolProcess.flush

    def observed(process: PoolProcess) -> bool:
        has_rest = flush(process)
        if has_rest and process.is_ready:
            judged.append((sum(map(len, process.outbox)), process.begin_due))
        return has_rest

    monkeypatch.setattr(PoolProcess, "flush", observed)
    with ProcessPoolTaskExecutor(max_workers=1, task_log_dir=str(tmp_path)) as pool:
        assert run(pool, {"first": (tasks.give, 1)}) == {"first": 1}
        assert run(pool, {"large": (len, bytes(20_000_000))}) == {"large": 20_000_000}
    dues = [
        due for (rest, due), (former, _) in zip(judged[1:], judged, strict=False) if rest < former and due is not None
    ]
    assert len(dues) > 1
    assert dues == sorted(set(dues))


def test_the_time_that_an_argument_or_a_result_takes_grows_with_its_size_alone(pool: ProcessPoolTaskExecutor) -> None:
    """B15: what is sent in pieces is not copied whole for each of them, which took 11 s for 80 MB."""
    seconds = []
    for size in (20_000_000, 160_000_000):
        begin = time.process_time()
        results = run(pool, {"there": (len, bytes(size)), "back": (bytes, size)})
        seconds.append(time.process_time() - begin)
        assert (results["there"], len(results["back"])) == (size, size)
    assert seconds[1] < 24 * seconds[0] + 0.5


def test_large_results_leave_the_drivers_memory_and_reach_later_tasks(pool: ProcessPoolTaskExecutor) -> None:
    """B15, Y2."""
    graph = TaskGraph()
    for number in range(20):
        graph.create_task(f"t{number}", lambda n: [n] * 200_000, args=[number])
    total = 0
    for task, result in pool.execute(graph):
        if task.task_id.startswith("t"):
            assert sum(1 for held in gc.get_objects() if type(held) is list and len(held) == 200_000) <= 5
            graph.create_task(f"after {task.task_id}", lambda part: part[0], args=[task])
        else:
            total += result
    assert total == sum(range(20))


# Time.


def test_a_chain_beside_a_long_task_takes_milliseconds_a_step(pool: ProcessPoolTaskExecutor, tmp_path: Path) -> None:
    """PP2: nothing waits behind the long task, also where one was started there, and nothing is asked for in turns."""
    ended = tmp_path / "ended"
    graph = TaskGraph()
    run(pool, {"warm": (tasks.give, 1), "up": (tasks.give, 1)})
    graph.create_task("long", await_note, args=[str(ended)])
    last: Task | None = None
    for number in range(10):
        graph.create_task(f"beside {number}", tasks.give, args=[number])
        last = graph.create_task(f"step {number}", tasks.give, args=[number], deps=[last] if last else [])
    begin = time.monotonic()
    for task, _ in pool.execute(graph):
        if task == last:
            seconds = time.monotonic() - begin
            tasks.note(str(ended), "the chain")
    assert len(graph) == 0
    assert seconds < 2.0


def await_note(path: str) -> None:
    """Wait until another has written to a file; a chain that waited for this would wait for ever."""
    if not wait_until(lambda: bool(tasks.noted(Path(path))), 60):
        raise TimeoutError("Nobody has written.")


def hold_the_interpreter() -> None:
    max(range(10**15))


@pytest.mark.parametrize("fork_tasks", [False, True])
def test_a_time_limit_ends_also_code_that_holds_the_interpreter(tmp_path: Path, fork_tasks: bool) -> None:
    """O4: what waits behind it in the pool runs, once."""
    ledger = tmp_path / "ledger"
    with ProcessPoolTaskExecutor(max_workers=1, task_log_dir=str(tmp_path), fork_tasks=fork_tasks) as pool:
        graph = TaskGraph()
        slow = graph.create_task("slow", hold_the_interpreter, args=[], timeout=0.2)
        for number in range(3):
            graph.create_task(f"behind {number}", tasks.note, args=[str(ledger), str(number)])
        results = dict(pool.execute(graph))
    assert isinstance(results[slow], TaskTimedOut)
    assert "'slow'" in str(results[slow])
    assert sorted(tasks.noted(ledger)) == ["0", "1", "2"]


def test_never_more_than_twice_as_many_tasks_are_unfinished_as_there_are_processes(
    pool: ProcessPoolTaskExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PP2, R23."""
    rooms: list[int] = []
    room = PoolRun.room

    def noted_room(self: PoolRun) -> int:
        rooms.append(room(self))
        return rooms[-1]

    monkeypatch.setattr(PoolRun, "room", noted_room)
    results = run(pool, {f"t{n}": (tasks.give, n) for n in range(1000)})
    assert sorted(results.values()) == list(range(1000))
    assert max(rooms) == 4
    assert min(rooms) >= 0


def test_the_number_of_processes_is_that_of_the_usable_cpus_unless_it_is_given() -> None:
    """PP1."""
    assert usable_cpus() == len(os.sched_getaffinity(0))
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="max_workers"):
            ProcessPoolTaskExecutor(max_workers=wrong)


# Ends.


def start_a_program_and_hang(ledger: str, *, stubborn: bool = False) -> None:
    if stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    program = subprocess.Popen(["/bin/sleep", "600"])
    tasks.note(ledger, f"{os.getpid()} {program.pid}")
    tasks.hang()


@pytest.mark.parametrize("stubborn", [False, True])
@pytest.mark.parametrize("fork_tasks", [False, True])
def test_when_a_run_is_closed_nothing_of_it_lives_and_nothing_more_starts(
    tmp_path: Path, fork_tasks: bool, stubborn: bool
) -> None:
    """PP5, R7: SIGTERM, then SIGKILL, for a task and the program that it started."""
    ledger, late = tmp_path / "ledger", tmp_path / "late"
    before = family()
    with ProcessPoolTaskExecutor(max_workers=2, task_log_dir=str(tmp_path), fork_tasks=fork_tasks) as pool:
        graph = TaskGraph()
        graph.create_task("hangs", start_a_program_and_hang, args=[str(ledger)], kwargs={"stubborn": stubborn})
        graph.create_task("first", await_note, args=[str(ledger)])
        for number in range(6):
            graph.create_task(f"late {number}", start_a_program_and_hang, args=[str(late)])
        pairs = pool.execute(graph)
        next(pairs)
        pairs.close()
        # What has been killed may take the kernel a moment to end.
        pids = [int(pid) for line in (*tasks.noted(ledger), *tasks.noted(late)) for pid in line.split()]
        assert wait_until(lambda: not any(is_alive(pid) for pid in pids), 1)
        assert len(tasks.noted(late)) <= 1
        assert len(graph) == 7
        assert run(pool, {"again": (tasks.give, 1)}) == {"again": 1}
    assert wait_until(lambda: not any(is_alive(pid) for pid in family() - before), 5)


def test_an_interrupt_in_the_driver_stops_the_run(pool: ProcessPoolTaskExecutor, tmp_path: Path) -> None:
    """B10, PP5."""
    started = tmp_path / "started"
    driver = os.getpid()

    def interrupt() -> None:
        tasks.note(str(started), str(os.getpid()))
        os.kill(driver, signal.SIGINT)
        tasks.hang()

    with pytest.raises(KeyboardInterrupt):
        run(pool, {"a": (interrupt,)})
    assert not is_alive(int(tasks.noted(started)[0]))
    assert run(pool, {"again": (tasks.give, 1)}) == {"again": 1}


def test_an_interrupt_while_a_process_starts_leaves_no_process(
    pool: ProcessPoolTaskExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PP5, B10."""

    def interrupted() -> PoolProcess:
        process = PoolProcess()
        signal.raise_signal(signal.SIGINT)
        return process

    with monkeypatch.context() as patch:
        patch.setattr(process_pool, "PoolProcess", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(pool, {"a": (tasks.give, 1)})
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert run(pool, {"a": (tasks.give, 1)}) == {"a": 1}


def test_a_run_whose_executor_is_closed_under_it_ends(tmp_path: Path) -> None:
    """PP5."""
    before = family()
    pool = ProcessPoolTaskExecutor(max_workers=1, task_log_dir=str(tmp_path))
    graph = TaskGraph()
    for number in range(3):
        graph.create_task(f"t{number}", tasks.give, args=[number])
    pairs = pool.execute(graph)
    next(pairs)
    pool.close()
    pool.close()
    with pytest.raises(RunCancelled):
        list(pairs)
    assert family() == before


def test_a_run_whose_executor_another_thread_closes_ends(tmp_path: Path) -> None:
    """PP5: while the run waits; the executor is good for another run."""
    before = family()
    started = tmp_path / "started"
    with ProcessPoolTaskExecutor(max_workers=2, task_log_dir=str(tmp_path)) as pool:

        def close() -> None:
            wait_for(started)
            pool.close()

        closer = threading.Thread(target=close)
        closer.start()
        with pytest.raises(RunCancelled):
            run(pool, {"hangs": (start_a_program_and_hang, str(started))})
        closer.join()
        assert family() == before
        assert run(pool, {"again": (tasks.give, 1)}) == {"again": 1}


FORKING_DRIVER = """
import os, sys
from overnight.errors import RunCancelled
from overnight.graph import TaskGraph
from overnight.process_pool_executor import ProcessPoolTaskExecutor

def pids(executor, name):
    graph = TaskGraph()
    for number in range(20):
        graph.create_task(f"{name} {number}", lambda name: (name, os.getpid()), args=[name])
    pairs = []
    for pair in executor.execute(graph):
        pairs.append(pair)
        if name == "middle" and len(pairs) == 1 and os.fork() == 0:
            sys.exit(0)
    assert {result[0] for _, result in pairs} == {name} and len(pairs) == 20
    return {result[1] for _, result in pairs}

executor = ProcessPoolTaskExecutor(max_workers=2, task_log_dir=sys.argv[1])
own = pids(executor, "first")
child = os.fork()
if child == 0:
    theirs = pids(executor, "child")
    executor.close()
    os._exit(len(theirs & own))
assert pids(executor, "parent") <= own
assert os.waitpid(child, 0)[1] == 0
assert pids(executor, "middle") <= own
os.wait()
assert pids(executor, "last") <= own
executor.close()
print("done")
"""

OPEN_AT_EXIT = """
import sys
sys.path += [None, b"/tmp"]
from overnight.graph import TaskGraph
from overnight.process_pool_executor import ProcessPoolTaskExecutor

graph = TaskGraph()
for number in range(9):
    graph.create_task(f"t{number}", abs, args=[number])
executor = ProcessPoolTaskExecutor(max_workers=2, task_log_dir=sys.argv[1])
pairs = executor.execute(graph)
next(pairs)
print("done")
"""


@pytest.mark.parametrize("program", [FORKING_DRIVER, OPEN_AT_EXIT], ids=["forks", "ends with an open run"])
def test_a_driver_that_forks_or_ends_in_a_run_disturbs_nothing(tmp_path: Path, program: str) -> None:
    """PP5, X4: a fork starts processes of its own; what is no path in sys.path is passed over, as Python does."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (ran.returncode, ran.stdout) == (0, "done\n"), ran.stderr
    assert "Exception" not in ran.stderr
    assert "Error" not in ran.stderr


DRIVER = """
import sys
from overnight.graph import TaskGraph
from overnight.process_pool_executor import ProcessPoolTaskExecutor
from tests.integration.test_process_pool import start_a_program_and_hang

graph = TaskGraph()
graph.create_task("a", start_a_program_and_hang, args=[sys.argv[1]])
list(ProcessPoolTaskExecutor(max_workers=2, task_log_dir=sys.argv[2], fork_tasks=sys.argv[3] == "True").execute(graph))
"""


@pytest.mark.parametrize("fork_tasks", [False, True])
def test_a_driver_that_is_killed_leaves_no_process(tmp_path: Path, fork_tasks: bool) -> None:
    """PP5: in the middle of a task, and with the program that the task has started."""
    ledger = tmp_path / "ledger"
    command = [sys.executable, "-c", DRIVER, str(ledger), str(tmp_path / "logs"), str(fork_tasks)]
    driver = subprocess.Popen(command, cwd=ROOT)
    wait_for(ledger)
    children = [process.pid for process in psutil.Process(driver.pid).children(recursive=True)]
    assert len(children) >= 2
    driver.kill()
    driver.wait()
    assert wait_until(lambda: not any(is_alive(pid) for pid in children), 5)


# Drivers.


SCRIPT_WITHOUT_GUARD = """
import sys
from overnight.graph import TaskGraph
from overnight.process_pool_executor import ProcessPoolTaskExecutor

print("the script runs", flush=True)

class Value:
    def __init__(self, number):
        self.number = number

def square(value):
    return Value(value.number ** 2)

graph = TaskGraph()
first = graph.create_task("first", square, args=[Value(3)])
graph.create_task("second", square, args=[first])
with ProcessPoolTaskExecutor(max_workers=2, task_log_dir=sys.argv[1], fork_tasks=sys.argv[2] == "True") as pool:
    for task, value in pool.execute(graph):
        print(task.task_id, value.number, type(value) is Value)
"""


@pytest.mark.parametrize("fork_tasks", [False, True])
def test_a_script_without_a_guard_runs_once_and_its_own_classes_pass(tmp_path: Path, fork_tasks: bool) -> None:
    """B19, PP1."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT_WITHOUT_GUARD, encoding="utf-8")
    command = [sys.executable, str(script), str(tmp_path / "logs"), str(fork_tasks)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == "the script runs\nfirst 9 True\nsecond 81 True\n"


def test_two_pools_run_at_once_in_threads_that_end_before_the_pools(tmp_path: Path) -> None:
    """PP1, PP5, R22: the processes do not end with the thread that started them."""
    before = family()
    pools = [ProcessPoolTaskExecutor(max_workers=2, task_log_dir=str(tmp_path)) for _ in range(2)]
    found: list[dict[str, Any]] = []
    for _ in range(2):
        threads = [
            threading.Thread(target=lambda p=p: found.append(run(p, {f"t{n}": (tasks.own_pid,) for n in range(50)})))
            for p in pools
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 4
    pids = [set(results.values()) for results in found]
    assert len(set.union(*pids)) <= 4, "processes were started anew"
    for pool in pools:
        pool.close()
    assert family() == before


def test_a_pool_that_nobody_closes_ends_when_it_is_forgotten(tmp_path: Path) -> None:
    """PP5."""
    before = family()
    pool = ProcessPoolTaskExecutor(max_workers=2, task_log_dir=str(tmp_path))
    run(pool, {"a": (tasks.give, 1)})
    assert family() != before
    del pool
    gc.collect()
    assert family() == before
