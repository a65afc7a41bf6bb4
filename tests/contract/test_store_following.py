"""The contract of the store towards those who follow and read: events in order, gaps noticed, waiting that ends."""

from __future__ import annotations

import threading
import time

import pytest

from overnight.core.states import RunPhase, TaskState
from overnight.errors import UnknownRun
from overnight.store.codec import Cursor
from overnight.store.keys import SHARED_KEYS
from overnight.store.records import Adopted, Happening, Request, Verdict
from overnight.store.redis import RedisStore
from tests.support.stores import Night, Store, addition, batch_of, begin, run_record, success

A_LONG_TIME = 30.0


def test_events_are_read_on_from_any_of_them(night: Night) -> None:
    night.start("b", [0, 1])
    night.commit("b", success(0))
    night.commit("b", success(1))
    told = night.store.follow("r1", "0", 0)
    assert [event.what for event in told] == [
        Happening.ADDED,
        Happening.CLAIMED,
        Happening.COMMITTED,
        Happening.COMMITTED,
    ]
    for place, event in enumerate(told):
        assert night.store.follow("r1", event.cursor, 0) == told[place + 1 :]


def test_an_addition_tells_what_was_adopted(store: Store) -> None:
    begin(store, 3, adopted=[0, 2])
    (told,) = store.follow("r1", "0", 0)
    assert (told.what, told.tasks) == (Happening.ADDED, (0, 2))


def test_a_follower_is_woken_by_an_event(night: Night) -> None:
    cursor = night.cursor()
    other = threading.Timer(0.05, night.store.request, ("r1", Request.PAUSE))
    began = time.monotonic()
    other.start()
    (told,) = night.store.follow("r1", cursor, A_LONG_TIME)
    other.join()
    assert told.request is Request.PAUSE
    assert time.monotonic() - began < A_LONG_TIME / 2


def test_a_follower_waits_no_longer_than_asked(night: Night) -> None:
    assert night.store.follow("r1", night.cursor(), 0.02) == []
    night.store.active_runs()
    assert night.store.wait({"r1": night.cursor()}, 0.02) == ([], False)
    assert night.store.wait({}, 0.02) == ([], False)


def test_the_scheduler_waits_for_many_runs_at_once(store: Store) -> None:
    one = begin(store, 1)
    other = begin(store, 1, run_id="r2", key="k2", place="p2")
    cursors = {"r1": one.cursor(), "r2": other.cursor()}
    store.active_runs()
    one.start("b1", [0])
    other.start("b2", [0])
    events, changed = store.wait(cursors, A_LONG_TIME)
    assert sorted((event.run_id, event.what) for event in events) == [
        ("r1", Happening.CLAIMED),
        ("r2", Happening.CLAIMED),
    ]
    assert not changed


def test_the_scheduler_hears_of_runs_that_come_and_go(store: Store) -> None:
    store.active_runs()
    night = begin(store, 1, adopted=[0])
    assert store.wait({}, A_LONG_TIME) == ([], True)
    cursor = night.cursor()
    assert store.wait({"r1": cursor}, 0) == ([], False)
    night.end(RunPhase.SUCCEEDED)
    events, changed = store.wait({"r1": cursor}, A_LONG_TIME)
    assert [event.what for event in events] == [Happening.ENDED]
    assert changed
    store.add_tasks("r1", addition(1, 1))
    assert store.wait({}, A_LONG_TIME)[1]


def test_what_changed_before_the_runs_were_listed_is_not_told(store: Store) -> None:
    store.open_run(run_record(), b"")
    assert store.active_runs() == ["r1"]
    assert store.wait({}, 0) == ([], False)


def test_a_completed_submission_wakes_the_scheduler(store: Store) -> None:
    store.open_run(run_record(total=0), b"")
    store.active_runs()
    store.activate("r1")
    assert store.wait({}, A_LONG_TIME) == ([], True)


def test_a_run_that_vanished_is_a_gap(store: Store) -> None:
    events, changed = store.wait({"gone": "0"}, A_LONG_TIME)
    assert [(event.run_id, event.what) for event in events] == [("gone", Happening.GAP)]
    assert changed


def test_trimmed_entries_are_a_gap(server_store: RedisStore) -> None:
    night = begin(server_store)
    start = night.cursor()
    night.dispatch(*(batch_of(f"b{task}", [task]) for task in range(4)))
    for task in range(4):
        night.claim(f"b{task}")
    server_store.server.client.xtrim(server_store.server.keys.of_run("r1", "events"), maxlen=2, approximate=False)
    for cursor in ("0", start):
        told = server_store.follow("r1", cursor, 0)
        assert [event.what for event in told] == [Happening.GAP, Happening.CLAIMED, Happening.CLAIMED]
        assert server_store.follow("r1", told[0].cursor, 0) == told[1:]


def test_a_server_that_was_rolled_back_is_a_gap(server_store: RedisStore) -> None:
    """P9: what followers saw and the server lost is noticed, also once new entries have taken the numbers."""
    night = begin(server_store, 8)
    keys = server_store.server.keys.for_run_script("r1")[len(SHARED_KEYS) :]
    client = server_store.server.client
    saved = {key: value for key in keys if (value := client.dump(key)) is not None}
    night.dispatch(batch_of("b1", [0]), batch_of("b2", [1]))
    night.claim("b1")
    night.claim("b2")
    seen = night.cursor()
    client.delete(*keys)
    for key, value in saved.items():
        client.restore(key, 60_000, value)
    (told,) = server_store.follow("r1", seen, 0)
    assert told.what is Happening.GAP
    assert told.cursor == night.cursor()
    night.start("b3", [0])
    assert [event.what for event in server_store.follow("r1", seen, 0)][:1] == [Happening.GAP]
    for task in range(1, 3):
        night.start(f"c{task}", [task])
    assert [event.what for event in server_store.follow("r1", seen, 0)][:1] == [Happening.GAP]
    assert server_store.follow("r1", night.cursor(), 0) == []


def test_the_scheduler_hears_of_runs_that_a_rolled_back_server_holds_again(server_store: RedisStore) -> None:
    """P9: a run whose end was lost is active again, and nobody but the server knows."""
    night = begin(server_store)
    night.settle(*(Verdict(task, TaskState.CANCELLED) for task in range(4)))
    server_store.active_runs()
    client = server_store.server.client
    saved = {key: value for key in client.scan_iter() if (value := client.dump(key)) is not None}
    assert night.end()
    assert server_store.wait({}, 0) == ([], True)
    assert server_store.wait({}, 0) == ([], False)
    client.flushall()
    for key, value in saved.items():
        client.restore(key, 60_000, value)
    assert server_store.wait({}, 0) == ([], True)
    assert server_store.active_runs() == ["r1"]
    assert server_store.wait({}, 0) == ([], False)
    client.flushall()
    assert server_store.wait({}, 0) == ([], True)
    assert server_store.wait({}, 0) == ([], False)


def test_durations_are_kept(store: Store) -> None:
    assert store.read_durations() == {}
    store.write_durations({"f": (0.5, 3), "g.h": (2.0, 1)})
    store.write_durations({"f": (0.25, 4)})
    assert store.read_durations() == {"f": (0.25, 4), "g.h": (2.0, 1)}
    store.write_durations({})


def test_a_store_tells_its_clock(store: Store) -> None:
    assert store.now() <= store.now()


def test_an_unknown_run_is_named(store: Store) -> None:
    for ask in (
        lambda: store.run("nope"),
        lambda: store.states("nope"),
        lambda: store.specs("nope"),
        lambda: store.context("nope"),
        lambda: store.tasks("nope", [0]),
        lambda: store.follow("nope", "0", 0),
        lambda: store.read_results("nope", [0]),
        lambda: store.read_blobs("nope", ["a"]),
        lambda: store.read_digests("nope", [0]),
        lambda: store.missing_blobs("nope", []),
        lambda: store.put_blobs("nope", {"a": b""}),
        lambda: store.add_tasks("nope", addition(0, 1)),
        lambda: store.activate("nope"),
        lambda: store.adopt("nope", {0: Adopted(bytes(32), b"")}),
        lambda: store.rewrite_result("nope", 0, b"", bytes(32)),
        lambda: store.invalidate("nope", [0]),
        lambda: store.request("nope", Request.CANCEL),
        lambda: store.request("nope", Request.RETRY),
        lambda: store.load_run("nope"),
        lambda: store.claim("nope", "b", "w", 1, 1),
        lambda: store.give_back("nope", "b", "w", [0]),
    ):
        with pytest.raises(UnknownRun, match="nope"):
            ask()


def test_new_events_that_hide_before_the_lost_ones_are_a_gap(server_store: RedisStore) -> None:
    """P9, P14: the server fell back, and its clock with it, so that new entries have older ids than the follower's."""
    night = begin(server_store, 8)
    night.start("b1", [0])
    seen = night.cursor()
    number = Cursor.parse(seen).number
    client, keys = server_store.server.client, server_store.server.keys
    events, meta = keys.of_run("r1", "events"), keys.of_run("r1", "meta")
    client.delete(events)
    client.xadd(events, {"n": number + 1, "w": "claimed", "b": "b2", "t": "1"}, id="1-1")
    client.expire(events, 60)
    client.hset(meta, "sequence", number + 1)
    (told,) = server_store.follow("r1", seen, 0)
    assert (told.what, told.cursor) == (Happening.GAP, f"1-1@{number + 1}")
    assert server_store.follow("r1", told.cursor, 0) == []


def test_a_dispatch_that_is_made_once_more_is_no_fall_back(night: Night) -> None:
    """The reply to a dispatch may come and the dispatch be sent again all the same; it is counted once."""
    cursor = night.store.load_run("r1").cursor
    for _ in range(3):
        assert night.dispatch(batch_of("b", [0])) == [True]
    assert night.store.wait({"r1": cursor}, 0)[0] == []


def test_readers_see_which_batches_are_in_flight_and_which_of_them_are_held(night: Night) -> None:
    night.start("held", [0, 1])
    night.dispatch(batch_of("queued", [2]))
    night.commit("held", success(0))
    flights = {
        flight.batch: (flight.queue, tuple(flight.tasks), flight.claimed) for flight in night.store.flights("r1")
    }
    assert flights == {"held": ("default", (1,), True), "queued": ("default", (2,), False)}
    night.commit("held", success(1))
    assert [flight.batch for flight in night.store.flights("r1")] == ["queued"]
    with pytest.raises(UnknownRun):
        night.store.flights("nobody")
