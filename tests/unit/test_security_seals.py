"""Sealed records: bound to their place, checked before they are read, bounded (ADVERSITY 8: H1, H3, M1, M7, L1)."""

from __future__ import annotations

import itertools
import random
import struct
import zlib
from collections.abc import Callable

import pytest

from overnight.errors import BadSeal
from overnight.flags import FlagHeader, decode_flag, encode_flag
from overnight.keyring import Keyring
from overnight.messages import (
    LARGEST_SPEC_CHUNK,
    RunContext,
    SpecChunk,
    StoredError,
    StoredResult,
    TaskFacts,
    TaskMessage,
    opened_blob,
    sealed_blob,
)
from overnight.wire import LARGEST_RECORD, Purpose, open_sealed, seal
from tests.support.hostile import KEY, NO_KEY, WRONG_KEY

FACTS = TaskFacts("a", "f", "d" * 64, (), (), (), ())
CONTEXT = RunContext("/", 0o22, {}, [], None, 0, None, None)
Open = Callable[[bytes, Keyring], object]


def at(opened: Callable[..., object], *place: object) -> Open:
    """What opens a record at a place."""
    return lambda record, ring: opened(record, *place, ring)


def flag_at(task_id: str) -> Open:
    return lambda record, ring: decode_flag(record, task_id, ring)


def places(ring: Keyring) -> dict[str, tuple[bytes, Open]]:
    """Each kind of record for two runs and two tasks, with what opens it at its own place."""
    found: dict[str, tuple[bytes, Open]] = {}
    for run in ("r1", "r2"):
        found[f"spec {run}"] = SpecChunk(0, ["a"], ["f"], [0], [[]]).sealed(run, ring), at(SpecChunk.opened, run)
        found[f"context {run}"] = CONTEXT.sealed(run, ring), at(RunContext.opened, run)
        found[f"blob {run}"] = sealed_blob(run, f"{run}d", b"x", ring), at(opened_blob, run, f"{run}d")
        for task in (0, 1):
            name = f"{run} {task}"
            found[f"message {name}"] = (
                TaskMessage(FACTS, b"p").sealed(run, task, ring),
                at(TaskMessage.opened, run, task),
            )
            result = StoredResult(b"d" * 32, 1, b"b").sealed(run, task, ring)
            found[f"result {name}"] = result, at(StoredResult.opened, run, task)
            error = StoredError("E", "m", "t").sealed(run, task, ring)
            found[f"error {name}"] = error, at(StoredError.opened, run, task)
            found[f"flag {name}"] = encode_flag(FlagHeader(name), b"b", ring), flag_at(name)
    return found


@pytest.mark.parametrize("ring", [KEY, NO_KEY])
def test_no_record_is_believed_in_the_place_of_another(ring: Keyring) -> None:
    """H1: any two records swapped, of all kinds, runs and tasks."""
    kinds = places(ring)
    for (name, (record, opens)), (other, (moved, _)) in itertools.permutations(kinds.items(), 2):
        opens(record, ring)
        with pytest.raises(BadSeal):
            opens(moved, ring)
            pytest.fail(f"{other} was believed as {name}")


def test_no_record_of_another_key_or_none_is_believed_where_a_key_is_set() -> None:
    """C1, H1, M7: also one that was sealed before the key was set, or with a key that is no longer in the ring."""
    for ring in (NO_KEY, WRONG_KEY):
        for name, (record, _) in places(ring).items():
            with pytest.raises(BadSeal):
                places(KEY)[name][1](record, KEY)


def test_a_key_that_was_dropped_turns_its_records_into_missing_ones() -> None:
    """H3: the new one first, both for a while, then the new one alone."""
    old, both, new = WRONG_KEY, Keyring((*KEY.keys, *WRONG_KEY.keys)), KEY
    for name, (record, opens) in places(old).items():
        opens(record, both)
        fresh = places(both)[name][0]
        opens(fresh, new)
        with pytest.raises(BadSeal):
            opens(record, new)


def test_what_is_too_large_is_refused_before_it_is_looked_at() -> None:
    """M1: record, header, and a chunk of the graph that unpacks to a thousand times its size."""

    class Claimed(bytes):
        def __len__(self) -> int:
            return LARGEST_RECORD + 1

    with pytest.raises(BadSeal, match="cannot hold"):
        open_sealed(Claimed(), Purpose.TASK, KEY)
    good = seal(Purpose.TASK, {}, b"", NO_KEY)
    with pytest.raises(BadSeal):
        open_sealed(good[:16] + struct.pack(">I", 2**32 - 1) + good[20:], Purpose.TASK, NO_KEY)
    packer = zlib.compressobj(1)
    body = b"".join(packer.compress(bytes(1 << 20)) for _ in range((LARGEST_SPEC_CHUNK >> 20) + 1)) + packer.flush()
    assert len(body) < LARGEST_SPEC_CHUNK / 100
    with pytest.raises(BadSeal, match="unpacks to more"):
        SpecChunk.opened(seal(Purpose.SPEC, {"run": "r", "first": 0}, body, KEY), "r", KEY)


def mutated(record: bytes, rng: random.Random) -> bytes:
    """A record with some bytes changed, taken away or put in."""
    data = bytearray(record)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(3):
            case 0 if at < len(data):
                data[at] ^= rng.randrange(1, 256)
            case 1:
                del data[at : at + rng.randrange(1, 9)]
            case _:
                data[at:at] = rng.randbytes(rng.randrange(1, 9))
    return bytes(data)


@pytest.mark.parametrize("ring", [KEY, NO_KEY])
def test_whatever_is_read_a_reader_says_that_it_is_no_record(ring: Keyring) -> None:
    """L1, P12: fuzzed records and plain noise; never another exception, never a value."""
    rng = random.Random(7)
    for _ in range(100):
        for record, opens in places(ring).values():
            changed = mutated(record, rng)
            if changed != record:
                with pytest.raises(BadSeal):
                    opens(changed, ring)


def resealed(purpose: Purpose, header: object, body: bytes) -> bytes:
    return seal(purpose, header, body, NO_KEY)  # type: ignore[arg-type]  # what is no header is the point


@pytest.mark.parametrize(
    "header", [[], 1, None, "x", {}, {"run": "r1"}, {"run": "r1", "task": 0}, {"run": ["r1"], "task": {}}]
)
@pytest.mark.parametrize("body", [b"", b"x", b"[]", b"{}", b"\x00" * 64, b"\xff" * 64])
def test_a_whole_record_with_a_content_of_another_form_is_refused(header: object, body: bytes) -> None:
    """L1: where no key is set a checksum proves nothing about who wrote it."""
    for purpose, name in ((Purpose.TASK, "message r1 0"), (Purpose.SPEC, "spec r1"), (Purpose.CONTEXT, "context r1"),
                          (Purpose.RESULT, "result r1 0"), (Purpose.ERROR, "error r1 0")):  # fmt: skip
        with pytest.raises(BadSeal):
            places(NO_KEY)[name][1](resealed(purpose, header, body), NO_KEY)
