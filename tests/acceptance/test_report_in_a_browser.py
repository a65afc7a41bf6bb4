"""The report as a real browser shows it: on a desk, on a phone, in the dark, on paper."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from overnight.commands.reporting.page import render
from overnight.config import Settings
from overnight.core.states import TaskState
from tests.support.browser import Picture, browse, browser, dom_of, screenshot
from tests.support.command import desk
from tests.unit.test_report_page import facts_of

GRAPHS = "tests.support.graphs"
EVIL = "</title><script>document.title = 'owned'</script>"
FAILED, DONE = (200, 50, 43), (31, 138, 76)
LIGHT_PAGE, DARK_PAGE, DARK_FAILED = (246, 247, 249), (18, 22, 28), (240, 102, 94)


@pytest.fixture(scope="module")
def page(short_directory: Path) -> Iterator[Path]:
    """The report of a run in which one task failed, with a message that would be a script."""
    browser()
    with desk(short_directory / "report") as given:
        assert given.run("run", f"{GRAPHS}:raises", "-p", f"message={EVIL}", "-k", "-j", "1").status == 1
        reported = given.run("report", "last", "-o", "report.html", "--json")
        assert reported.status == 0, reported
        assert reported.facts["counts"] == {"done": 1, "failed": 1, "skipped": 1}
        yield given.directory / "report.html"


def sheets_of(paper: Path) -> list[list[str]]:
    """Return the lines of each sheet of a printed page; skip the test where nothing can read them."""
    reader = shutil.which("pdftotext")
    if reader is None:
        pytest.skip("What is printed is read by pdftotext: install it with `apt-get install poppler-utils`.")
    done = subprocess.run([reader, "-layout", str(paper), "-"], capture_output=True, text=True, check=True)
    return [sheet.splitlines() for sheet in done.stdout.split("\f") if sheet.strip()]


def is_shown(picture: Picture, done: tuple[int, int, int], failed: tuple[int, int, int]) -> bool:
    """Tell whether the bar of states is there, in its colours."""
    return picture.count(done) > 500 and picture.count(failed) > 500


def test_the_browser_understands_the_page_and_runs_nothing_of_it(page: Path) -> None:
    dom = dom_of(page)
    for section in ("outcome", "failures", "next", "timeline", "functions", "path", "extremes", "deaths"):
        assert f'<section id="{section}"' in dom
    assert re.search(r"<title>\S+raises: failed</title>", dom)
    assert "<script" not in dom
    assert len(re.findall(r"<path class=", dom)) == 2
    assert "1 of 3 tasks have succeeded, 1 failed by 1 cause" in dom


def test_it_is_drawn_on_a_desk_and_on_a_phone_without_reaching_beyond_its_edge(page: Path) -> None:
    wide = screenshot(page, 1200, 1400)
    assert is_shown(wide, DONE, FAILED)
    assert wide.count(LIGHT_PAGE) > 50_000
    phone = screenshot(page, 390, 1400)
    assert is_shown(phone, DONE, FAILED)
    assert phone.column(388) == {LIGHT_PAGE}


def test_it_follows_the_wish_for_darkness(page: Path) -> None:
    dark = screenshot(page, 800, 900, "--blink-settings=preferredColorScheme=0")
    assert dark.count(DARK_PAGE) > 20_000
    assert dark.count(DARK_FAILED) > 500
    assert dark.count(LIGHT_PAGE) == 0


def test_it_can_be_printed(page: Path, tmp_path: Path) -> None:
    paper = tmp_path / "report.pdf"
    browse("--no-pdf-header-footer", f"--print-to-pdf={paper}", page.as_uri())
    data = paper.read_bytes()
    assert data.startswith(b"%PDF")
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", data)) <= 3


@pytest.mark.parametrize("lanes", [22, 23, 24])
def test_no_heading_and_no_titles_of_a_table_stand_alone_at_the_foot_of_a_sheet(lanes: int, tmp_path: Path) -> None:
    """With one lane more and less, durations by function begin before, at, and after the end of the first sheet."""
    facts = facts_of([TaskState.DONE] * 60, workers=lanes)
    facts.rows = [(f"flow:f{task % 20}", ()) for task in range(60)]
    page, paper = tmp_path / "report.html", tmp_path / "report.pdf"
    page.write_text(render(facts, Settings()), encoding="utf-8")
    browse("--no-pdf-header-footer", f"--print-to-pdf={paper}", page.as_uri())
    sheets = [[line.strip() for line in sheet if line.strip()] for sheet in sheets_of(paper)]
    assert len(sheets) == 3
    feet = [sheet[-1] for sheet in sheets]
    assert not [foot for foot in feet if re.match(r"function +tasks|Durations by function|task +attempt", foot)], feet
    assert any(line.startswith("Durations by function") for sheet in sheets for line in sheet)
