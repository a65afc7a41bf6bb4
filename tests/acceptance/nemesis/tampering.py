"""Flags that are damaged, cut, deleted, swapped, or replaced by hostile ones."""

from __future__ import annotations

import errno
import os
import pickle
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

from overnight.errors import BadSeal
from overnight.flag_files import open_flag
from overnight.flags import encode_flag
from overnight.keyring import Keyring
from overnight.naming import flag_name
from tests.acceptance.nemesis.schedule import Fault, Missed

if TYPE_CHECKING:
    from tests.acceptance.nemesis.arena import Arena


class _Hostile:
    """Whoever unpickles this makes the file."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self._path, "w")


def strike(arena: Arena, _fault: Fault, chance: random.Random) -> None:
    """Tamper with the flag of one or two tasks that are on record."""
    arena.oracle.look(arena.cluster.keyring)
    known = sorted(arena.oracle.proofs)
    if len(known) < 2:
        raise Missed("too few flags are there")
    victims = chance.sample(known, 2)
    way = chance.choice([_damage, _truncate, _delete, _swap, None])
    first, second = (arena.round.flags / flag_name(task_id) for task_id in victims)
    for task_id in victims if way is _swap else victims[:1]:
        arena.oracle.forget(task_id)
    try:
        if way is None:
            _plant(first, victims[0], arena.cluster.keyring, arena.canary, chance)
        else:
            way(first, second, chance)
    except OSError as error:  # on a full disk the flag is torn by now, which will do
        if error.errno not in (errno.ENOENT, errno.ENOSPC):
            raise


def _damage(first: Path, _second: Path, chance: random.Random) -> None:
    data = bytearray(first.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    first.write_bytes(data)


def _truncate(first: Path, _second: Path, chance: random.Random) -> None:
    os.truncate(first, chance.randrange(first.stat().st_size))


def _delete(first: Path, _second: Path, _chance: random.Random) -> None:
    first.unlink()


def _swap(first: Path, second: Path, _chance: random.Random) -> None:
    data, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(data)


def _plant(first: Path, task_id: str, keyring: Keyring, canary: Path, chance: random.Random) -> None:
    try:
        header = open_flag(first, task_id, keyring).header
    except BadSeal:
        return
    signers = [Keyring(), Keyring((chance.randbytes(32),))]
    first.write_bytes(encode_flag(header, pickle.dumps(_Hostile(str(canary))), chance.choice(signers)))
