"""The format of a flag: what is written is read back, and nothing else is believed (C11, C12, C14, C16)."""

from __future__ import annotations

import hashlib
import hmac
import json

import pytest

from overnight.error_text import ErrorText, bounded, error_text
from overnight.errors import BadSeal, ForeignRecord
from overnight.flags import (
    DONE,
    FAILED,
    FlagHeader,
    decode_flag,
    decode_head,
    encode_flag,
    holds_header,
    lineage_of_header,
    sealed_header,
)
from overnight.keyring import Keyring
from overnight.lineage import (
    CombinedIds,
    CombinedRecords,
    DependencyRecord,
    changed_dependency,
    lineage_digest,
    listed_ids,
    listed_records,
    same_dependencies,
)

NO_KEY = Keyring()
KEY = Keyring((b"k" * 32,))
FULL = FlagHeader(
    task_id="part:1\n",
    function="pipeline:part",
    dependencies=("a", "b"),
    dependency_records=(DependencyRecord("r1", 1, "aa" * 32), DependencyRecord(None, None, "bb" * 32)),
    run_id="r1",
    attempt=3,
    started="2026-01-01T00:00:00+00:00",
    finished="2026-01-01T00:00:01+00:00",
    duration_seconds=1.0,
    host="h",
    python="3.11.9",
    state=FAILED,
    error=ErrorText("ValueError", "m\udc80", "t"),
)


@pytest.mark.parametrize("keyring", [NO_KEY, KEY])
@pytest.mark.parametrize("header", [FULL, FlagHeader("a"), FULL._replace(dependencies=(), dependency_records=())])
def test_a_flag_reads_back_as_it_was_written(header: FlagHeader, keyring: Keyring) -> None:
    """C11."""
    flag = decode_flag(encode_flag(header, b"body\n\n", keyring), header.task_id, keyring)
    assert flag.header == sealed_header(header, b"body\n\n")
    assert flag.body == b"body\n\n"


def test_the_file_is_a_first_line_a_line_of_json_and_the_body() -> None:
    """C11, C16: the signature is the HMAC-SHA256 of the header line."""
    first, line, body = encode_flag(FULL, b"x\ny", KEY).split(b"\n", 2)
    assert first == b"overnight-flag 1 " + hmac.digest(b"k" * 32, line, "sha256").hex().encode()
    members = json.loads(line)
    assert set(members) == set(FlagHeader._fields) | {"header_sha256"}
    assert (members["task_id"], members["attempt"], members["error"]["type_name"]) == ("part:1\n", 3, "ValueError")
    assert (members["body_bytes"], members["body_sha256"]) == (3, hashlib.sha256(b"x\ny").hexdigest())
    assert body == b"x\ny"
    assert encode_flag(FULL, b"", NO_KEY).startswith(b"overnight-flag 1 -\n")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"overnight-fl", "torn"),
        (b"\x80\x05K\x01.", "not a flag"),
        (b"overnight-flag 2 -\n{}\n", "format 2"),
        (b"overnight-flag 1 -\n{}\n", "damaged"),
        (b"overnight-flag 1 -\n" + b"[" * 100_000 + b"\n", "damaged"),
        (b"overnight-flag 1 -\n" + b"x" * (1024 * 1024 + 10), "torn inside its header"),
    ],
)
def test_what_is_not_a_flag_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    """C14."""
    with pytest.raises(BadSeal, match=reason):
        decode_flag(data, "a", NO_KEY)


def test_a_flag_of_a_later_format_names_both_formats() -> None:
    """C14."""
    with pytest.raises(ForeignRecord, match=r"format 7.*format 1"):
        decode_flag(encode_flag(FULL, b"", NO_KEY).replace(b"flag 1", b"flag 7", 1), FULL.task_id, NO_KEY)


def test_the_flag_of_another_task_is_refused() -> None:
    """C14, H1."""
    with pytest.raises(BadSeal, match="another task"):
        decode_flag(encode_flag(FULL, b"", NO_KEY), "other", NO_KEY)


def test_an_odd_id_is_escaped_once_in_a_sentence() -> None:
    """I7."""
    with pytest.raises(BadSeal) as raised:
        decode_flag(encode_flag(FlagHeader("a\\b\x1b"), b"", NO_KEY), "other", NO_KEY)
    assert str(raised.value) == r"it is the record of another task, 'a\\b\x1b'"


def test_with_a_key_unsigned_and_foreign_flags_are_refused() -> None:
    """C16."""
    with pytest.raises(BadSeal, match="not signed, and"):
        decode_flag(encode_flag(FULL, b"", NO_KEY), FULL.task_id, KEY)
    with pytest.raises(BadSeal, match="known key"):
        decode_flag(encode_flag(FULL, b"", Keyring((b"z" * 32,))), FULL.task_id, KEY)


def forged(**changes: object) -> bytes:
    members = json.loads(encode_flag(FULL, b"", NO_KEY).split(b"\n")[1])
    del members["header_sha256"]
    members.update(changes)
    line = json.dumps(members).encode()[:-1]
    check = hashlib.sha256(line).hexdigest().encode()
    return b"overnight-flag 1 -\n" + line + b',"header_sha256":"' + check + b'"}\n'


@pytest.mark.parametrize(
    "changes",
    [
        {"state": []},
        {"state": "fine"},
        {"attempt": "1"},
        {"body_bytes": -1},
        {"body_sha256": None},
        {"dependencies": 5},
        {"dependencies": [1]},
        {"dependencies": {"count": "x"}},
        {"dependency_records": [{"run_id": 1, "attempt": 1, "sha256": None}]},
        {"dependency_records": [{"run_id": "r", "attempt": 1, "sha256": "zz"}]},
        {"error": "text"},
        {"error": {"type_name": 1, "message": "", "traceback": ""}},
        {"function": {}},
        {"surplus": 1},
        {"task_id": None},
    ],
)
def test_a_forged_header_of_wrong_types_is_refused(changes: dict[str, object]) -> None:
    """C14: reading such a flag never raises anything else."""
    with pytest.raises(BadSeal):
        decode_head(forged(**changes), NO_KEY)


def test_the_header_is_complete_at_its_second_newline() -> None:
    data = encode_flag(FULL, b"body", NO_KEY)
    end = len(data) - len(b"body")
    assert holds_header(data[:end])
    assert not holds_header(data[: end - 1])
    assert decode_head(data[:end], NO_KEY)[1] == end


def test_texts_of_a_huge_error_are_cut_and_still_fit_the_header() -> None:
    """C11, ADVERSITY row 23."""
    for character in ("x", "\x00", "\U0001f600", "\udc80"):
        text = error_text(ValueError(character * 300_000))
        assert len(text.message.encode("utf-8", "surrogatepass")) <= 64 * 1024
        ids = tuple(f"{n}" + "\U0001f600" * 190 for n in range(64))
        header = FlagHeader("a", dependencies=ids, state=FAILED, error=text)
        assert decode_flag(encode_flag(header, b"", NO_KEY), "a", NO_KEY).header.error == text


def test_a_message_that_cannot_be_printed_is_told_as_such() -> None:
    """ADVERSITY row 23."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert error_text(Mute()).message == "<unprintable>"


def test_a_cut_text_keeps_beginning_and_end() -> None:
    text = bounded("a" * 100 + "z" * 100, 60)
    assert text.startswith("aaaa")
    assert text.endswith("zzzz")
    assert len(text) <= 60


def test_the_lineage_digest_is_over_the_result_digests_in_order() -> None:
    """ADVERSITY, words; P4."""
    a, b = bytes(32), b"\1" * 32
    expected = hashlib.sha256(a + b).digest()
    records = (DependencyRecord("r", 1, a.hex()), DependencyRecord("r", 2, b.hex()))
    assert lineage_digest([a, b]) == expected != lineage_digest([b, a])
    assert lineage_of_header(FlagHeader("t", dependency_records=records)) == expected
    assert lineage_of_header(FlagHeader("t")) is None
    assert lineage_of_header(FlagHeader("t", dependency_records=(DependencyRecord("r", 1, None),))) is None


def test_above_64_dependencies_only_combined_facts_are_kept() -> None:
    """C11."""
    ids = [f"d{n}" for n in range(65)]
    records = [DependencyRecord("r", 1, hashlib.sha256(name.encode()).hexdigest()) for name in ids]
    listed, combined = listed_ids(ids), listed_records(ids, records)
    assert isinstance(listed, CombinedIds)
    assert isinstance(combined, CombinedRecords)
    assert listed_ids(ids[:64]) == tuple(ids[:64])
    header = FlagHeader("t", dependencies=listed, dependency_records=combined, state=DONE)
    again = decode_flag(encode_flag(header, b"", NO_KEY), "t", NO_KEY).header
    assert (again.dependencies, again.dependency_records) == (listed, combined)
    assert lineage_of_header(again) == lineage_digest([bytes.fromhex(r.sha256 or "") for r in records])
    assert same_dependencies(listed, ids)
    assert not same_dependencies(listed, [*ids[:64], "other"])


@pytest.mark.parametrize("count", [2, 70])
def test_another_record_of_a_dependency_is_noticed(count: int) -> None:
    """F2 b: also one with equal bytes from another run; what is unknown counts as equal."""
    ids = [f"d{n}" for n in range(count)]
    used = [DependencyRecord("r", 1, "00" * 32) for _ in ids]
    present = dict(zip(ids, used, strict=True))
    listed = listed_ids(ids), listed_records(ids, used)
    assert changed_dependency(ids, *listed, present) is None
    assert changed_dependency(ids, *listed, {"d0": used[0]}) is None
    assert changed_dependency(ids, *listed, present | {"d1": DependencyRecord("r2", 1, "00" * 32)}) is not None
    assert changed_dependency(ids, *listed, present | {"d1": DependencyRecord("r", 1, "11" * 32)}) is not None


def test_unknown_facts_of_a_dependency_count_as_equal() -> None:
    """F2 b."""
    used = (DependencyRecord(None, None, "00" * 32),)
    assert changed_dependency(["d"], ("d",), used, {"d": DependencyRecord("r9", 4, "00" * 32)}) is None
    assert changed_dependency(["d"], ("d",), None, {"d": DependencyRecord("r9", 4, "00" * 32)}) is None
