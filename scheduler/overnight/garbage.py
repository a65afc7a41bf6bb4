"""How overnight uses Python's garbage collector.

The processes that live long, a scheduler and a supervisor, make many small objects that reference counting frees and
hardly a cycle, so what a collection finds is not worth looking at everything they hold after every few hundred
allocations. A pass that makes many objects, all of which stay, has no collection at all. Processes of tasks and of
users keep Python's defaults otherwise.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

ALLOCATIONS = 50_000


def rarely_collect() -> None:
    """Look for cycles once in `ALLOCATIONS` net allocations, and never among what has been imported so far."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(ALLOCATIONS, 10, 10)


@contextmanager
def uncollected() -> Iterator[None]:
    """Look for no cycles in the body: for one that makes objects by the hundred thousand and drops none of them."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
