"""Follows the futures of batches on the event loop of a Dask client, and brings their values to the driver.

Nothing polls and no thread is added: each future has a coroutine on the client's own loop that sleeps until the
scheduler tells of it. Batches that end within a millisecond are fetched together. What has ended is put into one
queue, where the driver waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from distributed import Client, Future, KilledWorker

from overnight.dask_batch import Report

#: Seconds in which ended batches gather before they are fetched.
GATHERING_SECONDS = 0.001
#: Seconds after the death of a worker in which everything that was lost with it becomes known.
DEATH_SECONDS = 0.05
#: Seconds that a run which is given up waits for values that are finished.
LAST_FETCH_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class BatchEnded:
    """How a batch ended: with its value, with an error, or with neither, when it was lost."""

    name: str
    report: Report | None = None
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class BatchLate:
    """What a late batch tells: `outcomes` by position, and the positions that it gives back."""

    name: str
    outcomes: Sequence[tuple[int, bytes]]
    given_back: Sequence[int]


Mailbox = SimpleQueue[Sequence[BatchEnded | BatchLate]]


class Collector:
    """Puts what becomes of batches into `mailbox`, those that ended together as one entry."""

    def __init__(self, client: Client, mailbox: Mailbox) -> None:
        self._client = client
        self._mailbox = mailbox
        self._ended: list[tuple[str, Future[Any], BaseException | None]] = []

    def follow(self, name: str, future: Future[Any]) -> None:
        """Tell the mailbox once when the batch has ended."""
        loop: Any = self._client.loop
        loop.add_callback(self._follow, name, future)

    def finished(self, futures: dict[str, Future[Any]]) -> list[BatchEnded]:
        """Return those that are finished and whose values can be had soon; for the end of a run."""
        ready = [(name, future, None) for name, future in futures.items() if future.status == "finished"]
        if not ready:
            return []

        async def fetched() -> list[BatchEnded]:
            return await asyncio.wait_for(self._fetched(ready), LAST_FETCH_SECONDS)

        ended: list[BatchEnded] = self._client.sync(fetched)
        return ended

    async def _follow(self, name: str, future: Future[Any]) -> None:
        error: BaseException | None
        try:
            error = await future.exception()
        except (Exception, asyncio.CancelledError) as failure:  # the client is closing: the batch is lost to it
            error = None if isinstance(failure, asyncio.CancelledError) else failure
        self._ended.append((name, future, error))
        if len(self._ended) == 1:
            await asyncio.sleep(GATHERING_SECONDS)
            if any(isinstance(error, KilledWorker) for _, _, error in self._ended):
                await asyncio.sleep(DEATH_SECONDS)
            ended, self._ended = self._ended, []
            self._mailbox.put(await self._told(ended))

    async def _told(self, ended: Sequence[tuple[str, Future[Any], BaseException | None]]) -> list[BatchEnded]:
        finished = [entry for entry in ended if entry[1].status == "finished" and entry[2] is None]
        told = [BatchEnded(name, error=error) for name, future, error in ended if (name, future, error) not in finished]
        try:
            return told + await self._fetched(finished)
        except (Exception, asyncio.CancelledError) as failure:  # fetching failed: so have these batches, and no other
            return told + [BatchEnded(name, error=failure) for name, _, _ in finished]

    async def _fetched(self, finished: Sequence[tuple[str, Future[Any], Any]]) -> list[BatchEnded]:
        if not finished:
            return []
        reports = await self._client.gather([future for _, future, _ in finished], asynchronous=True)
        return [BatchEnded(name, report) for (name, _, _), report in zip(finished, reports, strict=True)]
