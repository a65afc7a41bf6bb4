"""The parent of several supervisors: who is replaced at once, and who later and later (ADVERSITY P6)."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.command import ROOT

#: A crew of one whose supervisor is a script; the script is given the options that the crew adds.
CREW = """
import logging, sys
from overnight_worker.crew import Crew
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
crew = Crew(1, [])
crew._command = [sys.executable, "-c", sys.argv[1]]
sys.exit(crew.run())
"""
WORKS = "from overnight_worker.first_word import say_it_works, take_word; take_word(); say_it_works(); "
DIES = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
#: Dies at its start twice, works before its third death, and dies at its start from then on.
IN_TURNS = (
    "import pathlib; path = pathlib.Path({path!r}); path.touch(); turn = path.stat().st_size;"
    "path.write_text('x' * (turn + 1)); exec({works!r}) if turn == 2 else None; " + DIES
)


def told(script: str, lines: int) -> list[str]:
    """Return the first so many lines that a crew says of its supervisor's ends."""
    with subprocess.Popen([sys.executable, "-c", CREW, script], stdout=subprocess.PIPE, cwd=ROOT, text=True) as crew:
        assert crew.stdout is not None
        found = [crew.stdout.readline().rstrip() for _ in range(lines)]
        crew.terminate()
        crew.communicate(timeout=30)
    return [line.rpartition(" the next one starts ")[2] for line in found]


def test_a_supervisor_that_had_taken_a_batch_is_replaced_at_once_however_often_it_dies() -> None:
    assert told(WORKS + DIES, 6) == ["at once"] * 6


def test_one_that_dies_at_its_start_is_replaced_later_and_later() -> None:
    assert told(DIES, 3) == ["in 0.5 s", "in 1.0 s", "in 2.0 s"]


def test_one_that_works_ends_the_growing_of_the_pauses(tmp_path: object) -> None:
    script = IN_TURNS.format(path=f"{tmp_path}/turns", works=WORKS)
    assert told(script, 4) == ["in 0.5 s", "in 1.0 s", "at once", "in 0.5 s"]


@pytest.mark.parametrize("status", [2, 4, 5])
def test_a_status_that_repeating_cannot_help_ends_the_crew(status: int) -> None:
    crew = subprocess.run([sys.executable, "-c", CREW, f"exit({status})"], cwd=ROOT, timeout=30, check=False)
    assert crew.returncode == status
