"""kill -9 of each process, and of all at once, in the middle of a census (ADVERSITY P1, P3, P6 to P8, P11)."""

from __future__ import annotations

import os
from collections.abc import Callable

import psutil
import pytest

from tests.support.sites import SCHEDULER, WORKER, Census, Site, finish, kill, killed

VICTIMS: dict[str, Callable[[Site], psutil.Process]] = {
    "scheduler": lambda site: site.slot(SCHEDULER),
    "worker": lambda site: site.slot(WORKER),
    "server": Site.server,
    "keeper": Site.keeper,
}


@pytest.mark.parametrize("victim", VICTIMS)
def test_the_census_comes_out_right_when_a_process_is_killed(site: Site, victim: str) -> None:
    """QX6: the client sees it through, and nothing that was on record starts again."""
    census = Census(site, victim)
    client = census.start()
    census.wait_for(ended=8)
    before = census.recorded()
    kill(VICTIMS[victim](site))
    finish(client)
    assert len(before.tasks) < census.total, "the fault came too late"
    census.check_not_started_again(before)
    census.check()
    assert site.phase() == "succeeded"


def test_a_killed_child_costs_its_task_alone_and_the_same_command_continues(site: Site) -> None:
    """QX4: a death is that task's failure, told as such; nothing else is charged."""
    census = Census(site, "child")
    client = census.start()
    census.wait_for(ended=8)
    before = census.recorded()
    children = site.task_children()
    census.freeze_at_work(children)
    kill(children[0])
    for child in children[1:]:
        child.resume()
    told = finish(client, status=1)
    assert "1 failed" in told
    assert "SIGKILL" in told
    finish(census.start())
    census.check_not_started_again(before)
    census.check()


def test_the_run_goes_on_without_its_client_and_starts_each_task_once(site: Site) -> None:
    """QX7: a killed client takes nothing along; the same command finds the work done."""
    census = Census(site, "client")
    client = census.start()
    census.wait_for(ended=8)
    killed(client)
    assert census.ended() < census.total, "the fault came too late"
    site.wait(site.is_over)
    assert site.phase() == "succeeded"
    assert set(census.starts().values()) == {1}
    census.check()


def test_everything_is_killed_at_once_and_the_same_command_continues(site: Site) -> None:
    """The worst that a power cut does to processes."""
    census = Census(site, "everything")
    client = census.start()
    census.wait_for(ended=8)
    victims = [process for process in site.processes() if process.pid not in (os.getpid(), client.pid)]
    assert len(victims) >= 6, victims
    kill(psutil.Process(client.pid), *victims)
    client.communicate()
    before = census.recorded()
    assert len(before.tasks) < census.total, "the fault came too late"
    finish(census.start())
    census.check_not_started_again(before)
    census.check()
    assert site.phase() == "succeeded"
