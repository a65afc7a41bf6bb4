"""The scheduler's loop against a real server, with the worker's part played by hand."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import pytest
import redis

from overnight.certificates import BY_LOSS, DeathCertificate
from overnight.config import Settings
from overnight.core.states import RunPhase
from overnight.keyring import read_keyring
from overnight.lineage import lineage_digest
from overnight.log_tails import sealed_tail
from overnight.messages import SpecChunk
from overnight.service.loop import Scheduler
from overnight.state_dir import wait_until
from overnight.store.records import Acceptance, Addition, Adopted, Claim, Epoch, RunEvent
from overnight.store.redis import RedisStore
from overnight.transport.memory import MemoryTransport
from overnight.transport.port import Entry
from tests.support.rollback import Saved
from tests.support.servers import connect
from tests.support.stores import digest_of, failure, run_record, success, worker_record

SECONDS = 20.0
NO_LINEAGE = lineage_digest([])
#: A scheduler looks at its workers every two seconds.
LONG_ENOUGH_TO_BE_SEEN = 5.0


class GatedStore(RedisStore):
    """A store at which the scheduler's next look for events can be held up."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__(client, "test")
        self.gate = threading.Event()
        self.gate.set()
        self.is_held = threading.Event()
        self.forgets_at_the_end: list[str] = []

    def finish(self, epoch: Epoch, run_id: str, phase: RunPhase) -> bool:
        if run_id in self.forgets_at_the_end:
            self.server.client.delete(self.server.keys.of_run(run_id, "meta"))
        return super().finish(epoch, run_id, phase)

    def wait(self, cursors: Mapping[str, str], seconds: float) -> tuple[list[RunEvent], bool]:
        if not self.gate.is_set():
            self.is_held.set()
            assert self.gate.wait(SECONDS)
        return super().wait(cursors, seconds)

    def hold(self) -> None:
        """Return when the scheduler hears nothing more until `gate` is set."""
        self.gate.clear()
        assert self.is_held.wait(SECONDS)


class Stage:
    """A running scheduler and what a worker sees of it."""

    def __init__(self, url: str, lease_seconds: float = 1.5) -> None:
        self.client = connect(url)
        self.store = GatedStore(connect(url))
        self.worker = RedisStore(self.client, "test")
        self.transport = MemoryTransport()
        self.stop = threading.Event()
        settings = Settings(lease_seconds=lease_seconds, heartbeat_seconds=0.5)
        scheduler = Scheduler(self.store, self.transport, read_keyring(), settings, "here", self.stop)
        self.thread = threading.Thread(target=scheduler.run)
        self.thread.start()

    def close(self) -> None:
        self.stop.set()
        self.store.gate.set()
        self.thread.join(SECONDS)
        assert not self.thread.is_alive()
        self.client.close()
        self.store.server.client.close()

    def add(
        self,
        dependencies: Sequence[Sequence[int]],
        adopted: Mapping[int, Adopted] | None = None,
        run_id: str = "r1",
        first: int = 0,
    ) -> None:
        """Add tasks to a run, the first of which has the index `first`."""
        count = len(dependencies)
        ids = [f"t{first + n}" for n in range(count)]
        chunk = SpecChunk(first, ids, ["f"], [0] * count, [list(d) for d in dependencies], {})
        messages = dict.fromkeys(range(first, first + count), b"message")
        addition = Addition(first, count, chunk.sealed(run_id, read_keyring()), messages, adopted or {})
        self.worker.add_tasks(run_id, addition)
        self.worker.activate(run_id)

    def claim(self, instance: str, seconds: float = SECONDS) -> Claim:
        """Take the next batch off the queue, as a worker does."""
        entries: list[Entry] = []

        def is_there() -> bool:
            entry = self.transport.pop("default")
            entries.extend([entry] if entry else [])
            return bool(entries)

        assert wait_until(is_there, SECONDS), "nothing was dispatched"
        claim = self.worker.claim(entries[0].run_id, entries[0].batch, instance, 1, seconds)
        assert isinstance(claim, Claim), claim
        return claim


@pytest.fixture
def stage(redis_url: str) -> Iterator[Stage]:
    stage = Stage(redis_url)
    yield stage
    stage.close()


def test_a_task_below_an_adopted_one_is_dispatched_with_its_lineage(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """ADVERSITY P4: also in a run that the scheduler met before its tasks were there."""
    caplog.set_level(logging.INFO)
    stage.worker.open_run(run_record(total=2), b"context")
    assert wait_until(lambda: "run r1 (a run): 0 tasks" in caplog.text, SECONDS)
    digest = digest_of("flag")
    stage.add([[], [0]], {0: Adopted(digest, b"located")})
    claim = stage.claim("w1")
    assert (list(claim.tasks), list(claim.lineages)) == ([1], [lineage_digest([digest])])


def test_a_success_that_comes_before_the_verdict_is_on_record_voids_the_verdict(stage: Stage) -> None:
    """ADVERSITY P2: the core has judged by then that the task failed; its dependants must run all the same."""
    stage.worker.open_run(run_record(total=2), b"context")
    stage.add([[], [0]])
    lost = stage.claim("w1", seconds=0.05)
    again = stage.claim("w2")
    assert list(lost.tasks) == list(again.tasks) == [0]
    stage.store.hold()
    failed = stage.worker.commit("r1", again.batch, "w2", [failure(0)], SECONDS)
    late = stage.worker.commit("r1", lost.batch, "w1", [success(0, used=NO_LINEAGE)], SECONDS)
    assert [*failed.acceptances, *late.acceptances] == [Acceptance.ACCEPTED, Acceptance.ACCEPTED]
    stage.store.gate.set()
    assert list(stage.claim("w3").tasks) == [1]


def test_the_loss_of_a_worker_is_certified_with_who_it_was(stage: Stage) -> None:
    """Each of the three losses that a task may have, and the last of them is what it failed of."""
    stage.worker.register(worker_record("w1"), SECONDS)
    stage.worker.open_run(run_record(total=1), b"context")
    stage.add([[]])
    for _ in range(3):
        batch = stage.claim("w1").batch
        begun = replace(worker_record("w1"), run_id="r1", batch=batch, task=0)
        stage.worker.heartbeat(begun, 0.05, [("r1", batch)])
        stage.worker.register(begun, SECONDS)
    assert wait_until(lambda: stage.worker.states("r1")[:1] == b"f", SECONDS)
    sealed = stage.worker.read_certificates("r1", [0])[0]
    found = sorted((DeathCertificate.opened(one, "r1", 0, read_keyring()) for one in sealed), key=lambda c: c.attempt)
    assert [(one.attempt, one.ended_by, one.worker, one.host) for one in found] == [
        (attempt, BY_LOSS, "host:42", "host") for attempt in (1, 2, 3)
    ]
    assert all(one.ended is not None for one in found)


def test_the_loss_of_a_worker_is_certified_with_what_it_had_said_of_the_task(stage: Stage) -> None:
    """Its lease and its registration end together, and another worker's sign of life clears its last lines away."""
    stage.worker.open_run(run_record(total=1), b"context")
    stage.add([[]])
    batch, began = stage.claim("w1").batch, stage.worker.now() + 3600.0
    said = replace(worker_record("w1"), run_id="r1", batch=batch, task=0, memory=3_000_000)
    said = replace(said, task_since=began, clock=began + 12.0)  # by the worker's clock, an hour ahead
    tail = sealed_tail("what it printed\n", "r1", 0, 1, read_keyring())
    spoke = stage.worker.now()
    stage.worker.heartbeat(said, LONG_ENOUGH_TO_BE_SEEN, [("r1", batch)], tail)

    def is_certified() -> bool:
        stage.worker.register(worker_record("w2"), SECONDS)
        return bool(stage.worker.read_certificates("r1", [0]))

    assert wait_until(is_certified, SECONDS)
    assert stage.worker.read_tail("w1") == b""
    [sealed] = stage.worker.read_certificates("r1", [0])[0]
    found = DeathCertificate.opened(sealed, "r1", 0, read_keyring())
    assert (found.worker, found.tail, found.peak_memory) == ("host:42", "what it printed\n", 3_000_000)
    assert found.seconds == pytest.approx(12.0, abs=0.001)
    assert found.ended is not None
    assert spoke <= found.ended < spoke + LONG_ENOUGH_TO_BE_SEEN


def test_a_run_that_is_gone_when_it_ends_does_not_end_the_scheduler(stage: Stage) -> None:
    """ADVERSITY P9: the next run is served."""
    stage.store.forgets_at_the_end.append("r1")
    stage.worker.open_run(run_record(total=1), b"context")
    stage.add([[]])
    claim = stage.claim("w1")
    stage.worker.commit("r1", claim.batch, "w1", [success(0, used=NO_LINEAGE)], SECONDS)
    stage.worker.open_run(run_record("r2", key="another", place="/elsewhere", total=1), b"context")
    stage.add([[]], run_id="r2")
    assert stage.claim("w1").run.run_id == "r2"
    assert stage.thread.is_alive()


@pytest.fixture
def patient(redis_url: str) -> Iterator[Stage]:
    """A stage whose scheduler reads nothing again for want of news while the test lasts."""
    stage = Stage(redis_url, lease_seconds=60)
    yield stage
    stage.close()


def test_a_dispatch_that_the_server_lost_while_it_ran_is_made_again(patient: Stage) -> None:
    """ADVERSITY P9: no restart shows, and no event is missing, as a dispatch has none."""
    patient.worker.open_run(run_record(total=2), b"context")
    patient.add([[], [0]])
    first = patient.claim("w1")
    patient.store.hold()
    patient.worker.commit("r1", first.batch, "w1", [success(0, used=NO_LINEAGE)], SECONDS)
    before = Saved(patient.client, b"scheduler")
    patient.store.gate.set()
    assert wait_until(lambda: patient.transport.pop("default") is not None, SECONDS)
    before.fall_back()
    assert list(patient.claim("w2").tasks) == [1]


def test_additions_that_the_server_lost_do_not_keep_the_scheduler_from_the_run(
    patient: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """ADVERSITY P9: what is added in their place has another structure."""
    patient.worker.open_run(run_record(total=1), b"context")
    patient.add([[]])
    first = patient.claim("w1")
    before = Saved(patient.client, b"scheduler")
    patient.add([[], []], first=1)
    assert wait_until(lambda: patient.transport.pop("default") is not None, SECONDS)
    patient.store.hold()
    before.fall_back()
    patient.add([[0]], first=1)
    patient.store.gate.set()
    patient.worker.commit("r1", first.batch, "w1", [success(0, used=NO_LINEAGE)], SECONDS)
    second = patient.claim("w2")
    assert (list(second.tasks), list(second.lineages)) == ([1], [lineage_digest([digest_of("value 0")])])
    patient.worker.commit("r1", second.batch, "w2", [success(1, used=second.lineages[0])], SECONDS)
    assert wait_until(lambda: patient.worker.run("r1").phase is RunPhase.SUCCEEDED, SECONDS)
    assert "is left alone" not in caplog.text


def test_a_run_whose_additions_are_lost_ends_without_them(patient: Stage) -> None:
    """It is the client that notices and adds them again; the scheduler serves what there is."""
    patient.worker.open_run(run_record(total=1), b"context")
    patient.add([[]])
    first = patient.claim("w1")
    before = Saved(patient.client, b"scheduler")
    patient.add([[], []], first=1)
    assert wait_until(lambda: patient.transport.pop("default") is not None, SECONDS)
    before.fall_back()
    patient.worker.commit("r1", first.batch, "w1", [success(0, used=NO_LINEAGE)], SECONDS)
    assert wait_until(lambda: patient.worker.run("r1").phase is RunPhase.SUCCEEDED, SECONDS)


def test_a_batch_that_is_taken_and_never_claimed_is_compared_with_the_store(patient: Stage) -> None:
    """ADVERSITY P1: a part of the record is gone, which no count tells."""
    patient.worker.open_run(run_record(total=2), b"context")
    patient.add([[]])
    taken: list[Entry | None] = [None]

    def is_taken() -> bool:
        taken.append(patient.transport.pop("default"))
        return taken[-1] is not None

    assert wait_until(is_taken, SECONDS)
    assert taken[-1] is not None
    patient.client.hdel(patient.worker.server.keys.of_run("r1", "batches"), taken[-1].batch)

    def is_claimed() -> bool:
        found = patient.transport.pop("default")
        return found is not None and isinstance(patient.worker.claim("r1", found.batch, "w1", 1, SECONDS), Claim)

    assert wait_until(is_claimed, SECONDS), "the batch that nobody can claim was pushed again and again"
