"""What may go wrong in a world, how often, and what each fault may cost."""

from __future__ import annotations

from random import Random

TICK = 0.25
LEASE = 3.0
HEARTBEAT = 1.0
RATES = (0.0, 0.0, 0.01, 0.04, 0.1)
#: Each fault with the factor that turns a rate per tick into one per opportunity.
FAULTS = {
    "kill": 0.08,
    "pause": 0.4,
    "request": 0.3,
    "reply": 0.3,
    "repeat": 0.3,
    "restart": 0.06,
    "outage": 0.04,
    "entry": 1.0,
    "event": 2.0,
    "torn": 1.0,
    "damage": 1.0,
    "clock": 0.1,
    "wall": 0.1,
    "child": 0.4,
    "slow": 0.5,
    "steer": 0.3,
    "memory": 1.0,
    "disk": 0.3,
    "loss": 1.0,
}
#: What may cost the lease of whoever meets it, and what may cost anybody's.
COSTLY = frozenset({"kill", "request", "torn", "slow", "repeat"})
COSTLY_TO_ALL = frozenset({"restart", "outage", "clock"})
#: Without the safety nets nothing is lost that only they would find.
HEALED_BY_NETS = frozenset({"event", "entry", "damage", "torn", "restart", "outage", "disk", "wall", "loss"})
#: What happens to flags.
OF_FLAGS = frozenset({"damage", "torn", "disk"})
#: Before these steps the longest pauses fall.
DANGEROUS = frozenset(
    {
        "link",
        "rename",
        "commit",
        "heartbeat",
        "adopt",
        "invalidate",
        "repair",
        "dispatch",
        "claim",
        "add_tasks",
        "give_back",
    }
)
PAUSES = tuple(LEASE * length for length in (0.1, 0.3, 0.8, 1.2, 1.5, 2.5, 4.0))
IN_DEPTH = 0.4


def drawn_rates(draw: Random) -> dict[str, float]:
    """Draw how often each fault happens: few in depth, or each by itself off, rare or frequent."""
    if draw.random() < IN_DEPTH:
        return dict.fromkeys(sorted(draw.sample(list(FAULTS), draw.randint(1, 4))), 0.1)
    return {fault: draw.choice(RATES) for fault in FAULTS}
