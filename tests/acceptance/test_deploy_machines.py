"""The README of `deploy/`, followed to the letter on two machines with networks and files of their own.

The server demands TLS and passwords; each part has its own user. `ssh` and `scp` alone are stand-ins: they reach the
other machine without a network.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from overnight.state_dir import wait_until
from tests.support.command import ROOT
from tests.support.deploy import readme_steps
from tests.support.machines import Machine, lacks, machines

pytestmark = [pytest.mark.skipif(lacks() is not None, reason=str(lacks())), pytest.mark.timeout(300)]

SERVER, NODE = "db.example", "node1.example"
SHARED = "/srv/overnight"
#: `ssh HOST WORD...` and `scp -p FILE... HOST:DIR/` by the namespaces of the machine that is HOST.
SSH = """#!/bin/sh
set -eu
pid=$(cat "$MACHINES/$1.pid"); shift
exec nsenter --target="$pid" --net --mount "$@"
"""
SCP = """#!/bin/sh
set -eu
shift
for last; do :; done
host=${last%%:*}; directory=${last#*:}
for file; do
  [ "$file" = "$last" ] || ssh "$host" sh -c 'umask 077; cat >"$1"' sh "$directory$(basename "$file")" <"$file"
done
"""


@dataclass
class Walk:
    """Somebody who follows the README: what was typed so far on each machine, and what it printed."""

    directory: Path
    places: dict[str, Machine]
    settings: str = ""
    printed: dict[str, str] = field(default_factory=dict)

    def environment(self, machine: Machine) -> dict[str, str]:
        own = self.directory / machine.name / "home"
        if not (own / "overnight").exists():
            (own / "overnight").symlink_to(ROOT)
        path = f"{self.directory / 'bin'}:{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
        return {"PATH": path, "HOME": str(own), "MACHINES": str(self.directory), "OVERNIGHT_HOST_NAME": machine.name}

    def type(self, where: str, name: str, text: str) -> None:
        """Type the commands of a step; they must succeed. What `settings` sets holds on, as in one shell."""
        if name == "settings":
            self.settings = text
            return
        machine = self.places[where]
        if name == "passwords":
            text = f"cd /etc/overnight\n{text}"
        log = self.directory / f"{where}-{name}.out"
        status = machine.run(self.settings + text if where == "server" else text, log, self.environment(machine))
        self.printed[name] = log.read_text(encoding="utf-8", errors="replace")
        assert status == 0, f"{where}: {name}\n{text}\n{self.printed[name]}\n{self.logs()}"

    def logs(self) -> str:
        found = [*(self.directory / "shared").glob("*.log"), *self.directory.glob("db.example/var-lib/upper/*/*.log")]
        return "\n".join(f"== {path.name}\n{path.read_text('utf-8', 'replace')[-3000:]}" for path in found)

    def file(self, machine: str, path: str) -> Path:
        """A file of a machine, as it is seen from here."""
        return Path(f"/proc/{self.places[machine].holder.pid}/root{path}")


@pytest.fixture(scope="module")
def walk(short_directory: Path) -> Iterator[Walk]:
    """The README, followed to its end by hand."""
    directory = short_directory / "walk"
    directory.mkdir()
    (directory / "bin").mkdir()
    for name, text in (("ssh", SSH), ("scp", SCP)):
        (directory / "bin" / name).write_text(text, encoding="utf-8")
        (directory / "bin" / name).chmod(0o755)
    with ExitStack() as stack:
        try:
            server, node = stack.enter_context(machines(directory, SHARED, SERVER, NODE))
        except OSError as error:
            pytest.skip(f"this machine makes no others: {error}")
        for machine in (server, node):
            (directory / f"{machine.name}.pid").write_text(str(machine.holder.pid))
        given = Walk(directory, {"server": server, "node": node})
        where = "server"
        for on, name, text in readme_steps():
            where = on or where
            given.type(where, name, text)
            if name == "worker":
                assert wait_until(lambda: _registered(given) == 2, 60), given.logs()
        yield given


def _registered(walk: Walk) -> int:
    """How many workers say that they take tasks: what a person sees in their log before going on."""
    return sum(
        path.read_text("utf-8").count("takes tasks from") for path in (walk.directory / "shared").glob("worker-*")
    )


def test_the_demo_runs_on_the_other_machine(walk: Walk) -> None:
    assert " succeeded after " in walk.printed["run"]
    assert "It is in /srv/overnight/census" in walk.printed["run"]
    assert (walk.directory / "shared" / "census" / "census.html").exists()
    rows = [line for line in walk.printed["run"].splitlines() if line.startswith(NODE)]
    assert len(rows) == 2, walk.printed["run"]
    assert "succeeded" in walk.printed["read"]


def test_doctor_finds_nothing_wrong(walk: Walk) -> None:
    told = walk.printed["look"].splitlines()
    assert f"ok       directory: {SHARED} can be written to by the workers on {NODE}" in told
    assert "ok       persistence: append-only file, synced everysec" in told
    assert any(line.startswith("ok       eviction: none") for line in told)
    assert any(line.startswith("ok       scheduler: ") for line in told)
    assert [line for line in told if line.startswith("fault")] == []
    assert [line for line in told if "unknown" in line] == []
    warnings = [line for line in told if line.startswith("warning")]
    assert all("unless its vendor patched it" in line for line in warnings), warnings
    [not_told] = [line for line in told if "may not ask the server" in line]
    assert not_told.startswith("note     persistence, eviction, memory: not looked at, as this user ")


def test_nothing_is_said_in_the_clear_or_without_a_password(walk: Walk) -> None:
    node = walk.places["node"]
    probe = walk.directory / "probe.out"

    def told(*words: str) -> str:
        probe.unlink(missing_ok=True)
        node.run(" ".join(words) + " || true", probe, walk.environment(node))
        return probe.read_text(encoding="utf-8")

    tls = "redis-cli -h db.example -p 6380 --tls --cacert /etc/overnight/ca.crt"
    assert "NOAUTH" in told(tls, "ping")
    assert "PONG" not in told("redis-cli -h db.example -p 6380 ping")
    assert "Connection refused" in told("redis-cli -h db.example -p 6379 ping")
    url = "OVERNIGHT_CONNECT_SECONDS=1 OVERNIGHT_REDIS_URL=rediss://client:wrong@db.example:6380/0"
    assert "not trusted (self-signed certificate in certificate chain)" in told(url, "overnight runs")
    plain = url.replace("rediss://", "redis://")
    assert "it closed the connection; perhaps it speaks TLS alone (rediss://)" in told(plain, "overnight runs")
    assert "user name or password is wrong" in told(f"{url}?ssl_ca_certs=/etc/overnight/ca.crt", "overnight runs")


def test_secrets_are_readable_by_their_owner_alone(walk: Walk) -> None:
    for machine in ("server", "node"):
        for path in walk.file(machine, "/etc/overnight").iterdir():
            if path.suffix in (".env", ".key", ".acl"):
                assert path.stat().st_mode & 0o077 == 0, path
    assert not walk.file("node", "/etc/overnight/ca.key").exists()
    assert not walk.file("node", "/etc/overnight/scheduler.env").exists()


def test_what_is_no_secret_is_readable_by_the_users_of_services_and_containers(walk: Walk) -> None:
    """A server that systemd or a container runs as its own user is given the secrets, and reads the rest as anybody."""
    for name in ("redis.conf", "redis.crt", "ca.crt"):
        assert walk.file("server", f"/etc/overnight/{name}").stat().st_mode & 0o004, name


def test_the_certificate_is_one_that_strict_clients_take(walk: Walk) -> None:
    log = walk.directory / "verify.out"
    words = "openssl verify -x509_strict -verify_hostname db.example -CAfile ca.crt redis.crt"
    server = walk.places["server"]
    assert server.run(f"cd /etc/overnight && {words}", log, walk.environment(server)) == 0, log.read_text()


def test_this_machine_keeps_nothing_of_the_others(walk: Walk) -> None:
    assert walk.file("server", "/etc/overnight/redis.crt").exists()
    assert not Path("/etc/overnight/redis.crt").exists()
    assert not Path("/var/lib/overnight-redis/appendonlydir").exists()
