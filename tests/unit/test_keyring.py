"""Secret keys: where they come from, which are refused, what they sign (ADVERSITY 8, section 7 row 40)."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from overnight.errors import UsageError
from overnight.keyring import COMMAND_THAT_MAKES_A_KEY, KEY_FILE_VARIABLE, KEY_VARIABLE, Keyring, read_keyring

KEY = bytes(range(32))
OTHER = bytes(range(1, 33))


def key_file(directory: Path, text: str, mode: int = 0o600) -> dict[str, str]:
    path = directory / "key"
    path.write_text(text)
    path.chmod(mode)
    return {KEY_FILE_VARIABLE: str(path)}


def test_without_variables_the_keyring_is_empty_and_signs_nothing() -> None:
    ring = read_keyring({})
    assert ring.is_empty
    assert not ring.verify(b"data", None, b"\0" * 32)
    with pytest.raises(UsageError):
        ring.sign(b"data")


@pytest.mark.parametrize("text", [KEY.hex(), KEY.hex().upper(), base64.b64encode(KEY).decode(), f"  {KEY.hex()}\n"])
def test_a_key_is_a_line_of_hex_or_base64(text: str) -> None:
    assert read_keyring({KEY_VARIABLE: text}).keys == (KEY,)


def test_the_first_key_of_a_file_signs_and_all_verify(tmp_path: Path) -> None:
    """ADVERSITY 8, Keys: rotation."""
    ring = read_keyring(key_file(tmp_path, f"{OTHER.hex()}\n\n{KEY.hex()}\n"))
    signer, tag = ring.sign(b"data")
    old_signer, old_tag = Keyring((KEY,)).sign(b"data")
    assert signer == ring.signing_id == Keyring((OTHER,)).signing_id
    assert ring.verify(b"data", signer, tag)
    assert ring.verify(b"data", old_signer, old_tag)
    assert ring.verify(b"data", None, old_tag)
    assert not ring.verify(b"data", signer, old_tag)
    assert not ring.verify(b"other", old_signer, old_tag)


def test_a_dropped_key_no_longer_verifies() -> None:
    signer, tag = Keyring((KEY,)).sign(b"data")
    assert not Keyring((OTHER,)).verify(b"data", signer, tag)


@pytest.mark.parametrize("text", ["", "  \n", "abc", "00ff", "not a key!", KEY[:31].hex()])
def test_an_unfit_key_is_refused_with_the_command_that_makes_one(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_keyring({KEY_VARIABLE: text})
    assert COMMAND_THAT_MAKES_A_KEY in str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_file_that_others_may_read_is_refused_with_the_chmod(tmp_path: Path, mode: int) -> None:
    with pytest.raises(UsageError, match="chmod 600"):
        read_keyring(key_file(tmp_path, KEY.hex(), mode))


def test_a_missing_key_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_keyring({KEY_FILE_VARIABLE: str(tmp_path / "none")})


def test_a_fifo_in_place_of_a_key_file_is_refused_without_blocking(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "key", 0o600)
    with pytest.raises(UsageError, match="not a regular file"):
        read_keyring({KEY_FILE_VARIABLE: str(tmp_path / "key")})


def test_two_sources_at_once_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Both"):
        read_keyring(key_file(tmp_path, KEY.hex()) | {KEY_VARIABLE: KEY.hex()})


def test_no_text_shows_a_key() -> None:
    ring = Keyring((KEY,))
    assert KEY.hex() not in repr(ring)
    assert repr(KEY) not in repr(ring)
    assert ring.signing_id in repr(ring)
