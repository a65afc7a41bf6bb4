"""The collector's settings of a long-lived process."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from overnight.garbage import uncollected

PROGRAM = """
import gc
from overnight.garbage import ALLOCATIONS, rarely_collect
rarely_collect()
assert gc.isenabled() and gc.get_threshold()[0] == ALLOCATIONS and gc.get_freeze_count() > 1000
class Knot: pass
import weakref
knot = Knot(); knot.self = knot; seen = weakref.ref(knot); del knot
held = [[] for _ in range(2 * ALLOCATIONS)]
print(seen() is None)
"""


def test_cycles_are_still_found_though_rarely_looked_for() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert ran.stdout == "True\n"


@pytest.mark.parametrize("was_enabled", [True, False])
def test_a_pass_without_collections_leaves_the_collector_as_it_was(was_enabled: bool) -> None:
    before = gc.isenabled()
    try:
        (gc.enable if was_enabled else gc.disable)()
        with pytest.raises(KeyError), uncollected():
            assert not gc.isenabled()
            raise KeyError
        assert gc.isenabled() is was_enabled
    finally:
        (gc.enable if before else gc.disable)()
