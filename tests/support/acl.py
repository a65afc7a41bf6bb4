"""Servers that are guarded by the shipped `deploy/users.acl`, with the passwords that the README's command makes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from tests.support.servers import connect, running_server, server_binary

DEPLOY = Path(__file__).parents[2] / "deploy"
ROLES = ("client", "scheduler", "worker", "reader", "scaler")
#: Who may ask the server about itself, which counts as dangerous.
OPERATOR = "operator"


@dataclass(frozen=True)
class Guarded:
    """A server under the shipped rules: the URL of each role, and a connection that may do all."""

    urls: dict[str, str]
    admin: redis.Redis

    def answer(self, role: str, *command: str) -> str:
        """What the server would say to a command of a role: ``OK``, or why it is refused."""
        reply = self.admin.execute_command("ACL DRYRUN", role, *command)  # type: ignore[no-untyped-call]
        return reply.decode() if isinstance(reply, bytes) else str(reply)


def command_of_the_readme() -> str:
    """The command that makes passwords, as people copy it."""
    text = (DEPLOY / "README.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- passwords -->\n```sh\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


def make_passwords(directory: Path) -> dict[str, str]:
    """Copy the rules to a directory and make passwords there; return the URL that each role was given."""
    shutil.copy(DEPLOY / "users.acl", directory)
    environment = {"PATH": os.environ["PATH"], "SERVER": "the-server:1"}
    subprocess.run(["/bin/sh", "-euc", command_of_the_readme()], cwd=directory, env=environment, check=True)
    lines = {role: (directory / f"{role}.env").read_text().splitlines()[0] for role in (*ROLES, OPERATOR)}
    return {role: line.removeprefix("OVERNIGHT_REDIS_URL=") for role, line in lines.items()}


@contextmanager
def guarded_server(kind: str, directory: Path) -> Iterator[Guarded]:
    """Run a server under the shipped rules, to which an administrator is added."""
    directory.mkdir()
    given = make_passwords(directory)
    rules = directory / "users.acl"
    rules.write_text(rules.read_text().replace("user default off resetpass", "user default on nopass"))
    with running_server(server_binary(kind), directory / "s", aclfile=str(rules)) as url, connect(url) as admin:
        yield Guarded(urls_at(url, given), admin)


def urls_at(url: str, given: dict[str, str]) -> dict[str, str]:
    """Return the URL of each role on the server at a socket, by what `make_passwords` has given."""
    secrets = {
        role: re.sub(r"rediss://(.*)@the-server:1/0\?ssl_ca_certs=/etc/overnight/ca\.crt", r"\1", address)
        for role, address in given.items()
    }
    return {role: url.replace("unix://", f"unix://{secret}@") for role, secret in secrets.items()}
