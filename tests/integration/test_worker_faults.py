"""Death, outages and signals around the worker: real servers, real processes, killed at a chosen moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from overnight.core.states import TaskState
from overnight.errors import TaskDied
from overnight.flag_files import open_flag
from overnight.keyring import Keyring
from overnight.naming import flag_name
from overnight.state_dir import wait_until
from overnight.store.records import Happening, Request
from overnight.task import Task
from overnight.transport.rq import rq_prefix
from tests.support import worker_tasks as tasks
from tests.support.servers import free_port, server_binary, server_process
from tests.support.small_scheduler import Plan, SmallScheduler, worker

KEY = "ab" * 32


@pytest.fixture
def run(redis_url: str) -> Iterator[SmallScheduler]:
    scheduler = SmallScheduler(redis_url)
    yield scheduler
    scheduler.close()


def has_begun(path: Path) -> None:
    assert wait_until(lambda: Path(f"{path}.begun").exists(), 30)


def ledger_lines(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_the_lease_of_a_killed_supervisor_runs_out_and_its_child_dies_with_it(
    run: SmallScheduler, tmp_path: Path, redis_url: str
) -> None:
    """P6, QX4."""
    gate = tmp_path / "gate"
    run.submit([Plan(tasks.wait_for_file, (str(gate),)), Plan(tasks.answer)], tmp_path)
    with worker(redis_url, tmp_path) as killed:
        batch = run.dispatch(0, 1)
        has_begun(gate)
        children = psutil.Process(killed.process.pid).children(recursive=True)
        assert children
        killed.process.kill()
        assert not psutil.wait_procs(children, 10)[1]
    epoch = run.epoch()
    assert wait_until(lambda: [reaped.batch for reaped in run.store.reap(epoch)] == [batch], 10)
    gate.touch()
    with worker(redis_url, tmp_path):
        run.dispatch(0)
        run.dispatch(1)
        run.wait_ended()
    assert (run.result(0), run.result(1)) == ("waited", 42)


def test_a_worker_that_was_frozen_after_its_claim_starts_nothing_under_a_lost_lease(
    run: SmallScheduler, tmp_path: Path, redis_url: str
) -> None:
    """P3 of ADVERSITY: by then the tasks may have been done elsewhere."""
    ledgers = [tmp_path / f"ledger {number}" for number in range(3)]
    run.submit([Plan(tasks.note, (str(ledger),)) for ledger in ledgers], tmp_path)
    failpoint = {"OVERNIGHT_FAILPOINT": "worker.after_claim:stop4@2", "OVERNIGHT_TESTING": "1"}
    with worker(redis_url, tmp_path, **failpoint) as frozen:
        run.dispatch(0)
        run.wait_ended(0)
        batch = run.dispatch(1)
        epoch = run.epoch()
        assert wait_until(lambda: [reaped.batch for reaped in run.store.reap(epoch)] == [batch], 10)
        assert frozen.said("strikes")
        run.dispatch(2)
        run.wait_ended(2)
    assert [ledger_lines(ledger) for ledger in ledgers] == [1, 0, 1]


def test_only_the_loss_of_a_task_that_has_begun_is_told_as_such_from_its_second_attempt_on(
    run: SmallScheduler, tmp_path: Path, redis_url: str
) -> None:
    """P10, O7: a worker that dies between its claim and the start of its task says nothing about the task."""
    run.submit([Plan(tasks.kill_supervisor)], tmp_path)

    def lost(failpoint: str) -> bool:
        environment = {"OVERNIGHT_FAILPOINT": failpoint, "OVERNIGHT_TESTING": "1"} if failpoint else {}
        with worker(redis_url, tmp_path, **environment) as dying:
            batch = run.dispatch(0)
            assert wait_until(lambda: dying.process.poll() == -signal.SIGKILL, 30)
        assert wait_until(lambda: [reaped.batch for reaped in run.store.reap(run.epoch())] == [batch], 10)
        (told,) = [event for event in run.store.follow(run.run_id, "0", 0) if event.what is Happening.REAPED][-1:]
        return told.begun

    # The first attempt is not announced: what kills its worker at once begins without a word.
    assert [lost(point) for point in ("", "worker.after_claim:kill9", "", "")] == [False, False, True, True]


def test_a_long_task_keeps_its_lease_though_it_blocks_the_interpreter(
    run: SmallScheduler, tmp_path: Path, redis_url: str
) -> None:
    """P6: a C extension that holds the GIL for 3 leases is never reaped."""
    run.submit([Plan(tasks.block_in_c, (5,))], tmp_path)
    with worker(redis_url, tmp_path):
        run.dispatch(0)
        epoch = run.epoch()
        reaped: list[object] = []

        def is_over() -> bool:
            reaped.extend(run.store.reap(epoch))
            return run.outcome_is_in(0)

        assert wait_until(is_over, 30)
    assert reaped == []
    assert run.state(0) is TaskState.DONE


def test_a_result_that_is_ready_while_redis_is_away_is_committed_afterwards(
    tmp_path: Path, short_directory: Path
) -> None:
    """QX6, P8."""
    gate = tmp_path / "gate"
    data = short_directory / "outage"
    with server_process(server_binary("redis"), data, appendonly="yes", appendfsync="always") as server:
        run = SmallScheduler(server.url)
        run.submit([Plan(tasks.wait_for_file, (str(gate),)), Plan(tasks.note, (str(tmp_path / "ledger"), 1))], tmp_path)
        with worker(server.url, tmp_path) as running:
            run.dispatch(0, 1)
            has_begun(gate)
            server.process.kill()
            server.process.wait()
            gate.touch()
            spool = tmp_path / "state" / "spool"
            assert wait_until(lambda: any(spool.glob("*.spool")), 30)
            assert running.process.poll() is None
            with server_process(server_binary("redis"), data, appendonly="yes", appendfsync="always"):
                run.wait_ended(seconds=30)
                assert (run.result(0), run.result(1)) == ("waited", 1)
                assert wait_until(lambda: not any(spool.glob("*.spool")), 10)
                run.close()
        assert running.said("the server answers again")
    assert ledger_lines(tmp_path / "ledger") == 1


def test_an_idle_worker_outlives_an_outage(tmp_path: Path, short_directory: Path) -> None:
    """P8."""
    data = short_directory / "idle"
    with server_process(server_binary("valkey"), data) as server, worker(server.url, tmp_path) as running:
        assert wait_until(lambda: running.said("takes tasks from"), 30)
        server.process.kill()
        server.process.wait()
        assert wait_until(lambda: running.said("waiting for it"), 30)
        with server_process(server_binary("valkey"), data):
            run = SmallScheduler(server.url)
            run.submit([Plan(tasks.answer)], tmp_path)
            run.dispatch(0)
            run.wait_ended(0)
            run.close()


def test_what_a_dead_worker_left_in_the_spool_is_committed_by_another(tmp_path: Path, short_directory: Path) -> None:
    """QX6."""
    gate = tmp_path / "gate"
    data = short_directory / "spool"
    with server_process(server_binary("redis"), data, appendonly="yes", appendfsync="always") as server:
        run = SmallScheduler(server.url)
        run.submit([Plan(tasks.wait_for_file, (str(gate),))], tmp_path)
        with worker(server.url, tmp_path) as running:
            run.dispatch(0)
            has_begun(gate)
            server.process.kill()
            server.process.wait()
            gate.touch()
            assert wait_until(lambda: any((tmp_path / "state" / "spool").glob("*.spool")), 30)
            running.process.kill()
            running.process.wait()
        with (
            server_process(server_binary("redis"), data, appendonly="yes", appendfsync="always"),
            worker(server.url, tmp_path) as other,
        ):
            run.wait_ended(0)
            assert run.result(0) == "waited"
            assert wait_until(lambda: other.said("delivered from the spool"), 10)
            run.close()


def test_sigterm_drains_running_tasks_end_and_the_rest_goes_back_at_once(
    run: SmallScheduler, tmp_path: Path, redis_url: str
) -> None:
    """P15."""
    gate = tmp_path / "gate"
    run.submit([Plan(tasks.answer), Plan(tasks.wait_for_file, (str(gate),)), Plan(tasks.answer)], tmp_path)
    with worker(redis_url, tmp_path) as running:
        run.dispatch(0, 1, 2)
        has_begun(gate)
        running.process.send_signal(signal.SIGTERM)
        run.wait_for(lambda: run.state(2) is TaskState.PENDING)
        assert run.state(1) is TaskState.RUNNING
        gate.touch()
        assert running.process.wait(20) == 0
    assert (run.state(0), run.result(1)) == (TaskState.DONE, "waited")
    assert run.store.workers() == []


def test_a_draining_worker_takes_back_no_task_whose_outcome_is_on_its_way(
    run: SmallScheduler, tmp_path: Path, redis_url: str
) -> None:
    """P2, P11: the child runs nothing any more, and its supervisor has not heard of the outcome yet."""
    gate = tmp_path / "gate"
    run.submit([Plan(tasks.wait_for_file, (str(gate),)), Plan(tasks.answer)], tmp_path)
    failpoint = {"OVERNIGHT_FAILPOINT": "child.before_outcome:stop1", "OVERNIGHT_TESTING": "1"}
    with worker(redis_url, tmp_path, **failpoint) as running:
        run.dispatch(0, 1)
        has_begun(gate)
        running.process.send_signal(signal.SIGTERM)
        run.wait_for(lambda: run.state(1) is TaskState.PENDING)
        gate.touch()
        assert running.process.wait(30) == 0
    assert (run.state(0), run.state(1)) == (TaskState.DONE, TaskState.PENDING)


def test_what_does_not_end_within_the_drain_time_is_stopped_and_given_back(
    run: SmallScheduler, tmp_path: Path, redis_url: str
) -> None:
    """P15."""
    gate = tmp_path / "gate"
    run.submit([Plan(tasks.wait_for_file, (str(gate),))], tmp_path)
    with worker(redis_url, tmp_path, OVERNIGHT_DRAIN_SECONDS="0.5") as running:
        run.dispatch(0)
        has_begun(gate)
        assert running.stop() == 0
    assert run.state(0) is TaskState.PENDING
    assert run.view(0).charge.failures == 0


def test_a_cancelled_run_stops_what_runs(run: SmallScheduler, tmp_path: Path, redis_url: str) -> None:
    """QX7."""
    gate = tmp_path / "gate"
    run.submit([Plan(tasks.wait_for_file, (str(gate),)), Plan(tasks.answer)], tmp_path)
    with worker(redis_url, tmp_path) as running:
        run.dispatch(0, 1)
        has_begun(gate)
        run.store.request(run.run_id, Request.CANCEL)
        run.wait_for(lambda: run.state(0) is TaskState.PENDING and run.state(1) is TaskState.PENDING)
        assert running.said("what runs is killed")


def test_an_entry_that_is_delivered_twice_runs_once(run: SmallScheduler, tmp_path: Path, redis_url: str) -> None:
    """QX3."""
    ledger = tmp_path / "ledger"
    run.submit([Plan(tasks.note, (str(ledger),)), Plan(tasks.answer)], tmp_path)
    batch = run.dispatch(0)
    run.push(batch)
    with worker(redis_url, tmp_path):
        run.wait_ended(0)
        run.push(batch)
        run.dispatch(1)
        run.wait_ended(1)
    assert ledger_lines(ledger) == 1


@pytest.mark.parametrize(("field", "value"), [("python", "3.2.1"), ("protocol", 99)])
def test_a_worker_that_does_not_fit_a_run_leaves_it_to_others_and_says_why(
    run: SmallScheduler, tmp_path: Path, redis_url: str, field: str, value: object
) -> None:
    """QX10, P17."""
    run.submit([Plan(tasks.answer)], tmp_path, record={field: value})
    with worker(redis_url, tmp_path) as running:
        run.dispatch(0)
        assert wait_until(lambda: running.said("is left to other workers"), 30)
        assert wait_until(lambda: any("does not fit" in worker.note for worker in run.store.workers()), 10)
        assert wait_until(lambda: run.transport.depth("default") == 1, 10)
        assert run.state(0) is TaskState.QUEUED


def test_a_worker_without_the_runs_key_leaves_it_and_one_with_it_takes_it(redis_url: str, tmp_path: Path) -> None:
    """P17."""
    run = SmallScheduler(redis_url, keyring=Keyring((bytes.fromhex(KEY),)))
    run.submit([Plan(tasks.surroundings)], tmp_path)
    with worker(redis_url, tmp_path) as stranger:
        run.dispatch(0)
        assert wait_until(lambda: stranger.said("cannot be opened with this worker's keys"), 30)
    with worker(redis_url, tmp_path, OVERNIGHT_SECRET_KEY=KEY):
        run.wait_ended(0)
    assert run.result(0)["secrets"] == []
    run.close()


def test_results_are_in_flags_before_they_are_committed(run: SmallScheduler, tmp_path: Path, redis_url: str) -> None:
    """The order of an outcome; C11."""
    flags = tmp_path / "flags"
    flags.mkdir()
    plans = [Plan(tasks.large, (1,)), Plan(tasks.length, (Task("0"),), (0,)), Plan(tasks.plus, (Task("1"), 1), (1,))]
    run.submit(plans, tmp_path, context={"status_dir": str(flags)})
    with worker(redis_url, tmp_path):
        run.dispatch(0)
        run.wait_ended(0)
        run.dispatch(1, 2)
        run.wait_ended()
    assert run.stored(0).locator == f"flag:{flags / flag_name('task-0')}"
    assert run.result(2) == 1_000_001
    for number in range(3):
        flag = open_flag(flags / flag_name(f"task-{number}"), f"task-{number}", Keyring())
        assert bytes.fromhex(flag.header.body_sha256) == run.stored(number).digest
        assert flag.header.run_id == run.run_id


def test_a_valid_flag_of_the_same_run_and_lineage_stands_for_the_attempt(
    run: SmallScheduler, tmp_path: Path, redis_url: str
) -> None:
    """P3: look first."""
    flags, ledger = tmp_path / "flags", tmp_path / "ledger"
    flags.mkdir()
    run.submit([Plan(tasks.note, (str(ledger), "first"))], tmp_path, context={"status_dir": str(flags)})
    with worker(redis_url, tmp_path):
        run.dispatch(0)
        run.wait_ended(0)
        run.store.invalidate(run.run_id, [0])
        run.dispatch(0)
        run.wait_for(lambda: run.state(0) is TaskState.DONE)
    assert run.result(0) == "first"
    assert ledger_lines(ledger) == 1


def test_a_status_directory_that_is_not_there_is_told_once_and_results_go_through_redis(
    run: SmallScheduler, tmp_path: Path, redis_url: str
) -> None:
    """C7; ADVERSITY 7, 43."""
    run.submit([Plan(tasks.answer), Plan(tasks.answer)], tmp_path, context={"status_dir": str(tmp_path / "gone")})
    with worker(redis_url, tmp_path) as running:
        run.dispatch(0)
        run.dispatch(1)
        run.wait_ended()
        assert running.log.read_text().count("results go through Redis") == 1
    assert not (tmp_path / "gone").exists()


def test_something_in_the_place_of_a_flag_is_left_alone(run: SmallScheduler, tmp_path: Path, redis_url: str) -> None:
    """C7, C14."""
    flags = tmp_path / "flags"
    (flags / flag_name("task-0")).mkdir(parents=True)
    run.submit([Plan(tasks.answer), Plan(tasks.answer)], tmp_path, context={"status_dir": str(flags)})
    with worker(redis_url, tmp_path) as running:
        run.dispatch(0, 1)
        run.wait_ended()
        assert running.log.read_text().count("results go through Redis") == 1
    assert (run.result(0), run.result(1)) == (42, 42)
    assert (flags / flag_name("task-0")).is_dir()


def test_rq_info_shows_the_worker_busy_and_idle(run: SmallScheduler, tmp_path: Path, redis_url: str) -> None:
    gate = tmp_path / "gate"
    run.submit([Plan(tasks.wait_for_file, (str(gate),))], tmp_path)

    def info() -> str:
        command = [sys.executable, "-m", "rq.cli", "info", "--url", redis_url]
        environment = os.environ | {"RQ_KEY_PREFIX": rq_prefix("overnight")}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True).stdout

    with worker(redis_url, tmp_path, "--name", "node7"):
        run.dispatch(0)
        has_begun(gate)
        shown = info()
        assert "node7" in shown
        assert "busy" in shown
        gate.touch()
        run.wait_ended(0)
        assert wait_until(lambda: "idle" in info(), 20)


def test_workers_announce_what_they_run(run: SmallScheduler, tmp_path: Path, redis_url: str) -> None:
    """Q12."""
    gate = tmp_path / "gate"
    run.submit([Plan(tasks.answer), Plan(tasks.wait_for_file, (str(gate),))], tmp_path)
    with worker(redis_url, tmp_path, "-q", "default", "-q", "other"):
        run.dispatch(0, 1)
        has_begun(gate)
        assert wait_until(lambda: [worker.task for worker in run.store.workers()] == [1], 10)
        (record,) = run.store.workers()
        assert (record.run_id, list(record.queues)) == (run.run_id, ["default", "other"])
        assert record.memory > 1_000_000
        gate.touch()
        run.wait_ended()


def test_a_worker_serves_several_queues(run: SmallScheduler, tmp_path: Path, redis_url: str) -> None:
    run.submit([Plan(tasks.answer), Plan(tasks.answer)], tmp_path)
    with worker(redis_url, tmp_path, "-q", "a", "-q", "zwei, drei"):
        run.dispatch(0, queue="a")
        run.dispatch(1, queue="zwei, drei")
        run.wait_ended()


def test_a_parent_of_several_supervisors_starts_a_killed_one_again_and_passes_sigterm_on(
    run: SmallScheduler, tmp_path: Path, redis_url: str
) -> None:
    """P6: at once, as often as it happens."""
    kills = 4
    run.submit([*[Plan(tasks.kill_supervisor)] * kills, Plan(tasks.answer)], tmp_path)
    with worker(redis_url, tmp_path, "-j", "2") as parent:
        assert wait_until(lambda: len(run.store.workers()) == 2, 30)
        for task in range(kills):
            before = {worker.instance for worker in run.store.workers()}
            run.dispatch(task)
            assert wait_until(lambda: bool({worker.instance for worker in run.store.workers()} - before), 30)
        assert parent.log.read_text().count("a supervisor ended (SIGKILL), the next one starts at once") == kills
        run.dispatch(kills)
        run.wait_ended(kills)
        assert parent.stop() == 0
    assert wait_until(lambda: run.store.workers() == [], 30)


def test_a_server_that_is_down_is_one_sentence_and_status_4(tmp_path: Path) -> None:
    """QX2, ADVERSITY 7, 47."""
    url = f"redis://:hidden-password@127.0.0.1:{free_port()}/0"
    with worker(url, tmp_path, OVERNIGHT_CONNECT_SECONDS="0.5") as refused:
        assert refused.process.wait(30) == 4
        (line,) = refused.log.read_text().splitlines()
    assert "connection refused" in line
    assert "hidden-password" not in line


def test_a_wrong_password_is_named_and_status_4(tmp_path: Path, short_directory: Path) -> None:
    """ADVERSITY 7, 48."""
    with (
        server_process(server_binary("redis"), short_directory / "locked", tcp=True, password="right") as server,
        worker(server.url.replace("right", "wrong"), tmp_path) as refused,
    ):
        assert refused.process.wait(30) == 4
        assert "password is wrong" in refused.log.read_text()


def test_a_doctored_message_fails_its_task_and_is_never_unpickled(
    run: SmallScheduler, tmp_path: Path, redis_url: str
) -> None:
    """P17, C1."""
    run.submit([Plan(tasks.answer), Plan(tasks.answer)], tmp_path)
    key = f"{{overnight}}:run:{run.run_id}:messages"
    record = run.client.hget(key, "0")
    assert isinstance(record, bytes)
    run.client.hset(key, "0", record[:-40] + b"\x80" + record[-39:])
    with worker(redis_url, tmp_path):
        run.dispatch(0, 1)
        run.wait_ended()
    assert "refused" in str(run.error(0))
    assert run.result(1) == 42


def test_a_message_that_the_server_has_lost_fails_its_task_with_what_to_do(
    run: SmallScheduler, tmp_path: Path, redis_url: str
) -> None:
    """P17."""
    run.submit([Plan(tasks.answer)], tmp_path)
    run.client.delete(f"{{overnight}}:run:{run.run_id}:messages")
    with worker(redis_url, tmp_path):
        run.dispatch(0)
        run.wait_ended()
    remedy = "Cancel the run and start it again; what is recorded as finished is kept."
    assert f"The server has lost the task's message. {remedy}" in str(run.error(0))


def test_the_last_signal_wins_a_second_one_gives_everything_back(
    run: SmallScheduler, tmp_path: Path, redis_url: str
) -> None:
    """P15."""
    gate = tmp_path / "gate"
    run.submit([Plan(tasks.wait_for_file, (str(gate),))], tmp_path)
    with worker(redis_url, tmp_path, OVERNIGHT_DRAIN_SECONDS="600") as running:
        run.dispatch(0)
        has_begun(gate)
        running.process.send_signal(signal.SIGTERM)
        assert wait_until(lambda: any(record.draining for record in run.store.workers()), 10)

        def has_ended() -> bool:
            # Two signals within a second count as one, so they are repeated.
            running.process.send_signal(signal.SIGTERM)
            return running.process.poll() is not None

        assert wait_until(has_ended, 20)
    assert run.state(0) is TaskState.PENDING


def test_the_facts_of_a_death_survive_the_way_through_the_server(
    run: SmallScheduler, tmp_path: Path, redis_url: str
) -> None:
    """P6: fields survive the way through the server."""
    run.submit([Plan(tasks.kill_itself)], tmp_path)
    with worker(redis_url, tmp_path, "--name", "node9"):
        run.dispatch(0)
        run.wait_ended(0)
    error = run.error(0)
    assert isinstance(error, TaskDied)
    assert (error.signal, error.exit_code, error.worker) == ("SIGKILL", None, "node9")
    assert replace(run.view(0), error=None).state is not TaskState.DONE
