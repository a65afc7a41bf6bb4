"""Keys and passwords in real processes: out of reach of tasks, replaced, revoked (ADVERSITY 8: H2, H3, M6, M7)."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from overnight.core.states import TaskState
from overnight.errors import BadSeal
from overnight.keyring import KEY_FILE_VARIABLE, KEY_VARIABLE, Keyring
from overnight.state_dir import wait_until
from overnight.task import Task
from tests.support import worker_tasks as tasks
from tests.support.servers import running_server, server_binary
from tests.support.small_scheduler import Plan, SmallScheduler, worker
from tests.support.snooping import look

#: The rights of root to look into any process.
_LOOKING = "-sys_ptrace,-perfmon,-sys_admin"
OLD, NEW = Keyring((b"o" * 32,)), Keyring((b"n" * 32,))
BOTH = Keyring((*NEW.keys, *OLD.keys))


@contextmanager
def as_any_user(url: str, directory: Path, *words: str, **environment: str) -> Iterator[None]:
    """Run a worker without what root alone may do: look into every process."""
    command = [sys.executable, "-m", "overnight_worker", *words]
    if os.geteuid() == 0:
        command = ["setpriv", f"--bounding-set={_LOOKING}", f"--inh-caps={_LOOKING}", *command]
    variables = {"OVERNIGHT_REDIS_URL": url, "OVERNIGHT_STATE_DIR": str(directory / "state"), **environment}
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, env={**os.environ, **variables}, stdout=log, stderr=log, cwd=directory)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems show no process to another")
@pytest.mark.parametrize("by", [KEY_VARIABLE, KEY_FILE_VARIABLE])
def test_a_task_finds_no_key_and_no_password(tmp_path: Path, by: str) -> None:
    """M6, H2: not in its environment, arguments, descriptors, nor in the workers above it, two with -j."""
    key, password = secrets.token_hex(32), secrets.token_hex(16)
    (tmp_path / "the.key").write_text(key)
    (tmp_path / "the.key").chmod(0o600)
    given = {by: key if by == KEY_VARIABLE else str(tmp_path / "the.key")}
    with (
        tempfile.TemporaryDirectory(prefix="ov-") as directory,
        running_server(server_binary("valkey"), Path(directory) / "s", password=password) as url,
    ):
        run = SmallScheduler(url, keyring=Keyring((bytes.fromhex(key),)))
        run.submit([Plan(look, ([key[::-1], password[::-1]],))], tmp_path)
        with as_any_user(url, tmp_path, "-j", "2", **given):
            run.dispatch(0)
            run.wait_ended()
        run.close()
        assert run_result(url, run) == (2, True, [])
    log = (tmp_path / "log").read_text()
    assert key not in log
    assert password not in log


def run_result(url: str, run: SmallScheduler) -> object:
    """The result of the first task, or its failure."""
    again = SmallScheduler(url, keyring=run.keyring, run_id=run.run_id)
    again.plans = run.plans
    try:
        return again.result(0) if again.state(0) is TaskState.DONE else again.error(0)
    finally:
        again.close()


def key_file(path: Path, ring: Keyring) -> dict[str, str]:
    path.write_text("\n".join(key.hex() for key in ring.keys))
    path.chmod(0o600)
    return {KEY_FILE_VARIABLE: str(path)}


def test_a_key_is_replaced_and_revoked_during_a_run(redis_url: str, tmp_path: Path) -> None:
    """H3: the new key first, then it alone; who has it alone takes nothing of a run of the old one, and says so."""
    run = SmallScheduler(redis_url, keyring=OLD)
    chain = [Plan(tasks.plus, (Task(str(number)), 1), (number,)) for number in range(3)]
    run.submit([Plan(tasks.answer), *chain], tmp_path)
    with worker(redis_url, tmp_path, **key_file(tmp_path / "key", OLD)):
        run.dispatch(0)
        run.wait_ended(0)
    with worker(redis_url, tmp_path, **key_file(tmp_path / "key", BOTH)):
        run.dispatch(1)
        run.wait_ended(1)
        run.dispatch(2)
        run.wait_ended(2)
    with pytest.raises(BadSeal, match="known key"):
        run.stored(2)
    run.keyring = BOTH
    assert [run.result(task) for task in range(3)] == [42, 43, 44]
    with worker(redis_url, tmp_path, **key_file(tmp_path / "key", NEW)) as revoked:
        run.dispatch(3)
        assert wait_until(lambda: revoked.said("cannot be opened with this worker's keys"), 30)
        assert revoked.said("Give clients, schedulers and workers the same OVERNIGHT_SECRET_KEY")
        assert run.state(3) is TaskState.QUEUED
        replay(run, redis_url, tmp_path)
    run.close()


def replay(run: SmallScheduler, redis_url: str, directory: Path) -> None:
    """M7: yesterday's messages and results, put into today's run, start and prove nothing."""
    today = SmallScheduler(redis_url, keyring=NEW)
    today.submit([Plan(tasks.answer), Plan(tasks.plus, (Task("0"), 1), (0,))], directory)
    old, new = (f"{{overnight}}:run:{run_id}:" for run_id in (run.run_id, today.run_id))
    for name in ("messages", "results"):
        for field, value in run.client.hgetall(old + name).items():
            if name != "messages" or field == b"1":
                run.client.hset(new + name, field, value)
    run.client.setrange(new + "digests", 0, bytes(32))
    today.dispatch(0)
    today.wait_ended(0)
    assert today.result(0) == 42
    today.dispatch(1)
    today.wait_ended(1)
    assert "refused" in str(today.error(1))
    assert today.state(1) is not TaskState.DONE
    today.close()
