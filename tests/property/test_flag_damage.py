"""No damage of a flag is ever believed (C14, P12)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.errors import BadSeal
from overnight.flags import FlagHeader, decode_flag, encode_flag
from overnight.keyring import Keyring
from overnight.pickling import dumps

KEYRINGS = [Keyring(), Keyring((b"k" * 32,))]
TASK = FlagHeader("part-1", function="m:f", dependencies=("a",), run_id="run", attempt=1, host="h", python="3.11.9")


def rejected(data: bytes, keyring: Keyring) -> bool:
    try:
        decode_flag(data, "part-1", keyring)
    except BadSeal:
        return True
    return False


@pytest.mark.parametrize("keyring", KEYRINGS)
def test_every_truncation_is_rejected(keyring: Keyring) -> None:
    whole = encode_flag(TASK, dumps({"a": 1}), keyring)
    assert not rejected(whole, keyring)
    assert [end for end in range(len(whole)) if not rejected(whole[:end], keyring)] == []


@pytest.mark.parametrize("keyring", KEYRINGS)
def test_every_flipped_bit_is_rejected(keyring: Keyring) -> None:
    whole = encode_flag(TASK, dumps({"a": 1}), keyring)
    survivors = []
    for position in range(len(whole) * 8):
        damaged = bytearray(whole)
        damaged[position // 8] ^= 1 << position % 8
        if not rejected(bytes(damaged), keyring):
            survivors.append(position)
    assert survivors == []


@pytest.mark.parametrize("keyring", KEYRINGS)
def test_every_zeroed_block_and_appended_byte_is_rejected(keyring: Keyring) -> None:
    whole = encode_flag(TASK, dumps({"a": 1}), keyring)
    blocks = [whole[:at] + bytes(8) + whole[at + 8 :] for at in range(len(whole) - 8)]
    appended = [whole + bytes([byte]) for byte in range(256)]
    assert [data for data in blocks + appended if not rejected(data, keyring)] == []


@given(data=st.binary(max_size=300), prefix=st.integers(0, 400))
def test_no_bytes_raise_anything_but_a_bad_seal(data: bytes, prefix: int) -> None:
    whole = encode_flag(TASK, b"", KEYRINGS[0])
    damaged = whole[:prefix] + data
    assert damaged == whole or rejected(damaged, KEYRINGS[0])
