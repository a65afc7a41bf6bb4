"""The programs of the README do what it says of them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import ROOT, Desk
from tests.support.servers import free_port

_BLOCK = re.compile(r"^```python\n# (\w+\.py)\b.*?^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with the programs and some texts."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for block in _BLOCK.finditer(readme):
        (tmp_path / block[1]).write_text(block[0].removeprefix("```python\n").removesuffix("```"), encoding="utf-8")
    (tmp_path / "books").mkdir()
    for name in ("one", "two"):
        (tmp_path / "books" / f"{name}.txt").write_text(f"a word {name}", encoding="utf-8")
    return tmp_path


def tool(place: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "tool.py", *words],
        cwd=place,
        env={"OVERNIGHT_CONNECT_SECONDS": "0.5", **environment},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def test_the_tool_runs_and_its_records_are_where_the_readme_says(place: Path) -> None:
    assert tool(place, "-j", "1").returncode == 0
    assert (place / "words.tsv").read_text(encoding="utf-8") == "a\t2\none\t1\ntwo\t1\nword\t2\n"
    assert len(list((place / ".task-progress").glob("*.flag"))) == 3
    desk = Desk(place)
    dry = ("run", "pipeline.py:build", "-p", "texts=books", "-n")
    assert "3 of 3 tasks would run." in desk.run(*dry).out
    assert "0 of 3 tasks would run." in desk.run(*dry, "-d", ".task-progress").out


def test_what_goes_wrong_in_the_tool_is_one_sentence_and_the_right_status(place: Path) -> None:
    """D3, L5: what was typed is 2, what cannot be reached 4, what the graph holds 3."""
    (place / "hidden").mkdir()
    (place / "hidden" / "distributed.py").write_text("raise ModuleNotFoundError('no', name='distributed')\n")
    expected = {
        ("-t", "nobody"): (2, "No task 'nobody' is in the graph"),
        ("-j", "0"): (2, "jobs"),
        ("-j", "2", "--executor", "dask"): (2, "pip install 'overnight[dask]'"),
        ("--redis-url", f"redis://127.0.0.1:{free_port()}/0"): (4, "127.0.0.1"),
    }
    for words, (status, text) in expected.items():
        found = tool(place, *words, PYTHONPATH=str(place / "hidden"))
        assert found.returncode == status, (words, found.stderr)
        line = found.stderr.splitlines()[-1]
        assert line.startswith("tool.py: ")
        assert text in line
        assert "Traceback" not in found.stderr
