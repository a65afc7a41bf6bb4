"""The collector's settings of a long-lived process."""

from __future__ import annotations

import subprocess
import sys

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
