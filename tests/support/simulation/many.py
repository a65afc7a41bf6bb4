"""Many seeds, in one process or several."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from tests.support.simulation.planted import planted
from tests.support.simulation.play import Played, played

CHUNK = 10


def _chunk(first: int, number: int, name: str | None, *, faults: bool) -> list[Played]:
    with planted(name):
        return [without_frames(played(seed, faults=faults)) for seed in range(first, first + number)]


def without_frames(one: Played) -> Played:
    """Let an error cross processes as its text."""
    if one.error is not None and not isinstance(one.error, AssertionError):
        text = "".join(traceback.format_exception(one.error)[-6:])
        object.__setattr__(one, "error", RuntimeError(text))
    elif one.error is not None:
        one.error.__traceback__ = None
    return one


def seeds(first: int, number: int, name: str | None = None, *, jobs: int = 1, faults: bool = True) -> Iterator[Played]:
    """Play seeds in order, in so many processes."""
    starts = range(first, first + number, CHUNK)
    sizes = [min(CHUNK, first + number - start) for start in starts]
    if jobs == 1:
        for start, size in zip(starts, sizes, strict=True):
            yield from _chunk(start, size, name, faults=faults)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        parts = zip(starts, sizes, strict=True)
        chunks = [pool.submit(_chunk, start, size, name, faults=faults) for start, size in parts]
        try:
            for chunk in chunks:
                yield from chunk.result()
        finally:
            pool.shutdown(cancel_futures=True)
