"""Clients that attach, are interrupted, or see the server lose everything (ADVERSITY P3, P9, P15; QX6, QX7)."""

from __future__ import annotations

import os
import signal

from tests.support.sites import SCHEDULER, Census, Entries, Run, Site, finish, kill, killed


def test_the_same_command_attaches_to_the_run_and_starts_nothing_twice(site: Site) -> None:
    """QX7."""
    entries = Entries(site, "attached", seconds=0.3)
    first = entries.start()
    entries.wait_for(ended=5)
    second = entries.start()
    assert "Attached to run" in finish(second)
    finish(first)
    assert set(entries.starts().values()) == {1}
    entries.check_complete(entries.total)


def test_an_attached_client_submits_again_what_the_server_forgot(site: Site) -> None:
    """P9: no flag, no second start; the census is right."""
    census = Census(site, "forgotten")
    client = census.start()
    census.wait_for(ended=8)
    before = census.recorded()
    with site.client() as connection:
        connection.flushall()
    assert "Redis no longer knows the run" in finish(client)
    census.check_not_started_again(before)
    census.check()


def test_an_attached_client_adds_again_what_a_server_lost_that_still_knows_the_run(site: Site) -> None:
    """P9: the server rolled back to the moment after the run was opened and before its tasks were added."""
    entries = Entries(site, "rolled-back")
    client = entries.start()
    entries.wait_for(ended=5)
    before = entries.recorded()
    with site.store() as store:
        run = "{overnight}:run:" + store.runs()[0].run_id
    with site.client() as connection:
        meta = f"{run}:meta"
        kept = {meta.encode(), f"{run}:context".encode()}
        with connection.pipeline() as rolled_back:
            rolled_back.delete(*(set(connection.keys(f"{run}:*")) - kept))
            rolled_back.hset(meta, mapping={"phase": "submitting", "added": 0, "open": 0, "sequence": 0})
            rolled_back.execute()
    kill(site.slot(SCHEDULER))  # the next one reads all anew, as this one does when the server has been restarted
    finish(client)
    entries.check_not_started_again(before)
    entries.check_complete(entries.total)


def test_the_same_command_continues_after_client_and_data_are_gone(site: Site) -> None:
    """P9, detached."""
    census = Census(site, "forsaken")
    client = census.start()
    census.wait_for(ended=8)
    killed(client)
    before = census.recorded()
    with site.client() as connection:
        connection.flushall()
    finish(census.start())
    assert len(before.tasks) < census.total
    census.check_not_started_again(before)
    census.check()


def test_what_fails_for_want_of_a_record_that_was_damaged_runs_again_once_that_is_computed_anew(site: Site) -> None:
    """P12: the record was believed when the run began, and is damaged before it is used."""
    fifo = site.directory / "fifo"
    os.mkfifo(fifo)
    words = ("tests.support.ledgers:gated_beside", "-p", f"fifo={fifo}")
    finish(Run(site, "damaged", *words, "-t", "entry 0", jobs=1).start())
    run = Run(site, "damaged", *words, "-k", jobs=1)
    client = run.start()
    with fifo.open("w"):  # waits for the gate to be running
        [record] = run.flags.glob("entry_0*")
        os.truncate(record, record.stat().st_size - 1)
    assert "1 task lacked a result that is lost" in finish(client)
    assert run.starts() == {"entry 0": 2, "gate": 1, "entry 1": 1}


def test_an_interrupt_stops_the_run_and_the_same_command_continues(site: Site) -> None:
    """P15, QX7: what ran was given time to finish, so nothing of it is lost."""
    entries = Entries(site, "interrupted")
    client = entries.start()
    entries.wait_for(ended=5)
    client.send_signal(signal.SIGINT)
    assert "This continues: overnight run" in finish(client, status=130)
    assert site.phase() == "cancelled"
    before = entries.recorded()
    assert len(before.tasks) < entries.total
    assert len(before.tasks) == entries.ended()
    finish(entries.start())
    entries.check_not_started_again(before)
    assert set(entries.starts().values()) == {1}
    entries.check_complete(entries.total)
