"""The notes of processes that end as soon as they are started: they add to what is told, and hold up nobody."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from overnight.early_ends import EarlyEnds, early_ends_at
from overnight.slots import Slot

ENDS = EarlyEnds("worker-default-1", 3, 0.0, "exit status 1", "/a/log", "E: no")


def test_a_note_reads_back_as_it_was_written(tmp_path: Path) -> None:
    ENDS.write_to(tmp_path / "note")
    assert early_ends_at(tmp_path / "note") == ENDS
    assert [path.name for path in tmp_path.iterdir()] == ["note"]


@pytest.mark.parametrize("text", ["", "{", "[]", "7", json.dumps({**asdict(ENDS), "more": 1}), "\u00e9"])
def test_a_note_that_is_none_is_left_out(tmp_path: Path, text: str) -> None:
    """QX13: one that was torn by a power cut, or that another version has left."""
    (tmp_path / "note").write_text(text, encoding="utf-8")
    assert early_ends_at(tmp_path / "note") is None


def test_processes_are_started_again_where_no_note_can_be_written(tmp_path: Path) -> None:
    """P13, QX13: the directory is full, or gone."""
    slot = Slot(
        "worker-default-1",
        [sys.executable, "-c", "raise SystemExit(1)"],
        lock_path=tmp_path / "lock",
        log_path=tmp_path / "log",
        note_path=tmp_path / "gone" / "note",
        environment=lambda: os.environ,
    )
    slot.keep()
    first = slot._process
    assert first is not None
    first.wait()
    slot.keep()
    assert slot.not_before > 0
    assert slot._process is None
