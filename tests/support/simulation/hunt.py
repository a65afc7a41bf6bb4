"""Look for a seed that finds a planted bug: ``python -m tests.support.simulation.hunt [NAME...]``.

A seed is drawn before it is played, so that only those are played in which the fault that shows the bug strikes often.
Which seed that is changes with every call that the product makes more or less.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support.simulation.planted import PLANTED, planted
from tests.support.simulation.play import Play, played
from tests.support.simulation.world import Violation

LAST = 20_000
_NOWHERE = Path("/nowhere")


def _often(play: Play, *faults: str) -> bool:
    """Tell whether each of these faults strikes often."""
    return all(play.world.rates.get(fault, 0.0) >= 0.04 for fault in faults)


def _chained(play: Play) -> bool:
    """Tell whether batches hold members that depend on each other."""
    return max(play.durations.values()) <= 0.1 and any(play.dependencies.values())


def _any(_play: Play) -> bool:
    return True


#: In which seeds a bug may show; in any, if it is not named here.
PROMISING: dict[str, Callable[[Play], bool]] = {
    "any-failure": lambda play: _often(play, "pause") or _often(play, "kill"),
    "any-lineage": lambda play: not play.has_flags and _often(play, "restart") and _often(play, "pause"),
    "any-member": lambda play: _often(play, "restart") and _chained(play),
    "claim-not-repeatable": lambda play: _often(play, "reply") and not _often(play, "restart"),
    "continue-ignores-lineage": lambda play: play.has_flags and _often(play, "damage"),
    "continue-trusts-done": lambda play: play.has_flags and _often(play, "damage"),
    "counted-ids": lambda play: _often(play, "restart") and any(play.dependencies.values()),
    "dispatch-of-anything": lambda play: _often(play, "pause", "event"),
    "events-only": lambda play: _often(play, "event"),
    "flag-after-commit": lambda play: play.has_flags and _often(play, "kill"),
    "flag-overwritten": lambda play: play.has_flags and _often(play, "pause"),
    "lack-is-charged": lambda play: _often(play, "loss"),
    "no-audit": lambda play: play.has_flags and _often(play, "damage"),
    "no-epoch": lambda play: _often(play, "pause"),
    "no-look-first": lambda play: play.has_flags and (_often(play, "pause") or _often(play, "kill")),
    "no-queue-repair": lambda play: _often(play, "entry") or _often(play, "kill"),
    "torn-flag-accepted": lambda play: play.has_flags and (_often(play, "torn") or _often(play, "damage")),
}


def finds(name: str, seed: int) -> bool:
    """Tell whether a seed finds a planted bug, and nothing where nothing is planted.

    Found is what breaks an invariant: a plant that does not fit what it replaces only makes the product stumble.
    """
    with planted(name):
        error = played(seed).error
    return isinstance(error, Violation) and played(seed).error is None


def promising(name: str, first: int = 1) -> Iterator[int]:
    """Yield the seeds in which a planted bug may well show; all, if nothing is known of it."""
    is_promising = PROMISING.get(name, _any)
    for seed in range(first, LAST + 1):
        if is_promising(Play(seed, _NOWHERE)):
            yield seed


def finding(name: str) -> int | None:
    """Return the first promising seed that finds a planted bug."""
    return next((seed for seed in promising(name) if finds(name, seed)), None)


def main() -> int:
    """Print a seed for each bug, or for those that are named; 1 if one is not found."""
    found = {}
    for name in sys.argv[1:] or sorted(PLANTED):
        found[name] = finding(name)
        print(f'    "{name}": {found[name]},', flush=True)
    return int(None in found.values())


if __name__ == "__main__":
    sys.exit(main())
