"""What OVERNIGHT_FAILPOINT may say, who refuses it, and where it stands in the product (ADVERSITY 5)."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from overnight.errors import UsageError
from overnight.failpoints import POINTS, Failpoint, parse

ROOT = Path(__file__).parents[2]


def test_points_actions_passes_and_seconds_are_read() -> None:
    assert parse("worker.after_claim:kill9@3;scheduler.mid_adopt:stop8", testing=True) == [
        Failpoint("worker.after_claim", "kill9", at=3),
        Failpoint("scheduler.mid_adopt", "stop", seconds=8.0),
    ]
    assert parse(" child.mid_task:stop0.5@2 ; client.mid_submit:drop_reply", testing=True) == [
        Failpoint("child.mid_task", "stop", seconds=0.5, at=2),
        Failpoint("client.mid_submit", "drop_reply"),
    ]


def test_every_action_of_every_point_can_be_written_and_read_back() -> None:
    for point, actions in POINTS.items():
        for action in actions:
            failpoint = Failpoint(point, action, seconds=2.0 if action == "stop" else 0.0, at=7)
            assert parse(failpoint.text, testing=True) == [failpoint]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'' is not of the form"),
        ("worker.after_claim", "'worker.after_claim' is not of the form"),
        ("worker.after_claim:kill9;", "'' is not of the form"),
        ("worker.after_claim:kill9@0", "is not of the form"),
        ("worker.after_claim:kill9@x", "is not of the form"),
        ("worker.after_clam:kill9", "no point 'worker.after_clam'; did you mean 'worker.after_claim'?"),
        ("worker.after_claim:kill", "names no action of worker.after_claim, which are kill9, stopN, exit0, raise."),
        ("worker.after_claim:kill99", "names no action"),
        ("worker.after_claim:raise4", "names no action"),
        ("worker.after_claim:stop", "names no action"),
        ("worker.after_child_exit:enospc", "names no action"),
    ],
)
def test_what_is_not_understood_is_refused_in_one_sentence(text: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(text, testing=True)
    assert said in str(refused.value)
    assert str(refused.value).startswith("OVERNIGHT_FAILPOINT")


COMMANDS = {
    "scheduler": ["-m", "overnight.service"],
    "worker": ["-m", "overnight_worker"],
    "client": ["-m", "overnight.commands", "runs"],
}


def told(words: Sequence[str], directory: Path, **environ: str) -> str:
    """Start a process that must refuse with status 2; return its one line."""
    environment = {**os.environ, "OVERNIGHT_STATE_DIR": str(directory), **environ}
    command = [sys.executable, *words]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2, ended.stderr
    (line,) = ended.stderr.splitlines()
    return line


@pytest.mark.parametrize("process", COMMANDS)
def test_a_process_that_is_not_told_that_it_is_a_test_refuses_with_status_2(process: str, tmp_path: Path) -> None:
    line = told(COMMANDS[process], tmp_path, OVERNIGHT_FAILPOINT="worker.after_claim:kill9")
    assert "unset it, or set OVERNIGHT_TESTING=1" in line


def test_a_process_refuses_an_unknown_point_with_status_2(tmp_path: Path) -> None:
    line = told(COMMANDS["scheduler"], tmp_path, OVERNIGHT_FAILPOINT="nowhere:kill9", OVERNIGHT_TESTING="1")
    assert "there is no point 'nowhere'" in line


def test_every_point_stands_at_one_place_and_every_place_has_a_point() -> None:
    reached: Counter[str] = Counter()
    for source in ("scheduler", "worker"):
        for path in (ROOT / source).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "failpoints.reach":
                    (point,) = node.args
                    assert isinstance(point, ast.Constant)
                    reached[str(point.value)] += 1
    assert reached == dict.fromkeys(POINTS, 1)
