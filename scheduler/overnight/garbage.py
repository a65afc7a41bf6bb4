"""How the processes that live long, a scheduler and a supervisor, use Python's garbage collector.

They make many small objects that reference counting frees and hardly a cycle, so what a collection finds is not worth
looking at everything they hold after every few hundred allocations. Processes of tasks keep Python's defaults.
"""

from __future__ import annotations

import gc

ALLOCATIONS = 50_000


def rarely_collect() -> None:
    """Look for cycles once in `ALLOCATIONS` net allocations, and never among what has been imported so far."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(ALLOCATIONS, 10, 10)
