"""Servers that cannot be used, and keys and versions that do not fit (ADVERSITY 7, rows 39, 40, 47 to 50 and 54)."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import redis

from overnight.store.keys import SCHEMA
from tests.support.command import Desk
from tests.support.servers import connect, free_port, running_server, server_binary

GRAPH = "tests.support.graphs:diamond"
PASSWORD = "canary"


@pytest.fixture(scope="module")
def server(short_directory: Path) -> Iterator[str]:
    """``host:port`` of a server with a password, which other hosts could reach too."""
    with running_server(
        server_binary("valkey"), short_directory / "bad-server", tcp=True, password=PASSWORD, bind="0.0.0.0"
    ) as url:
        yield url.rpartition("@")[2].removesuffix("/0")


@pytest.fixture
def admin(server: str) -> Iterator[redis.Redis]:
    """A connection to that server; what a test changes there is put right."""
    with connect(f"redis://:{PASSWORD}@{server}/0") as connection:
        yield connection
        connection.replicaof("NO", "ONE")
        connection.config_set("maxmemory-policy", "noeviction")
        connection.config_set("maxclients", 1000)
        connection.flushall()


def desk_for(directory: Path, url: str) -> Desk:
    given = Desk(directory)
    given.environ |= {"OVERNIGHT_REDIS_URL": url, "OVERNIGHT_CONNECT_SECONDS": "0.5"}
    return given


@dataclass(frozen=True)
class Unfit:
    """What is done to the server, under which URL it is then named (``@`` stands for host and port), what follows."""

    prepare: Callable[[redis.Redis], object]
    url: str
    status: int
    sentence: str


def nothing(_admin: redis.Redis) -> None:
    return None


def limit_clients(admin: redis.Redis) -> None:
    """Leave no room for another client than this one."""
    admin.config_set("maxclients", 1)


UNFIT = {
    "row 47: nothing listens": Unfit(nothing, "redis://:canary@127.0.0.1:1/0", 4, "connection refused"),
    "row 47: no such host": Unfit(nothing, "redis://:canary@no-such-host.invalid/0", 4, "host name"),
    "row 47: no such socket": Unfit(nothing, "unix:///no/such/socket", 4, "does not exist"),
    "row 48: a wrong password": Unfit(nothing, "redis://:canary2@@/0", 4, "password is wrong"),
    "row 48: no password": Unfit(nothing, "redis://@/0", 4, "demands a password"),
    "row 48: TLS to a plain port": Unfit(nothing, "rediss://:canary@@/0", 4, "TLS"),
    "row 48: access rules that lack a command": Unfit(
        lambda admin: admin.acl_setuser(
            "lacking", enabled=True, passwords=["+canary"], keys=["*"], commands=["+@all", "-evalsha"]
        ),
        "redis://lacking:canary@@/0",
        4,
        "evalsha",
    ),
    "row 49: a replica": Unfit(
        lambda admin: admin.replicaof("127.0.0.1", str(free_port())),
        "redis://:canary@@/0",
        5,
        "It is a replica: name its primary",
    ),
    "row 49: a server that evicts": Unfit(
        lambda admin: admin.config_set("maxmemory-policy", "volatile-lru"),
        "redis://:canary@@/0",
        5,
        "set `maxmemory-policy noeviction`",
    ),
    "row 54: no room for another client": Unfit(limit_clients, "redis://:canary@@/0", 4, "maxclients"),
}


@pytest.mark.parametrize("unfit", UNFIT.values(), ids=UNFIT.keys())
def test_a_server_that_cannot_be_used_is_one_sentence(
    server: str, admin: redis.Redis, tmp_path: Path, unfit: Unfit
) -> None:
    unfit.prepare(admin)
    url = unfit.url.replace("@@", f"@{server}").replace("//@", f"//{server}")
    found = desk_for(tmp_path, url).run("run", GRAPH)
    assert found.status == unfit.status
    assert unfit.sentence in found.sentence
    assert "canary" not in found.err + found.out
    assert not (tmp_path / ".overnight" / "server").exists()


def test_keys_of_another_schema_are_refused_and_left_alone(server: str, admin: redis.Redis, tmp_path: Path) -> None:
    """Row 50: a stranger's keys in the same database too."""
    admin.set("stranger", "untouched")
    admin.hset("{overnight}:scheduler", "schema", str(SCHEMA + 1))
    before = {key: admin.dump(key) for key in admin.keys("*")}
    found = desk_for(tmp_path, f"redis://:{PASSWORD}@{server}/0").run("scheduler")
    assert found.status == 5
    assert f"have schema {SCHEMA + 1}" in found.err
    assert "Choose another OVERNIGHT_PREFIX" in found.err
    assert "Traceback" not in found.err
    assert {key: admin.dump(key) for key in admin.keys("*")} == before


def beyond_loopback() -> str:
    """An address of this host that is not loopback."""
    addresses = [one for each in psutil.net_if_addrs().values() for one in each if one.family is socket.AF_INET]
    found = [one.address for one in addresses if not one.address.startswith("127.")]
    if not found:
        pytest.skip("This host has no address but its loopback's.")
    return str(found[0])


@pytest.mark.parametrize("verb", ["run", "submit", "scheduler", "worker"])
def test_records_for_a_server_beyond_this_host_need_a_key(server: str, tmp_path: Path, verb: str) -> None:
    """Row 39, ADVERSITY 8: without one, whoever can write to the server could become a submitter."""
    url = f"redis://:{PASSWORD}@{beyond_loopback()}:{server.rpartition(':')[2]}/0"
    given = desk_for(tmp_path, url)
    found = given.run(verb, *([GRAPH] if verb in ("run", "submit") else []))
    assert found.status == 2, found.err
    told = [line for line in found.err.splitlines() if line.startswith("overnight") and "no key is set" in line]
    assert len(told) == 1, found.err
    assert "secrets.token_hex" in told[0]
    assert "canary" not in found.err
    assert given.run("status").status == 5, "what reads needs no key, and finds no run"


KEYS = {
    "readable by others": (b"00" * 32, 0o644, "chmod 600"),
    "empty": (b"", 0o600, "holds no key"),
    "of 3 bytes": (b"000000", 0o600, "a key of 3 bytes"),
    "no key at all": (b"what a key\n", 0o600, "neither hex nor base64"),
}


@pytest.mark.parametrize("kind", KEYS)
def test_an_unfit_key_file_is_refused_with_the_command_that_mends_it(tmp_path: Path, kind: str) -> None:
    """Row 40."""
    content, mode, sentence = KEYS[kind]
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(mode)
    given = Desk(tmp_path)
    given.environ["OVERNIGHT_SECRET_KEY_FILE"] = str(path)
    found = given.run("run", GRAPH)
    assert found.status == 2
    assert sentence in found.sentence
    assert mode != 0o600 or "secrets.token_hex" in found.sentence
