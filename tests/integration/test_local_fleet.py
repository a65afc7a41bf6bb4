"""The keeper and its clients, with real processes in the slots and a real embedded server."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from overnight.early_ends import LEAST_IN_A_ROW
from overnight.embedded import EmbeddedServer
from overnight.errors import Refused, Unreachable, UsageError
from overnight.fleet_files import STOP, FleetFiles, fleet_files
from overnight.fleet_lease import FleetLease
from overnight.fleet_plan import FleetPlan
from overnight.local_fleet import GONE_VARIABLE, IDLE_VARIABLE, ensure_fleet
from overnight.slots import slot_pid
from overnight.state_dir import is_locked, open_log, wait_until
from tests.support.servers import (
    KINDS,
    RunningServer,
    connect,
    free_port,
    running_server,
    server_binary,
    server_process,
)

SECONDS = 30.0
ACTIVE_RUNS = "{overnight}:runs:active"
SLOT_PROCESS = str(Path(__file__).parents[1] / "support" / "slot_process.py")
CLIENT = """
import sys
from overnight.fleet_plan import plan_from_json
from overnight.local_fleet import ensure_fleet
lease = ensure_fleet(sys.argv[1], workers=2, plan=plan_from_json(sys.argv[2]))
print(lease.redis_url, flush=True)
sys.stdin.read()
lease.close(stop=False)
"""
FORKING_CLIENT = """
import os, signal, sys
from overnight.fleet_plan import plan_from_json
from overnight.local_fleet import ensure_fleet
lease = ensure_fleet(sys.argv[1], workers=2, plan=plan_from_json(sys.argv[2]))
child = os.fork()
if child:
    print(child, flush=True)
signal.pause()
"""


class Fleet:
    """The fleet of one test: its directories, and what its processes wrote about themselves."""

    def __init__(self, directory: Path) -> None:
        self.state_dir = directory / "state"
        self.notes = directory / "notes"
        self.notes.mkdir()
        command = (sys.executable, SLOT_PROCESS, str(self.notes))
        self.plan = FleetPlan(scheduler=command, worker=command)
        self.leases: list[FleetLease] = []

    @property
    def files(self) -> FleetFiles:
        return fleet_files(self.state_dir, None)

    def ensure(self, workers: int = 2, *, redis_url: str | None = None, queue: str = "default") -> FleetLease:
        lease = ensure_fleet(self.state_dir, workers=workers, queue=queue, redis_url=redis_url, plan=self.plan)
        self.leases.append(lease)
        return lease

    def client(self, *, forks: bool = False) -> subprocess.Popen[str]:
        """Start another process that is a client until its standard input ends; it prints the URL or its child's id."""
        command = [sys.executable, "-c", FORKING_CLIENT if forks else CLIENT, str(self.state_dir), self.plan.to_json()]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def lines(self, name: str) -> list[str]:
        path = self.notes / name
        return path.read_text().split("\n")[:-1] if path.exists() else []

    def started(self) -> list[int]:
        return [int(line.split()[0]) for line in self.lines("started")]

    def running(self) -> dict[str, int]:
        """Return the processes that hold a slot now, by slot."""
        pids = {name: slot_pid(self.files.slot_lock(name)) for name in self.files.known_slots()}
        return {name: pid for name, pid in pids.items() if pid is not None and pid in self.started()}

    def await_running(self, number: int) -> dict[str, int]:
        assert wait_until(lambda: len(self.running()) == number, SECONDS), self.log()
        return self.running()

    def keeper(self) -> int:
        assert wait_until(lambda: slot_pid(self.files.keeper_lock) is not None, SECONDS), self.log()
        pid = slot_pid(self.files.keeper_lock)
        assert pid is not None
        return pid

    def await_end(self) -> None:
        """Wait until the keeper is gone; everything that it kept is gone then too."""
        assert wait_until(lambda: not is_locked(self.files.keeper_lock), SECONDS), self.log()
        assert self.running() == {}
        assert not EmbeddedServer(self.state_dir).is_present()

    def log(self) -> str:
        return self.files.keeper_log.read_text() if self.files.keeper_log.exists() else ""

    def server_pid(self) -> int:
        with connect(EmbeddedServer(self.state_dir).url) as connection:
            return int(connection.info("server")["process_id"])

    def end(self) -> None:
        for lease in self.leases:
            lease.close(stop=False)
        for directory in (self.state_dir, *self.state_dir.glob("fleets/*")):
            end_keeper(FleetFiles(directory))
        for pid in self.started():
            kill(pid)
        EmbeddedServer(self.state_dir).stop()


def end_keeper(files: FleetFiles) -> None:
    """Have the keeper end what it keeps; it is told again until it listens."""

    def is_ended() -> bool:
        files.tell_keeper(STOP)
        return not is_locked(files.keeper_lock)

    assert wait_until(is_ended, SECONDS), f"the keeper in {files.directory} does not end"


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path)
    yield made
    made.end()


@pytest.fixture
def soon_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keepers end after being unused for 0.3 seconds."""
    monkeypatch.setenv(IDLE_VARIABLE, "0.3")


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def is_dead(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_fleet_is_a_server_a_scheduler_and_workers_that_know_their_queue(fleet: Fleet) -> None:
    lease = fleet.ensure(2, queue="genomes")
    running = fleet.await_running(3)
    assert sorted(running) == ["scheduler", "worker-genomes-1", "worker-genomes-2"]
    assert sorted(line.split()[1] for line in fleet.lines("started")) == ["-", "genomes", "genomes"]
    with connect(lease.redis_url) as connection:
        assert connection.ping()


def test_processes_are_told_the_server_and_the_state_directory(fleet: Fleet) -> None:
    lease = fleet.ensure(1)
    fleet.await_running(2)
    assert fleet.lines("environment") == [f"{lease.redis_url} {fleet.state_dir} None"] * 2


def test_a_process_that_dies_is_replaced_and_the_others_stay(fleet: Fleet) -> None:
    fleet.ensure(2)
    before = fleet.await_running(3)
    kill(before["worker-default-1"])
    assert wait_until(lambda: len(fleet.started()) == 4, SECONDS), fleet.log()
    after = fleet.await_running(3)
    assert after["worker-default-1"] != before["worker-default-1"]
    assert {name: after[name] for name in ("scheduler", "worker-default-2")} == {
        name: before[name] for name in ("scheduler", "worker-default-2")
    }
    assert f"worker-default-1 (pid {before['worker-default-1']}) ended: SIGKILL" in fleet.log()


def test_a_process_that_outlives_its_parent_does_not_keep_the_slot(fleet: Fleet) -> None:
    (fleet.notes / "offspring").touch()
    fleet.ensure(1)
    pid = fleet.await_running(2)["worker-default-1"]
    offspring = [int(line) for line in fleet.lines("forked")]
    kill(pid)
    try:
        assert wait_until(lambda: len(fleet.started()) == 3, SECONDS), fleet.log()
        assert not any(is_dead(pid) for pid in offspring)
    finally:
        for line in fleet.lines("forked"):
            kill(int(line))


def test_a_process_that_keeps_dying_is_restarted_later_and_later(fleet: Fleet) -> None:
    (fleet.notes / "die").touch()
    fleet.ensure(0)
    assert wait_until(lambda: len(fleet.started()) >= 4, SECONDS), fleet.log()
    assert wait_until(lambda: fleet.log().count("exit status 3") >= 3, SECONDS), fleet.log()
    delays = [line.rpartition("; ")[2] for line in fleet.log().split("\n") if "exit status 3" in line]
    assert delays[:3] == ["restarting in 0.1 s", "restarting in 0.2 s", "restarting in 0.4 s"]


def test_a_process_that_keeps_dying_is_noted_until_one_lasts(fleet: Fleet) -> None:
    """QX13."""
    (fleet.notes / "die").touch()
    fleet.ensure(2)
    slots = ("worker-default-1", "worker-default-2", "scheduler")
    assert wait_until(lambda: all(early_ends(fleet, slot) >= LEAST_IN_A_ROW for slot in slots), SECONDS), fleet.log()
    for slot in slots:
        noted = fleet.files.early_ends(slot)
        assert noted is not None
        assert (noted.how, noted.line, noted.log) == ("exit status 3", "told to die", str(fleet.files.log(slot)))
    (fleet.notes / "die").unlink()
    assert wait_until(lambda: not any(early_ends(fleet, slot) for slot in slots), SECONDS), fleet.log()


def test_a_note_outlives_its_keeper_until_somebody_wants_processes_again(fleet: Fleet) -> None:
    """QX13: what nobody wants any more is forgotten too."""
    (fleet.notes / "die").touch()
    lease = fleet.ensure(2)
    assert wait_until(lambda: early_ends(fleet, "worker-default-2") >= LEAST_IN_A_ROW, SECONDS), fleet.log()
    lease.close(stop=True)
    fleet.await_end()
    with ensure_fleet(fleet.state_dir, workers=0, scheduler=False, plan=fleet.plan):
        assert early_ends(fleet, "worker-default-2") >= LEAST_IN_A_ROW
    end_keeper(fleet.files)
    (fleet.notes / "die").unlink()
    fleet.ensure(1)
    fleet.await_running(2)
    assert [early_ends(fleet, slot) for slot in fleet.files.known_slots()] == [0, 0, 0]


def early_ends(fleet: Fleet, slot: str) -> int:
    noted = fleet.files.early_ends(slot)
    return noted.number if noted else 0


def test_a_killed_server_is_back_with_its_data(fleet: Fleet) -> None:
    """QX6, P8."""
    lease = fleet.ensure(1)
    before = fleet.await_running(2)
    with connect(lease.redis_url) as connection:
        connection.set("kept", "yes")
    first = fleet.server_pid()
    assert wait_until(lambda: "the server answers" in fleet.log(), SECONDS), fleet.log()
    kill(first)
    assert wait_until(lambda: fleet.log().count("the server answers") == 2, SECONDS), fleet.log()
    with connect(lease.redis_url) as connection:
        assert connection.get("kept") == b"yes"
    assert fleet.server_pid() != first
    assert fleet.running() == before


def test_a_server_whose_socket_was_removed_is_started_again_with_its_data(fleet: Fleet) -> None:
    """QX6, P8. Cleaners of temporary directories remove sockets; nobody new would ever reach the server."""
    lease = fleet.ensure(1)
    fleet.await_running(2)
    with connect(lease.redis_url) as connection:
        connection.set("kept", "yes")
    assert wait_until(lambda: "the server answers" in fleet.log(), SECONDS), fleet.log()
    socket = fleet.state_dir / "redis.sock"
    socket.unlink()
    assert wait_until(lambda: fleet.log().count("the server answers") == 2, SECONDS), fleet.log()
    assert "the server's socket was removed" in fleet.log()
    with connect(lease.redis_url) as connection:
        assert connection.get("kept") == b"yes"


def test_what_a_killed_keeper_kept_lives_on_and_the_next_keeper_takes_it_over(fleet: Fleet) -> None:
    lease = fleet.ensure(2)
    before = fleet.await_running(3)
    keeper, server = fleet.keeper(), fleet.server_pid()
    kill(keeper)
    assert wait_until(lambda: not is_locked(fleet.files.keeper_lock), SECONDS)
    lease.check()
    assert fleet.keeper() != keeper
    assert wait_until(lambda: fleet.log().count("is there already") == 3, SECONDS), fleet.log()
    assert (fleet.running(), fleet.server_pid()) == (before, server)
    kill(before["worker-default-2"])
    assert wait_until(lambda: len(fleet.started()) == 4, SECONDS), fleet.log()
    assert fleet.await_running(3)["worker-default-1"] == before["worker-default-1"]


def test_all_killed_at_once_are_back_with_the_next_client(fleet: Fleet) -> None:
    lease = fleet.ensure(2)
    before = fleet.await_running(3)
    with connect(lease.redis_url) as connection:
        connection.set("kept", "yes")
    for pid in (fleet.keeper(), fleet.server_pid(), *before.values()):
        kill(pid)
    lease.close(stop=False)
    lease = fleet.ensure(2)
    assert wait_until(lambda: len(fleet.started()) == 6, SECONDS), fleet.log()
    assert not set(fleet.await_running(3).values()) & set(before.values())
    with connect(lease.redis_url) as connection:
        assert connection.get("kept") == b"yes"


def test_five_clients_at_once_share_one_fleet(fleet: Fleet) -> None:
    clients = [fleet.client() for _ in range(5)]
    urls = []
    for client in clients:
        assert client.stdout
        urls.append(client.stdout.readline().strip())
    fleet.await_running(3)
    assert len(set(urls)) == 1
    assert fleet.files.demands() == fleet.files.demands()[:1] * 5
    for client in clients:
        client.communicate(timeout=SECONDS)
    assert [client.returncode for client in clients] == [0] * 5
    assert len(fleet.started()) == 3
    assert fleet.log().count("scheduler started") == 1


def test_the_last_client_to_close_ends_the_fleet(fleet: Fleet) -> None:
    """QX11."""
    first, second = fleet.ensure(1), fleet.ensure(1)
    running = fleet.await_running(2)
    first.close(stop=True)
    assert fleet.running() == running
    second.close(stop=True)
    fleet.await_end()
    assert sorted(int(pid) for pid in fleet.lines("drained")) == sorted(running.values())


def test_workers_are_drained_before_the_scheduler(fleet: Fleet) -> None:
    lease = fleet.ensure(2)
    running = fleet.await_running(3)
    lease.close(stop=True)
    assert int(fleet.lines("drained")[-1]) == running["scheduler"]


def test_closing_while_a_run_is_active_leaves_the_fleet_to_the_run(fleet: Fleet, soon_idle: None) -> None:
    """QX7, QX11: it ends by itself when the run is over."""
    lease = fleet.ensure(1)
    running = fleet.await_running(2)
    with connect(lease.redis_url) as connection:
        connection.sadd(ACTIVE_RUNS, "run-1")
        lease.close(stop=True)
        assert connection.scard(ACTIVE_RUNS) == 1
        assert fleet.running() == running
        connection.srem(ACTIVE_RUNS, "run-1")
    fleet.await_end()
    assert "unused for 0.3 s" in fleet.log()


def test_a_fleet_stays_as_long_as_a_client_is_there(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(IDLE_VARIABLE, "0")
    lease = fleet.ensure(1)
    before = fleet.await_running(2)
    kill(before["worker-default-1"])
    assert wait_until(lambda: len(fleet.started()) == 3, SECONDS), "the keeper goes on, round after round"
    assert fleet.await_running(2)["scheduler"] == before["scheduler"]
    lease.close(stop=False)
    fleet.await_end()


def test_a_fleet_ends_by_itself_when_its_client_is_killed(fleet: Fleet, soon_idle: None) -> None:
    with fleet.client() as client:
        fleet.await_running(3)
        kill(client.pid)
    fleet.await_end()
    assert list(fleet.state_dir.glob("clients/*")) == []


def test_a_fleet_that_ended_is_started_anew_by_the_next_client(fleet: Fleet, soon_idle: None) -> None:
    lease = fleet.ensure(1)
    fleet.await_running(2)
    with connect(lease.redis_url) as connection:
        connection.set("kept", "yes")
    lease.close(stop=False)
    fleet.await_end()
    lease = fleet.ensure(1)
    assert wait_until(lambda: len(fleet.started()) == 4, SECONDS), fleet.log()
    with connect(lease.redis_url) as connection:
        assert connection.get("kept") == b"yes"


def test_the_forked_child_of_a_client_is_no_client(fleet: Fleet, soon_idle: None) -> None:
    with fleet.client(forks=True) as client:
        assert client.stdout
        child = int(client.stdout.readline())
        try:
            fleet.await_running(3)
            kill(client.pid)
            fleet.await_end()
            assert not is_dead(child)
        finally:
            kill(child)


def test_the_fleet_grows_for_a_client_that_wants_more_and_shrinks_when_it_leaves(fleet: Fleet) -> None:
    fleet.ensure(2)
    before = fleet.await_running(3)
    larger = fleet.ensure(4)
    assert fleet.await_running(5).items() > before.items()
    larger.close(stop=True)
    assert fleet.await_running(3) == before
    assert len(fleet.lines("drained")) == 2


def test_two_queues_get_their_own_workers(fleet: Fleet) -> None:
    fleet.ensure(1, queue="small")
    fleet.ensure(2, queue="Large/1")
    names = sorted(fleet.await_running(4))
    assert names[0] == "scheduler"
    assert sorted(line.split()[1] for line in fleet.lines("started")) == ["-", "Large/1", "Large/1", "small"]


def test_sigterm_to_the_keeper_drains_everything(fleet: Fleet) -> None:
    fleet.ensure(2)
    running = fleet.await_running(3)
    os.kill(fleet.keeper(), signal.SIGTERM)
    fleet.await_end()
    assert sorted(int(pid) for pid in fleet.lines("drained")) == sorted(running.values())


def test_what_ignores_the_request_to_stop_is_killed_after_the_time_to_drain(fleet: Fleet) -> None:
    (fleet.notes / "stubborn").touch()
    command = [sys.executable, "-m", "overnight.local_fleet", "--state-dir", str(fleet.state_dir), "--workers", "1"]
    command += ["--drain-seconds", "0.2", "--plan", fleet.plan.to_json()]
    keeper = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    running = fleet.await_running(2)
    keeper.terminate()
    _, log = keeper.communicate(timeout=SECONDS)
    assert keeper.returncode == 0
    assert log.count("did not stop within 0.2 s: killing it") == 2
    assert all(is_dead(pid) for pid in running.values())
    assert fleet.lines("drained") == []


def test_a_removed_state_directory_ends_all_that_ran_in_it(fleet: Fleet) -> None:
    lease = fleet.ensure(2)
    pids = [*fleet.await_running(3).values(), fleet.keeper(), fleet.server_pid()]
    assert wait_until(lambda: "the server answers" in fleet.log(), SECONDS), fleet.log()
    shutil.rmtree(fleet.state_dir, ignore_errors=True)
    assert wait_until(lambda: all(is_dead(pid) for pid in pids), SECONDS), [pid for pid in pids if not is_dead(pid)]
    lease.close(stop=True)


@pytest.mark.parametrize("anew", [False, True])
def test_a_client_whose_state_directory_was_removed_is_told_so_and_its_server_ends(fleet: Fleet, *, anew: bool) -> None:
    """Also where another fleet has come up in its place meanwhile, which knows nothing of this client's run."""
    lease = fleet.ensure(1)
    fleet.await_running(2)
    pids = [*fleet.running().values(), fleet.keeper(), fleet.server_pid()]
    fleet.state_dir.rename(fleet.state_dir.with_name("moved"))
    if anew:
        fleet.ensure(1)
        fleet.await_running(2)
    with pytest.raises(Unreachable, match=r"state was removed or replaced while it was in use"):
        lease.check()
    lease.close(stop=True)
    assert wait_until(lambda: all(is_dead(pid) for pid in pids), SECONDS), [pid for pid in pids if not is_dead(pid)]
    assert not anew or len(fleet.running()) == 2


def test_a_log_makes_no_directory_but_its_own(tmp_path: Path) -> None:
    """A state directory that was removed is never made anew by what ends in it, open to others."""
    with pytest.raises(FileNotFoundError):
        open_log(tmp_path / "state" / "logs" / "worker.log")
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_redis_elsewhere_is_used_and_not_ended_and_its_password_is_on_no_command_line(
    fleet: Fleet, short_directory: Path, kind: str
) -> None:
    directory = short_directory / f"elsewhere-{kind}"
    with running_server(server_binary(kind), directory, tcp=True, password="pass-word") as url:
        lease = fleet.ensure(1, redis_url=url)
        files = fleet_files(fleet.state_dir, url)
        assert lease.redis_url == url
        assert wait_until(lambda: len(fleet.started()) == 2, SECONDS)
        keeper = slot_pid(files.keeper_lock)
        assert keeper is not None
        for pid in (keeper, *fleet.started()):
            assert "pass-word" not in " ".join(psutil.Process(pid).cmdline())
        assert not EmbeddedServer(fleet.state_dir).is_present()
        lease.close(stop=True)
        assert not is_locked(files.keeper_lock)
        with connect(url) as connection:
            assert connection.ping()


@pytest.fixture
def elsewhere(short_directory: Path, tmp_path: Path) -> Iterator[RunningServer]:
    """A Redis that is not the fleet's."""
    with server_process(server_binary("valkey"), short_directory / tmp_path.name, tcp=True) as server:
        yield server


def leave_with_an_active_run(fleet: Fleet, server: RunningServer) -> FleetFiles:
    """Use a fleet on a server elsewhere and leave it to a run; return its files."""
    lease = fleet.ensure(1, redis_url=server.url)
    assert wait_until(lambda: len(fleet.started()) == 2, SECONDS)
    with connect(server.url) as connection:
        connection.sadd(ACTIVE_RUNS, "run-1")
    lease.close(stop=True)
    files = fleet_files(fleet.state_dir, server.url)
    assert is_locked(files.keeper_lock)
    return files


def await_end_of(files: FleetFiles, fleet: Fleet) -> str:
    """Wait until a keeper and all that it kept is gone; return its log."""
    assert wait_until(lambda: not is_locked(files.keeper_lock), SECONDS), files.keeper_log.read_text()
    assert all(is_dead(pid) for pid in fleet.started())
    return files.keeper_log.read_text()


def test_a_redis_elsewhere_that_is_gone_for_good_ends_the_fleet_with_one_line(
    fleet: Fleet, soon_idle: None, elsewhere: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DESIGN 2: nothing uses it any more."""
    monkeypatch.setenv(GONE_VARIABLE, "3.6")
    files = leave_with_an_active_run(fleet, elsewhere)
    kill(elsewhere.process.pid)
    log = await_end_of(files, fleet)
    assert log.count("the server has not answered for 0.001 hours and is given up") == 1


def test_an_outage_of_a_redis_elsewhere_is_waited_for(
    fleet: Fleet, soon_idle: None, elsewhere: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P8: the run is active when the server is back, and the fleet is there for it."""
    files = leave_with_an_active_run(fleet, elsewhere)
    os.kill(elsewhere.process.pid, signal.SIGSTOP)
    restarts = len(fleet.started())
    kill(fleet.started()[-1])
    assert wait_until(lambda: len(fleet.started()) > restarts, SECONDS), "the keeper goes on, round after round"
    os.kill(elsewhere.process.pid, signal.SIGCONT)
    assert is_locked(files.keeper_lock)
    with connect(elsewhere.url) as connection:
        connection.srem(ACTIVE_RUNS, "run-1")
    assert "unused for 0.3 s" in await_end_of(files, fleet)


def test_a_redis_elsewhere_that_had_no_active_run_is_not_waited_for(
    fleet: Fleet, elsewhere: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(IDLE_VARIABLE, "3")
    lease = fleet.ensure(1, redis_url=elsewhere.url)
    assert wait_until(lambda: len(fleet.started()) == 2, SECONDS)
    files = fleet_files(fleet.state_dir, elsewhere.url)
    with connect(elsewhere.url) as connection:
        asked = connection.info("commandstats").get("cmdstat_scard", {"calls": 0})["calls"]
        lease.close(stop=False)
        assert wait_until(lambda: connection.info("commandstats")["cmdstat_scard"]["calls"] > asked, SECONDS)
    kill(elsewhere.process.pid)
    assert "unused for 3 s" in await_end_of(files, fleet)


def test_a_redis_elsewhere_that_never_answered_is_not_waited_for(fleet: Fleet, soon_idle: None) -> None:
    """A mistyped address leaves nothing behind."""
    url = f"redis://127.0.0.1:{free_port()}/0"
    lease = fleet.ensure(1, redis_url=url)
    assert wait_until(lambda: len(fleet.started()) == 2, SECONDS)
    lease.close(stop=False)
    assert "unused for 0.3 s" in await_end_of(fleet_files(fleet.state_dir, url), fleet)


def test_a_second_keeper_started_by_hand_declines(fleet: Fleet) -> None:
    fleet.ensure(0)
    fleet.keeper()
    command = [sys.executable, "-m", "overnight.local_fleet", "--state-dir", str(fleet.state_dir), "--workers", "1"]
    second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == Refused.exit_status
    assert second.stderr.strip().endswith(f"A keeper already runs for {fleet.state_dir}.")


def test_a_keeper_that_cannot_start_is_told_to_the_client(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(IDLE_VARIABLE, "soon")
    lease = fleet.ensure(1)

    def check_fails() -> bool:
        with suppress(Unreachable):
            lease.check()
            return False
        return True

    assert wait_until(check_fails, SECONDS)
    assert wait_until(lambda: not is_locked(fleet.files.keeper_lock), SECONDS)
    with pytest.raises(Unreachable, match=r"OVERNIGHT_IDLE_SECONDS: expected a number of seconds, .*, found 'soon'"):
        lease.check()


def test_a_negative_number_of_workers_is_refused(fleet: Fleet) -> None:
    with pytest.raises(UsageError, match="0 or more, not -1"):
        fleet.ensure(-1)
    assert not fleet.state_dir.exists()
