"""Two schedulers, a frozen one, and lost queue entries (ADVERSITY P1, P7)."""

from __future__ import annotations

import signal

from tests.support.sites import SCHEDULER, WORKER, Entries, Site, finish, kill

SECOND_WORKER = "worker-default-2"


def test_a_standby_takes_over_and_the_frozen_leader_finds_itself_fenced(site: Site) -> None:
    """P7: two never both write, so no task starts twice."""
    entries = Entries(site, "fenced")
    leader = site.slot(SCHEDULER)
    site.wait(lambda: site.epoch()[0] > 0)
    number, _ = site.epoch()
    standby = site.start_scheduler()
    client = entries.start()
    entries.wait_for(ended=5)
    leader.suspend()
    site.wait(lambda: site.epoch()[0] > number)
    taken, holder = site.epoch()
    entries.wait_for(ended=entries.ended() + 3)
    leader.resume()
    finish(client)
    assert site.epoch() == (taken, holder)
    assert set(entries.starts().values()) == {1}
    log = site.files.log(SCHEDULER)
    site.wait(lambda: "another scheduler took over: standing by" in log.read_text("utf-8"))
    standby.send_signal(signal.SIGTERM)
    standby.communicate(timeout=30)
    site.wait(lambda: site.epoch()[0] > taken)
    entries.check_complete(entries.total)


def test_a_standby_takes_over_from_a_killed_leader(site: Site) -> None:
    """P7: the one that is restarted stands by in its turn."""
    entries = Entries(site, "succession")
    standby = site.start_scheduler()
    client = entries.start()
    entries.wait_for(ended=5)
    number, _ = site.epoch()
    kill(site.slot(SCHEDULER))
    site.wait(lambda: site.epoch()[0] > number)
    finish(client)
    assert set(entries.starts().values()) == {1}
    standby.kill()
    standby.communicate()
    entries.check_complete(entries.total)


def test_queue_entries_that_vanish_are_pushed_again(site: Site) -> None:
    """P1: an entry is a hint; nobody serves this queue until its entries have been lost."""
    entries = Entries(site, "hints", "-q", "lonely", seconds=0.0, jobs=0)
    queue = "{overnight}:rq:queue:lonely"
    client = entries.start()
    with site.client() as connection:
        site.wait(lambda: connection.llen(queue) > 0)
        waiting = set(connection.lrange(queue, 0, -1))
        connection.delete(queue)
        site.wait(lambda: set(connection.lrange(queue, 0, -1)) == waiting)
    helper = Entries(site, "hints", "-q", "lonely", seconds=0.0, jobs=1).start()
    finish(client)
    finish(helper)
    assert set(entries.starts().values()) == {1}
    entries.check_complete(entries.total)


def test_a_rolling_restart_in_the_middle_of_a_run_starts_no_task_twice(site: Site) -> None:
    """P15, O7: each scheduler and worker is told to stop, drains, and is replaced before the next one is told."""
    entries = Entries(site, "rolling", seconds=0.3)
    client = entries.start()
    entries.wait_for(ended=3)
    for name in (SCHEDULER, WORKER, SECOND_WORKER):
        process = site.slot(name)
        process.send_signal(signal.SIGTERM)
        site.wait(lambda process=process: not process.is_running())  # type: ignore[misc]
        assert site.slot(name).pid != process.pid
    assert client.poll() is None, "the run was over before all had been restarted"
    finish(client)
    assert set(entries.starts().values()) == {1}
    entries.check_complete(entries.total)
