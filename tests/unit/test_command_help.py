"""The help of the command and of its verbs."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

from overnight.commands.app import VERBS, overnight

HEAVY = ("redis", "rq", "rich", "fsspec", "cloudpickle", "networkx", "psutil")


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_each_verb_has_an_example(verb: str) -> None:
    shown = CliRunner().invoke(overnight, [verb, "--help"])
    assert shown.exit_code == 0
    assert f"Example:\n    overnight {verb}" in shown.output


def test_the_help_names_every_verb_and_the_exit_statuses() -> None:
    shown = CliRunner().invoke(overnight, ["--help"]).output
    assert [verb for verb in VERBS if f"  {verb} " not in shown] == []
    assert "Exit status: 0 all succeeded; 1 tasks failed" in shown


def test_the_line_of_each_verb_is_whole_on_80_columns() -> None:
    shown = CliRunner().invoke(overnight, ["--help"], terminal_width=80).output
    assert [verb for verb, line in VERBS.items() if f"  {verb:<9}  {line}\n" not in shown] == []


def test_the_help_of_doctor_says_what_makes_its_exit_status() -> None:
    words = " ".join(CliRunner().invoke(overnight, ["doctor", "--help"]).output.split())
    assert "A fault keeps runs from starting or going on, and makes the exit status" in words


def test_the_help_of_worker_says_how_to_list_the_options_that_it_passes_on() -> None:
    shown = CliRunner().invoke(overnight, ["worker", "--help"], terminal_width=80).output
    assert "overnight worker -- --help" in shown


@pytest.mark.parametrize("verb", ["run", "submit", "demo"])
def test_the_help_of_what_starts_a_run_says_that_v_keeps_more_of_what_tasks_log(verb: str) -> None:
    """N1."""
    shown = " ".join(CliRunner().invoke(overnight, [verb, "--help"]).output.split())
    assert "keep what tasks log below WARNING: -v their INFO records, -vv DEBUG." in shown


def test_help_imports_nothing_heavy() -> None:
    """It is quick because it loads click alone."""
    code = "import sys; from overnight.commands import main; main(['--help']); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert [name for name in HEAVY if name in loaded] == []


def test_an_interrupt_while_the_command_is_being_imported_is_no_traceback() -> None:
    code = (
        "import sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'click':\n"
        "            raise KeyboardInterrupt\n"
        "from overnight.commands import main\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "sys.exit(main(['--help']))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (130, "")
