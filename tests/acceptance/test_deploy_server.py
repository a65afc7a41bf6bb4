"""A real server with the shipped configuration, rules and certificate, and what works through it: users, Slurm, nights.

The paths of the README lie in a test's directory here; nothing else of the files is changed. No root is needed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from overnight.state_dir import wait_until
from tests.support.acl import OPERATOR, ROLES
from tests.support.command import ROOT, Desk, desk, finished
from tests.support.deploy import DEPLOY, documents, readme_steps, unit_lines
from tests.support.ledgers import read_ledger
from tests.support.servers import free_port

GRAPHS = "tests.support.graphs"
SECONDS = 90.0
pytestmark = [
    pytest.mark.skipif(
        shutil.which("redis-server") is None, reason="Valkey of the wheel has no TLS: apt-get install redis"
    ),
    pytest.mark.timeout(240),
]


@dataclass(frozen=True)
class Secured:
    """A running server: the directory that stands for /etc/overnight, and the port."""

    directory: Path
    port: int

    def url(self, role: str) -> str:
        """The address of a role, as its file has it."""
        return self.variables(role)["OVERNIGHT_REDIS_URL"]

    def variables(self, role: str) -> dict[str, str]:
        lines = (self.directory / f"{role}.env").read_text(encoding="utf-8").splitlines()
        return dict(line.split("=", 1) for line in lines)

    def connect(self, role: str) -> redis.Redis:
        return redis.Redis.from_url(self.url(role))

    def start(self, place: Desk, role: str, *words: str) -> subprocess.Popen[str]:
        """Start a command with the file of a role."""
        place.environ |= self.variables(role)
        return place.start(*words)


@pytest.fixture(scope="module")
def secured(short_directory: Path) -> Iterator[Secured]:
    """The server of the README, on the loopback."""
    directory, port = short_directory / "secured", free_port()
    (directory / "data").mkdir(parents=True)
    steps = {name: text for _, name, text in readme_steps()}
    script = "\n".join(
        [steps["settings"], f"SERVER=127.0.0.1:{port} DEPLOY={DEPLOY}", steps["certificate"], steps["passwords"]]
    )
    script = script.replace("/etc/overnight", str(directory))
    made = subprocess.run(["/bin/sh", "-euc", script], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    conf = (directory / "redis.conf").read_text(encoding="utf-8")
    changes = {"/etc/overnight": str(directory), "/var/lib/overnight-redis": f"{directory}/data", "6380": str(port)}
    for old, new in {**changes, "bind * -::*": "bind 127.0.0.1"}.items():
        assert old in conf
        conf = conf.replace(old, new)
    (directory / "redis.conf").write_text(conf, encoding="utf-8")
    log = directory / "redis.log"
    with log.open("wb") as output:
        process = subprocess.Popen(["redis-server", directory / "redis.conf"], stdout=output, stderr=output)
    given = Secured(directory, port)
    try:
        assert wait_until(lambda: _answers(given) or process.poll() is not None, 30)
        assert process.poll() is None, log.read_text(encoding="utf-8")
        yield given
    finally:
        process.terminate()
        process.wait(SECONDS)


def _answers(server: Secured) -> bool:
    try:
        with server.connect(OPERATOR) as client:
            return bool(client.ping())
    except redis.ConnectionError:
        return False


@pytest.fixture
def place(secured: Secured, tmp_path: Path) -> Iterator[Desk]:
    """A desk with a scheduler; what is typed there is the client's."""
    with desk(tmp_path / "desk") as given, running(secured, given, "scheduler", "scheduler"):
        given.environ |= secured.variables("client")
        yield given


@contextmanager
def running(secured: Secured, place: Desk, role: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A process under a role, ended with the context."""
    with ExitStack() as stack:
        process = secured.start(place, role, *words)
        stack.callback(finished, process)
        stack.callback(process.terminate)
        yield process


def test_the_demo_runs_under_three_users_and_nothing_needed_is_refused(secured: Secured, place: Desk) -> None:
    with running(secured, place, "worker", "worker", "-j", "2"):
        place.environ |= secured.variables("client")
        told = place.run("demo", "--limit", "40")
    assert (told.status, told.err) == (0, "")
    with secured.connect(OPERATOR) as client:
        refused = {(entry["username"], entry["object"]) for entry in client.acl_log(100)}
        facts = client.info()
        policy = client.config_get("maxmemory-policy")
    assert {what for _, what in refused} <= {"info", "config|get", "client|setinfo", "hello"}
    assert (facts["aof_enabled"], policy) == (1, {"maxmemory-policy": "noeviction"})


def test_every_role_has_its_own_address_and_the_same_key(secured: Secured) -> None:
    everybody = [secured.variables(role) for role in (*ROLES, OPERATOR)]
    assert len({variables["OVERNIGHT_REDIS_URL"] for variables in everybody}) == len(everybody)
    assert len({variables["OVERNIGHT_SECRET_KEY"] for variables in everybody}) == 1


# KEDA.

#: Tasks that wait for a file.
HELD = """\
from overnight import TaskGraph
from tests.support.worker_tasks import wait_for_file

def build(*, path: str, n: int) -> TaskGraph:
    graph = TaskGraph()
    for number in range(n):
        graph.create_task(f"held {number}", wait_for_file, args=[path])
    return graph
"""


def keda_script() -> str:
    """What KEDA's scaler for Redis evaluates: its source is named in the schemas that are kept of it."""
    return """
        local listName = KEYS[1]
        local listType = redis.call('type', listName).ok
        if listType == 'zset' then
            return redis.call('zcard', listName)
        elseif listType == 'set' then
            return redis.call('scard', listName)
        elseif listType == 'hash' then
            return redis.call('hlen', listName)
        elseif listType == 'list' or listType == 'none' then
            return redis.call('llen', listName)
        else
            return redis.error_reply('ERR unsupported key type: ' .. listType)
        end
    """


def wanted_by_keda(secured: Secured) -> int:
    """How many workers the ScaledObject would have now, by its own triggers and formula."""
    scaled = next(one for one in documents(DEPLOY / "kubernetes" / "keda.yaml") if one["kind"] == "ScaledObject")
    values = {}
    with secured.connect("scaler") as client:
        for trigger in scaled["spec"]["triggers"]:
            reply = client.eval(keda_script(), 1, trigger["metadata"]["listName"])
            values[trigger["name"]] = int(reply)
    modifiers = scaled["spec"]["advanced"]["scalingModifiers"]
    terms = modifiers["formula"].split(" + ")
    assert modifiers["target"] == "1"
    assert set(terms) == set(values)
    most: int = scaled["spec"]["maxReplicaCount"]
    return min(most, sum(values[term] for term in terms))


def test_keda_starts_more_workers_while_there_is_work_and_stops_them_after_it(secured: Secured, place: Desk) -> None:
    (place.directory / "held.py").write_text(HELD, encoding="utf-8")
    gate = place.directory / "gate"
    assert wanted_by_keda(secured) == 0
    assert place.run("submit", "held.py:build", "-p", f"path={gate}", "-p", "n=12", "--json").status == 0
    assert wait_until(lambda: wanted_by_keda(secured) == 2, SECONDS), "without a worker there is work for the first"
    with ExitStack() as stack:
        for expected in (4, 8):  # or more: an entry that is taken slowly is put on the queue once more
            stack.enter_context(running(secured, place, "worker", "worker", "-j", "2"))
            assert wait_until(lambda expected=expected: wanted_by_keda(secured) >= expected, SECONDS), expected  # type: ignore[misc]
        gate.touch()
        place.environ |= secured.variables("client")
        assert place.run("follow", "last").status == 0
        assert wait_until(lambda: wanted_by_keda(secured) == 0, SECONDS)


# Slurm.


def test_workers_of_a_slurm_job_join_a_queue_and_drain_before_its_time_is_over(secured: Secured, place: Desk) -> None:
    """`srun` is a stand-in that runs its command here; SIGTERM is what Slurm sends ten minutes before the end."""
    fifo, ledger = place.directory / "fifo", place.directory / "ledger"
    os.mkfifo(fifo)
    job = slurm_job(secured, place.directory)
    try:
        place.environ |= secured.variables("client")
        gated = ["-p", f"fifo={fifo}", "-p", f"ledger={ledger}", "-p", "n=5", "-q", "big", "--json"]
        assert place.run("submit", f"{GRAPHS}:gated", *gated).status == 0
        gate = os.open(fifo, os.O_WRONLY)  # the first task runs
        facts = place.run("workers", "--json").facts
        assert {(one["host"], *one["queues"]) for one in facts} == {("node17", "big")}
        job.send_signal(signal.SIGTERM)
        assert wait_until(lambda: any(one["draining"] for one in place.run("workers", "--json").facts), SECONDS)
        assert job.poll() is None, "it ended before its task had"
        os.close(gate)
        assert job.wait(SECONDS) == 0
        assert place.run("workers", "--json").facts == []
        ended = [task for event, task in read_ledger(ledger) if event == "end"]
        assert ended == ["gate"]
        with running(secured, place, "worker", "worker", "-q", "big"):
            place.environ |= secured.variables("client")
            assert place.run("follow", "last").status == 0
        starts = [task for event, task in read_ledger(ledger) if event == "start"]
        assert len(starts) == len(set(starts)), "nothing ran twice"
    finally:
        with suppress(ProcessLookupError):  # nothing of it is left, as it should be
            os.killpg(job.pid, signal.SIGKILL)
        job.wait()


def slurm_job(secured: Secured, directory: Path) -> subprocess.Popen[bytes]:
    """Start the batch script as Slurm would, on a node without a cluster."""
    (directory / "bin").mkdir()
    (directory / "bin" / "srun").write_text('#!/bin/bash\n[ "$1" = --ntasks=1 ] || exit 64\nshift\nexec "$@"\n')
    (directory / "bin" / "srun").chmod(0o755)
    environment = {
        "PATH": f"{directory / 'bin'}:{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(directory),
        "PYTHONPATH": str(ROOT),
        "OVERNIGHT_ENV": str(secured.directory / "worker.env"),
        "SLURM_JOB_ID": "42",
        "SLURM_CPUS_PER_TASK": "1",
        "SLURMD_NODENAME": "node17",
        "QUEUE": "big",
    }
    script = ["/bin/bash", str(DEPLOY / "slurm" / "workers.sbatch")]
    with (directory / "job.log").open("wb") as log:
        return subprocess.Popen(script, env=environment, cwd=directory, stderr=log, start_new_session=True)


def test_the_slurm_script_drains_for_less_than_slurm_gives_it() -> None:
    text = (DEPLOY / "slurm" / "workers.sbatch").read_text(encoding="utf-8")
    given, drained = re.search(r"--signal=B:TERM@(\d+)", text), re.search(r"DRAIN_SECONDS:-(\d+)", text)
    assert given is not None
    assert drained is not None
    assert int(drained[1]) < int(given[1])


# Every night.

PIPELINE = """\
from pathlib import Path
from overnight import TaskGraph

def note(name, _before=None):
    with Path("nights.txt").open("a") as file:
        file.write(name + "\\n")

def build():
    graph = TaskGraph()
    first = graph.create_task("first", note, args=["first"])
    graph.create_task("second", note, args=["second", first])
    return graph
"""


@pytest.fixture
def pipeline(secured: Secured, place: Desk) -> Iterator[Desk]:
    """A desk with a pipeline of two tasks, and a worker."""
    (place.directory / "pipeline.py").write_text(PIPELINE, encoding="utf-8")
    with running(secured, place, "worker", "worker"):
        place.environ |= secured.variables("client")
        yield place


def is_done(place: Desk) -> bool:
    nights = place.directory / "nights.txt"
    return nights.exists() and nights.read_text(encoding="utf-8") == "first\nsecond\n"


def test_the_service_of_the_timer_runs_the_pipeline_once(secured: Secured, pipeline: Desk) -> None:
    """systemd does not run here: its command line does, with the environment that the unit gives it."""
    name = "overnight-nightly.service"
    environment = dict(line.split("=", 1) for line in unit_lines(name, "Environment"))
    environment |= {"PIPELINE": "pipeline.py:build", "OVERNIGHT_STATE_DIR": str(pipeline.state_dir)}
    environment |= {"PATH": os.environ["PATH"], **secured.variables("client")}
    [command] = unit_lines(name, "ExecStart")
    words = (
        command.replace("${PIPELINE}", environment["PIPELINE"])
        .replace("/srv/overnight", str(pipeline.directory))
        .split()
    )
    assert words[0] == "/opt/overnight/bin/overnight"
    told = [
        subprocess.run(
            [sys.executable, "-P", "-m", "overnight.commands", *words[1:]],
            cwd=pipeline.directory, env=environment, capture_output=True, text=True, check=True,
        ).stdout
        for _ in range(2)
    ]  # fmt: skip
    assert is_done(pipeline)
    assert "Nothing to do" in told[1]


def test_rqs_own_cron_submits_the_pipeline(secured: Secured, pipeline: Desk, short_directory: Path) -> None:
    """A plain RQ of one's own: its scheduler, told to go off each second, and a worker of its queue."""
    from tests.support.servers import running_server, server_binary

    scripts = Path(sys.executable).parent
    environment = {"PATH": f"{scripts}:/usr/bin:/bin", "NIGHTLY": "* * * * * *", "PIPELINE": "pipeline.py:build"}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(DEPLOY / "rq")}
    environment |= {"OVERNIGHT_STATE_DIR": str(pipeline.state_dir)}
    environment |= secured.variables("client")
    with running_server(server_binary("valkey"), short_directory / "rq", tcp=True) as url, ExitStack() as stack:
        for words in (["cron", "nightly", "--url", url], ["worker", "nightly", "--url", url]):
            process = subprocess.Popen([scripts / "rq", *words], cwd=pipeline.directory, env=environment)
            stack.callback(process.wait, SECONDS)
            stack.callback(process.kill)
        assert wait_until(lambda: is_done(pipeline), SECONDS)


def test_the_log_of_rqs_worker_says_why_nothing_was_submitted(tmp_path: Path) -> None:
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PIPELINE": "missing.py:build"}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(DEPLOY / "rq")}
    words = [sys.executable, "-c", "import nightly; nightly.submit()"]
    told = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert told.returncode != 0
    assert "overnight: There is no file 'missing.py'." in told.stderr, told.stderr


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("cron") or not shutil.which("unshare"),
    reason="cron is started with a /etc/cron.d of its own, which takes root, unshare and cron (apt-get install cron)",
)
def test_cron_runs_the_pipeline(secured: Secured, pipeline: Desk, tmp_path: Path) -> None:
    """The shipped line, with another time and other places, under a real cron that sees no other table."""
    text = (DEPLOY / "cron" / "overnight").read_text(encoding="utf-8")
    changes = {
        "0 22 * * * overnight": "* * * * * root",
        "/etc/overnight": str(secured.directory),
        "/srv/overnight": str(pipeline.directory),
        "/opt/overnight/bin": str(Path(sys.executable).parent),
    }
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    for name in ("cron.d", "crontabs", "run"):
        (tmp_path / name).mkdir()
    table = tmp_path / "cron.d" / "overnight"
    table.write_text(text, encoding="utf-8")
    table.chmod(0o644)
    (tmp_path / "crontab").write_text("")
    binds = {"cron.d": "/etc/cron.d", "crontab": "/etc/crontab", "crontabs": "/var/spool/cron/crontabs", "run": "/run"}
    script = "".join(f"mount --bind {tmp_path / own} {there}\n" for own, there in binds.items()) + "exec cron -f"
    words = ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-euc", script]
    log = tmp_path / "cron.log"
    with log.open("wb") as output:
        process = subprocess.Popen(words, stdout=output, stderr=output)
    try:
        assert wait_until(lambda: is_done(pipeline), 150), log.read_text()
    finally:
        process.kill()
        process.wait()
    assert json.loads(pipeline.run("runs", "--json").out)["runs"][0]["phase"] == "succeeded"
