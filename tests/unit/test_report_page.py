"""The page that tells a run: what is on it, that it stays small, and that nothing in it is more than text."""

from __future__ import annotations

import re
import time
from array import array
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from math import nan

import pytest

from overnight.certificates import BY_EXCEPTION, DeathCertificate
from overnight.commands.causes import Cause
from overnight.commands.reporting.facts import Execution, RunFacts
from overnight.commands.reporting.figures import by_function, critical_path, hungriest, next_run
from overnight.commands.reporting.page import render
from overnight.commands.reporting.timeline import MOST_BARS, MOST_LANES, WIDTH, Scale, timeline
from overnight.config import Settings
from overnight.core.states import RunPhase, TaskState
from overnight.messages import StoredError
from tests.support.stores import run_record

EVIL = "\x1b]0;owned\x07\u2028</title><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7 * 7 }}&\"'"
DONE, FAILED, SKIPPED = TaskState.DONE, TaskState.FAILED, TaskState.SKIPPED


def facts_of(
    codes: list[TaskState],
    *,
    ids: list[str] | None = None,
    needs: Mapping[int, tuple[int, ...]] | None = None,
    seconds: list[float] | None = None,
    workers: int = 2,
    name: str = "a run",
) -> RunFacts:
    """A run that has ended; tasks run one after the other on workers in turn."""
    number = len(codes)
    took = seconds or [1.0] * number
    known = [nan if code is SKIPPED else value for code, value in zip(codes, took, strict=True)]
    record = run_record("r1", total=number, phase=RunPhase.FAILED, created_at=1000.0, ended_at=1000.0 + number)
    object.__setattr__(record, "name", name)
    return RunFacts(
        run=record,
        now=5000.0,
        task_ids=ids or [f"task {task}" for task in range(number)],
        rows=[(f"flow:f{task % 3}", (needs or {}).get(task, ())) for task in range(number)],
        codes=bytes(codes),
        causes=[],
        workers=[f"host:{task % workers}" for task in range(number)],
        started=array("d", [1000.0 + task / workers for task in range(number)]),
        seconds=array("d", known),
        peak=array("d", [50e6] * number),
        size=array("d", [2000.0] * number),
    )


class Elements(HTMLParser):
    """Counts elements and attributes, as a browser would see them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "action")]


def elements(page: str) -> Elements:
    parser = Elements()
    parser.feed(page)
    return parser


def test_text_from_others_stays_text_and_the_page_needs_nothing_else() -> None:
    """M2: ids, messages, places, tails, names of runs and workers."""
    facts = facts_of([DONE, FAILED], ids=[EVIL, EVIL + "2"], name=EVIL)
    facts.workers = [EVIL, EVIL]
    facts.rows = [(EVIL, ()), (EVIL, (0,))]
    facts.causes = [Cause("abc123", EVIL, EVIL, (1,), StoredError(EVIL, EVIL, f"Traceback\n{EVIL}"), 0)]
    facts.deaths = [(1, DeathCertificate(1, EVIL, EVIL, EVIL, EVIL, EVIL, EVIL, 1002.0, 1.0, 5, f"{EVIL}\n{EVIL}"))]
    page = render(facts, Settings())
    found = elements(page)
    assert not {"script", "img", "link", "iframe", "object"} & set(found.tags)
    assert found.references == []
    assert not [name for name in found.attributes if name.startswith("on")]
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]", page)
    assert "49" not in re.sub(r"<style>.*</style>", "", page, flags=re.DOTALL)
    assert "url(" not in page
    assert "http://" not in page.replace('http-equiv="', "")


def test_the_outcome_is_told_in_numbers_and_the_next_run_in_commands() -> None:
    facts = facts_of([DONE, DONE, FAILED, SKIPPED, TaskState.CACHED], seconds=[1, 2, 3, 4, 5])
    facts.causes = [Cause("abc123", "ValueError", "flow.py:3 in f", (2,), StoredError("ValueError", "bad", ""), 1)]
    page = render(facts, Settings())
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    assert "3 of 5 tasks have succeeded, 1 failed by 1 cause" in text
    assert "1 task was skipped for it." in text
    assert "overnight retry r1 --cause abc123" in text
    assert "would run 1 failed, 1 skipped and keep 3 results" in text
    assert "overnight retry r1 " in text


def test_the_command_of_a_run_is_told_with_its_keeping_on_and_an_unknown_duration_as_unknown() -> None:
    facts = facts_of([DONE, SKIPPED])
    facts.run = replace(facts.run, command="overnight run flow.py:build", fail_fast=False)
    page = re.sub(r"\s+", " ", render(facts, Settings()))
    assert "The same is run again by <code>overnight run flow.py:build -k</code>" in page
    assert "if no input has changed; how long that takes is not known." in page
    facts.run = replace(facts.run, fail_fast=True)
    assert "The same is run again by <code>overnight run flow.py:build</code>" in render(facts, Settings())


def test_a_run_without_any_executed_task_has_a_page() -> None:
    page = render(facts_of([TaskState.CACHED] * 3, seconds=[nan] * 3), Settings())
    assert "Who ran what when" not in page
    assert "all 3 results are kept" in page


def test_the_page_of_a_hundred_thousand_tasks_stays_small() -> None:
    number = 100_000
    needs = {task: (task - 1,) for task in range(1, number) if task % 50}
    facts = facts_of([DONE] * number, needs=needs, workers=60, seconds=[0.4 + task % 7 / 10 for task in range(number)])
    page = render(facts, Settings())
    assert len(page) < 400_000
    assert page.count('class="lane"') == MOST_LANES
    assert "And 20 more workers that ran less." in page


def test_the_critical_path_is_the_chain_that_takes_longest() -> None:
    facts = facts_of([DONE] * 5, needs={2: (0, 1), 3: (2,), 4: (0,)}, seconds=[1.0, 5.0, 2.0, 3.0, 8.0])
    assert critical_path(facts) == [1, 2, 3]
    assert critical_path(facts_of([TaskState.CACHED], seconds=[nan])) == []


def test_of_a_long_critical_path_the_longest_steps_are_shown() -> None:
    number = 100
    facts = facts_of([DONE] * number, needs={task: (task - 1,) for task in range(1, number)})
    facts.seconds[77] = 50.0
    page = render(facts, Settings())
    section = page[page.index('<section id="path">') : page.index('<section id="extremes">')]
    assert "in 100 tasks" in section
    assert section.count("<tr>") == 20
    assert "task 77<" in section


def test_durations_are_told_by_function_with_the_most_work_first() -> None:
    facts = facts_of([DONE, FAILED, DONE, DONE], seconds=[1.0, 9.0, 2.0, 3.0])
    first, second, _ = by_function(facts)
    assert (first.function, first.tasks, first.failed, first.most) == ("flow:f1", 1, 1, 9.0)
    assert (second.function, second.tasks, second.total) == ("flow:f0", 2, 4.0)
    assert second.share == pytest.approx(4 / 15)


def test_memory_is_told_of_the_task_that_its_process_grew_with() -> None:
    """The process runs one task after the other, so what came after a large one says nothing of itself."""
    facts = facts_of([DONE] * 4, workers=1)
    facts.peak = array("d", [10e6, 90e6, 90e6, 20e6])
    assert hungriest(facts, 10) == [1, 3, 0]


def test_the_next_run_is_told_with_what_each_function_took() -> None:
    found = next_run(facts_of([DONE, FAILED, SKIPPED, DONE], seconds=[2.0, 3.0, 9.0, 4.0]), 1)
    assert (found.would_run, found.kept) == ({"failed": 1, "skipped": 1}, 2)
    assert found.left is not None
    assert found.left.most is None


def test_a_lane_holds_each_attempt_until_there_are_too_many() -> None:
    few = [Execution(task, "w", float(task), 0.5, failed=task == 3) for task in range(10)]
    drawn = timeline(few, ["c0"] * 10)
    assert drawn is not None
    assert [bar.task for bar in drawn.lanes[0].bars] == list(range(10))
    assert [bar.kind for bar in drawn.lanes[0].bars][2:5] == ["c0", "bad", "c0"]
    many = [Execution(task, f"w{task % 3}", task / 3, 1 / 3, failed=task == 30) for task in range(MOST_BARS + 1)]
    condensed = timeline(many, ["c0", "c1"] * len(many))
    assert condensed is not None
    assert condensed.is_condensed
    for lane in condensed.lanes:
        assert len(lane.bars) <= 251
        assert all(bar.left >= 0 and bar.left + bar.width <= WIDTH + 1 for bar in lane.bars)
        assert lane.busy == pytest.approx(1 / 3, abs=0.01)
    [mark] = [bar for lane in condensed.lanes for bar in lane.bars if bar.kind == "bad"]
    assert mark.left == pytest.approx(12.0)
    assert mark.width == 2.0


def test_a_long_pause_is_left_out_and_marked() -> None:
    """A night, and the retry in the morning."""
    ran = [Execution(0, "w", 0.0, 100.0, failed=True), Execution(0, "w", 30_000.0, 50.0, failed=False)]
    scale = Scale(ran)
    assert scale.place(100.0) > 0.6 * WIDTH
    assert [round(seconds) for _, seconds in scale.pauses] == [29_900]
    assert scale.place(0.0) == 0
    assert scale.place(30_050.0) == pytest.approx(WIDTH)
    assert scale.time(scale.place(30_020.0)) == pytest.approx(30_020.0)


def test_a_failed_attempt_before_the_last_one_is_drawn_too() -> None:
    facts = facts_of([DONE])
    facts.deaths = [(0, DeathCertificate(1, "SIGKILL", "TaskDied", "", worker="host:9", ended=990.0, seconds=5.0))]
    first, last = facts.executions()
    assert (first.worker, first.started, first.failed) == ("host:9", 985.0, True)
    assert (last.worker, last.failed) == ("host:0", False)


def test_an_attempt_that_an_exception_ended_is_told_with_its_type() -> None:
    facts = facts_of([FAILED, FAILED])
    facts.deaths = [
        (0, DeathCertificate(1, BY_EXCEPTION, "builtins.ValueError", "bad", ended=1001.0, seconds=1.0)),
        (1, DeathCertificate(1, "SIGKILL", "overnight.errors.TaskDied", "gone", ended=1002.0, seconds=1.0)),
    ]
    page = render(facts, Settings())
    assert "<td>an exception: ValueError</td>" in page
    assert "<td>SIGKILL</td>" in page


def test_the_zone_of_its_times_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "IST-5:30")
    time.tzset()
    try:
        page = render(facts_of([DONE]), Settings())
    finally:
        monkeypatch.undo()
        time.tzset()
    assert page.count("times are in IST (UTC+05:30)") == 1
    assert "started 1970-01-01 05:46:40" in page
