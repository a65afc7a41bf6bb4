"""A test that hangs ends within the suite's limit, with the stacks of all threads (BEHAVIOUR R21)."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
HANGING = """
import threading

def test_hangs():
    def wait_in_a_thread():
        threading.Event().wait()
    threading.Thread(target=wait_in_a_thread, daemon=True).start()
    threading.Event().wait()
"""


def test_a_hang_is_a_failure_with_the_stacks_of_all_threads(tmp_path: Path) -> None:
    """R21: by the settings of the suite, but for a shorter limit."""
    settings = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["tool"]["pytest"]["ini_options"]
    assert 0 < settings["timeout"] <= 600
    (tmp_path / "test_hanging.py").write_text(HANGING, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-c", str(PROJECT), "--rootdir", str(tmp_path), "-p", "no:cacheprovider"]
    ended = subprocess.run(
        [*command, "--timeout", "1", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode != 0
    said = ended.stdout + ended.stderr
    assert "wait_in_a_thread" in said
    assert "in test_hangs" in said
