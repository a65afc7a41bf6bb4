"""The night and the morning after, as a new user has them: every command after the first is one that was printed.

A pipeline of 300 tasks is started in the evening on the private server, and its client is closed. 40 tasks fail of two
causes, one is killed for want of memory, one is slow. In the morning its state is read, the report is looked at, what
is wrong is mended outside of overnight, and each cause is retried, until the run has finished.
"""

from __future__ import annotations

import re
import shlex
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from overnight.state_dir import wait_until
from tests.acceptance.tools.night import UNREADABLE, WITHOUT_REFERENCE
from tests.support.command import Desk, Finished, desk, finished
from tests.support.memory_group import memory_group, why_none

MB = 1_000_000
FLOW = Path(__file__).parent / "tools" / "night.py"


class Morning:
    """Types what was printed. A command is taken from what the last one said, and from nowhere else."""

    def __init__(self, place: Desk, enter: Callable[[], None]) -> None:
        self._place = place
        self._enter = enter
        self.said = ""

    def type(self, *words: str) -> Finished:
        """Type a command that a user knows from the list of commands."""
        ended = finished(self._place.start(*words, preexec_fn=self._enter))
        self.said = ended.out + ended.err
        return ended

    def type_what_was_said(self, pattern: str) -> Finished:
        """Type the first command that was printed and that matches."""
        commands = [found for found in re.findall(r"overnight [^\n]+", self.said) if re.match(pattern, found)]
        assert commands, (pattern, self.said)
        return self.type(*shlex.split(commands[0])[1:])


def steps_of(said: str) -> list[tuple[str, str]]:
    """What was failed by each cause, and the command that runs it again."""
    return re.findall(r"  failed: (.+)\n(?:    .+\n)*?    run (?:it|them) again: (overnight retry .+)", said)


@pytest.mark.timeout(300)
def test_a_night_that_went_wrong_is_brought_to_its_end_by_following_what_is_printed(short_directory: Path) -> None:
    missing = why_none()
    if missing is not None:
        pytest.skip(missing)
    with memory_group(450 * MB) as group, desk(short_directory / "night") as place:
        shutil.copy(FLOW, place.directory / "night.py")
        morning = Morning(place, group.enter)

        # The evening: a terminal that is closed.
        client = place.start("run", "night.py:build", "-k", "-j", "2", preexec_fn=group.enter)
        assert client.stdout is not None
        assert re.match(r"Run \S+: 300 of 300 tasks to run\.", client.stdout.readline())
        client.send_signal(signal.SIGHUP)
        finished(client)

        # The morning.
        assert wait_until(lambda: "failed\n" in morning.type("status", "last").out.splitlines(keepends=True)[0], 90)
        assert "300 of 300 tasks ended: 233 done, 41 failed, 26 skipped" in morning.said
        assert "3 causes explain 41 failures:" in morning.said
        assert f"  failed: {UNREADABLE} tasks: ValueError (night.py:" in morning.said
        assert f"  failed: {WITHOUT_REFERENCE} tasks: FileNotFoundError (night.py:" in morning.said
        assert re.search(r"  failed: index: TaskDied: .+ out of memory \(SIGKILL, peak memory \d+ MB", morning.said)
        assert "    skipped for them: " in morning.said
        overview = morning.said

        # One task, one log, the whole story.
        assert "SIGKILL, out of memory" in morning.type("status", "last", "index").out
        assert "building the index" in morning.type("logs", "last", "index").out
        morning.said = overview
        reported = morning.type_what_was_said(r"overnight report \S+ -o report\.html")
        assert reported.status == 0
        page = (place.directory / "report.html").read_text(encoding="utf-8")
        assert "3 causes explain 41 failures" in page
        assert sorted(re.findall(r"overnight retry \S+ --cause \w+", page)) == sorted(
            command for _, command in steps_of(overview)
        )

        # Each cause is mended and retried by the command that names it.
        mend: dict[str, Callable[[], object]] = {
            "ValueError": (place.directory / "schema-2").touch,
            "FileNotFoundError": (place.directory / "reference").touch,
            "TaskDied": lambda: (place.directory / "memory-cap").write_text("20", encoding="ascii"),
        }
        steps = steps_of(overview)
        assert len(steps) == 3
        for what, command in steps:
            next(mended for name, mended in mend.items() if name in what)()
            morning.said = command
            assert morning.type_what_was_said(r"overnight retry").status == 0
            followed = morning.type_what_was_said(r"overnight follow \S+")
            assert followed.status == (0 if command is steps[-1][1] else 1), morning.said

        assert "300 done" in morning.said
        assert (place.directory / "merged").exists()
        assert morning.type("status", "last").out.splitlines()[0].endswith(": succeeded")
        assert "Run all of it again" not in morning.said
        told = morning.type("status", "last", "index")
        assert "attempt 1 ended by SIGKILL, out of memory" in told.out
        assert "done" in told.out.splitlines()[0]


def test_what_is_typed_from_memory_is_named_by_the_list_of_commands(tmp_path: Path) -> None:
    """Nothing else is needed to begin: `--help` names status, report, retry, follow and logs."""
    told = Desk(tmp_path).run("--help").out
    for verb in ("status", "report", "retry", "follow", "logs"):
        assert re.search(rf"^  {verb} ", told, re.MULTILINE), told
