"""When one scheduler may take another's epoch before the lease has run out (P7)."""

from __future__ import annotations

import os
import subprocess
import sys

from overnight.service.identity import describe, is_provably_dead
from overnight.shared_limits import told_limits


def test_a_living_process_is_not_dead() -> None:
    assert not is_provably_dead(describe({}))


def test_a_process_that_ended_on_this_host_is_provably_dead() -> None:
    program = "from overnight.service.identity import describe; print(describe({'db': 1}))"
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()

    assert is_provably_dead(other)


def test_a_process_that_took_the_id_of_a_dead_one_does_not_pass_for_it() -> None:
    name, world, *_ = describe({}).split()

    assert is_provably_dead(f"{name} {world} 1")


def test_nothing_is_proven_of_another_host_another_boot_or_an_unknown_text() -> None:
    _, world, started, _ = describe({}).split()
    assert not is_provably_dead(f"elsewhere:{os.getpid()} {world} 1")
    assert not is_provably_dead(describe({}).replace(world, "other-boot/1"))
    assert not is_provably_dead(f"somebody {started}")
    assert not is_provably_dead("")


def test_a_scheduler_of_an_older_version_tells_no_limits_and_may_be_proven_dead_too() -> None:
    name, world, _, told = describe({"db": 1.5, "a b, c=": 2}).split(" ")
    assert told_limits(f"{name} {world} 1 {told}") == {"db": 1.5, "a b, c=": 2}
    assert told_limits(describe({})) == {}
    assert told_limits(f"{name} {world} 1") is None
    assert told_limits(f"{name} {world} 1 db") is None
    assert is_provably_dead(f"{name} {world} 1 {told}")
    assert is_provably_dead(f"{name} {world} 1")
