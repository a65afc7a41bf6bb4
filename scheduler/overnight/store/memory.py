"""The store in memory: the same semantics as on a server, without one.

For simulations and tests, and for whatever needs no second process. The contract suite holds both to one behaviour.
Memory is never full here, and nothing is unreachable.
"""

from __future__ import annotations

from overnight.store.memory_records import MemoryRecords
from overnight.store.memory_repairing import MemoryRepairing
from overnight.store.memory_scheduling import MemoryScheduling
from overnight.store.memory_submitting import MemorySubmitting
from overnight.store.memory_working import MemoryWorking


class MemoryStore(MemorySubmitting, MemoryScheduling, MemoryWorking, MemoryRepairing, MemoryRecords):
    """All ports of the store in memory: `MemoryStore(now=clock)`."""
