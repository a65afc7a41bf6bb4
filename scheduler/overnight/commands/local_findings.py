"""What `doctor` finds on this host: versions, state directory, disk, key, server program."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from overnight.commands.findings import FAULT, OK, WARNING, Finding
from overnight.naming import shown

if TYPE_CHECKING:
    from overnight.config import Settings

#: With less free space than this a night of logs and records may fill a disk.
LEAST_FREE_BYTES = 1_000_000_000


def versions() -> Finding:
    """Tell what runs here."""
    from overnight.wire import PROTOCOL

    python = ".".join(map(str, sys.version_info[:3]))
    names = ", ".join(f"{name} {version(name)}" for name in ("redis", "rq", "cloudpickle"))
    return Finding("versions", OK, f"overnight {version('overnight')}, protocol {PROTOCOL}, Python {python}, {names}")


def state_directory(settings: Settings) -> Finding:
    """Tell whether the state directory can be written to."""
    from overnight.state_dir import prepare_state_dir

    place = settings.state_dir.expanduser().absolute()
    near = nearest_existing(place)
    if place != near and os.access(near, os.W_OK | os.X_OK):
        return Finding("state directory", OK, f"{shown(str(place))} is made by the first run")
    if place == near:
        prepare_state_dir(place)
    if not os.access(near, os.W_OK | os.X_OK):
        return Finding("state directory", FAULT, f"{shown(str(near))} cannot be written to: give --state-dir", 4)
    return Finding("state directory", OK, shown(str(place)))


def nearest_existing(place: Path) -> Path:
    """Return a path, or the nearest one above it that exists."""
    return next(path for path in (place, *place.parents) if path.exists())


def directory(name: str) -> Finding:
    """Tell whether local workers, who are this user on this host, could write to a directory."""
    from overnight.files import see_writable

    place = Path(name).expanduser().absolute()
    near = nearest_existing(place)
    try:
        see_writable(str(near))
    except OSError as error:
        text = f"{shown(str(near))} cannot be written to ({error.strerror}): give another, or the right to write"
        return Finding("directory", FAULT, text, 4)
    if near != place:
        return Finding("directory", OK, f"{shown(str(place))} is made by the first run that is given it")
    return Finding("directory", OK, f"{shown(str(place))} can be written to")


def disk(settings: Settings) -> Finding:
    """Tell how much space is left where records and logs go."""
    place = nearest_existing(settings.state_dir.expanduser().absolute())
    free = shutil.disk_usage(place).free
    text = f"{free / 1e9:.1f} GB free at {shown(str(place))}"
    if free < LEAST_FREE_BYTES:
        return Finding("disk", WARNING, f"{text}: make room, or give --state-dir on a larger file system")
    return Finding("disk", OK, text)


def key(settings: Settings) -> Finding:
    """Tell whether records are signed, where they must be."""
    from overnight.keyring import COMMAND_THAT_MAKES_A_KEY, KEY_VARIABLE, read_keyring
    from overnight.store.server_check import is_remote

    keyring = read_keyring()
    if not keyring.is_empty:
        return Finding("key", OK, f"records are signed with key {keyring.signing_id}")
    if settings.redis_url is not None and is_remote(settings.redis_url):
        text = (
            f"a server beyond this host needs one: set {KEY_VARIABLE} to what this prints: {COMMAND_THAT_MAKES_A_KEY}"
        )
        return Finding("key", FAULT, text, 2)
    return Finding("key", OK, "none is set; records carry checksums, which does for a server on this host")


def server_program() -> Finding:
    """Tell which program the embedded server is."""
    from overnight.server_binary import find_server_binary

    found = find_server_binary()
    return Finding("server program", OK, f"{found.kind} {'.'.join(map(str, found.version))} at {found.path}")
