"""What a run waits for is told where it is started and looked at; and what to type is whole, with the server."""

from __future__ import annotations

import shlex
from pathlib import Path

from tests.support.command import desk, finished

GRAPHS = "tests.support.graphs"


def test_a_run_that_nothing_serves_is_told_with_what_is_missing(tmp_path: Path, redis_url: str) -> None:
    """QX2: by whoever submits it, and by whoever looks."""
    with desk(tmp_path / "desk") as place:
        given = ("-u", redis_url)
        found = place.run("submit", f"{GRAPHS}:diamond", "-q", "gpu", *given)
        assert found.status == 0
        run_id = found.out.splitlines()[0]
        u = shlex.join(given)
        start = f"overnight worker -q gpu {u}"
        no_scheduler = f"No scheduler serves this server; the run waits. Start one with: overnight scheduler {u}"
        for text in (found.err, place.run("status", *given).out):
            assert no_scheduler in text
            assert f"No worker serves queue gpu; the run waits. Start one with: {start}" in text
        assert f"status {run_id} {u}; watch it: overnight follow {run_id} {u}" in found.out
        assert "It runs by itself" not in found.out
        doctor = place.run("doctor", *given).out
        assert f"run {run_id}: No worker serves queue gpu; the run waits. Start one with: {start}" in doctor
        assert f"overnight scheduler {u}" in doctor


def test_what_to_type_names_the_server_that_was_looked_at(tmp_path: Path, redis_url: str) -> None:
    with desk(tmp_path / "desk") as place:
        given = ("-u", redis_url, "--state-dir", "some where")
        none = place.run("status", *given)
        assert none.status == 5
        typed = shlex.join(given)
        assert none.sentence.endswith(f"no run yet on the server {redis_url}. Start one: overnight run TARGET {typed}")
        run_id = place.run("submit", f"{GRAPHS}:diamond", *given).out.splitlines()[0]
        assert f"This lists them: overnight runs {typed}" in place.run("status", "x", *given).sentence
        assert f"overnight resume {run_id} {typed}" in place.run("pause", *given).out
        assert f"overnight retry {run_id} {typed}" in place.run("cancel", *given).out
        place.environ["OVERNIGHT_REDIS_URL"] = redis_url
        assert place.run("workers").out.endswith("Start some: overnight worker -j 4\n")


def test_the_queues_of_tasks_that_wait_are_told(tmp_path: Path, redis_url: str) -> None:
    """O5: a task may name a queue of its own."""
    (tmp_path / "queues.py").write_text(
        "from overnight import TaskGraph\n"
        "def build():\n"
        "    graph = TaskGraph()\n"
        "    graph.create_task('a', int, args=[], queue='fast')\n"
        "    graph.create_task('b', int, args=[], queue='slow')\n"
        "    return graph\n"
    )
    with desk(tmp_path) as place:
        place.environ["OVERNIGHT_REDIS_URL"] = redis_url
        found = place.run("submit", "queues.py:build")
        for text in (found.err, place.run("status").out, place.run("doctor").out):
            assert "No worker serves queue fast" in text
            assert "No worker serves queue slow" in text
            assert "No worker serves queue default" not in text


def test_a_run_on_a_private_server_says_which_queue_has_no_worker_and_ends_with_what_it_says(tmp_path: Path) -> None:
    """QX2: no time left is told while a task waits for such a worker."""
    (tmp_path / "queues.py").write_text(
        "from overnight import TaskGraph\n"
        "def build():\n"
        "    graph = TaskGraph()\n"
        "    first = graph.create_task('a', int, args=[])\n"
        "    graph.create_task('b', int, args=[first], queue='gpu')\n"
        "    return graph\n"
    )
    with desk(tmp_path) as place:
        watched = place.start("run", "queues.py:build", "-j", "1")
        assert watched.stderr is not None
        told = watched.stderr.readline()
        start = "No worker serves queue gpu; the run waits. Start one with: overnight worker -q gpu"
        assert told == f"overnight: warning: {start}\n"
        assert f"  {start}\n" in (said := place.run("status").out)
        assert " left" not in said
        facts = place.run("status", "--json").facts
        assert (facts["seconds_left"], facts["lacks"]) == (None, [{"queue": "gpu", "text": start}])
        worker = place.start(*shlex.split(start.partition("with: overnight ")[2]))
        try:
            found = finished(watched)
        finally:
            worker.terminate()
            finished(worker)
        assert (found.status, found.err) == (0, "")
        assert " left" not in found.out


def test_a_directory_that_a_cancelled_run_still_uses_is_told_without_advice_to_cancel_it(
    tmp_path: Path, redis_url: str
) -> None:
    with desk(tmp_path / "desk") as place:
        place.environ["OVERNIGHT_REDIS_URL"] = redis_url
        run_id = place.run("submit", f"{GRAPHS}:diamond", "-d", "records", "--json").facts["run"]
        other = ("submit", f"{GRAPHS}:sleeps", "-d", "records")
        assert f"or stop it (overnight cancel {run_id})" in place.run(*other).sentence
        assert place.run("cancel", run_id).status == 0
        told = place.run(*other).sentence
        assert f"which is being cancelled: type this again when it has ended (overnight follow {run_id})" in told
        assert "overnight cancel" not in told
