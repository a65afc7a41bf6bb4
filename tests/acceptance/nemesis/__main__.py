"""`python -m tests.acceptance.nemesis --minutes 10 --seed 1`: run it; exit status 0 if nothing was violated, else 1."""

from __future__ import annotations

import argparse
import secrets
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from tests.acceptance.nemesis import schedule
from tests.acceptance.nemesis.arena import Arena, Length
from tests.acceptance.nemesis.tally import LEAST_AN_HOUR


def parsed(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.acceptance.nemesis", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long faults strike")
    parser.add_argument("--seed", type=int, help="of the faults and of the graphs; drawn if it is not given")
    parser.add_argument("--speed", type=float, default=1.0, help="by how much faults follow faster")
    parser.add_argument("--longest", type=float, default=5.0, help="seconds of the longest task")
    parser.add_argument("--only", action="append", metavar="FAULT", help="only this kind of fault; repeatable")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="a schedule that an earlier run has written")
    parser.add_argument("--schedule", type=Path, metavar="FILE", help="where to write the schedule")
    parser.add_argument("--other-python", metavar="PATH", help="another minor version, with overnight installed")
    parser.add_argument("-v", "--verbose", action="store_true", help="a line for each fault")
    return parser.parse_args(words)


def drawn(options: argparse.Namespace, seed: int) -> list[schedule.Fault]:
    """The faults of this run."""
    if options.replay is not None:
        return schedule.read(options.replay)
    kinds = [kind for kind in schedule.TABLE if options.only is None or kind.name in options.only]
    return schedule.drawn(seed, options.minutes * 60, speed=options.speed, kinds=kinds)


def told(arena: Arena, say: Callable[[str], None]) -> None:
    """The table at the end."""
    for kind in schedule.TABLE:
        missed = [f"{number} missed: {why}" for (name, why), number in arena.missed.items() if name == kind.name]
        say(f"{kind.name:28}{arena.struck[kind.name]:6}  {'; '.join(missed)}")
    for name in LEAST_AN_HOUR:
        say(f"{name:28}{arena.tally.counts[name]:6}")
    for name, number in sorted(arena.notes.items()):
        say(f"{name:28}{number:6}")
    say(f"{arena.rounds_done} graphs with {arena.tasks_done} tasks; violations: {len(arena.violations)}")


def stop(*_: object) -> None:
    raise KeyboardInterrupt


def main(words: list[str] | None = None) -> int:
    options = parsed(words)
    seed = secrets.randbelow(1 << 31) if options.seed is None else options.seed
    faults = drawn(options, seed)

    def say(line: str) -> None:
        print(line, flush=True)

    def whisper(line: str) -> None:
        if options.verbose or line.startswith(("VIOLATION", "not allowed")):
            say(line)

    say(f"nemesis: seed {seed}, {options.minutes:g} minutes, {len(faults)} faults")
    signal.signal(signal.SIGTERM, stop)
    length = Length(options.minutes * 60, options.speed, options.longest)
    arena = Arena(seed, length, faults, whisper, options.other_python)
    is_whole = False
    try:
        schedule.write(options.schedule or arena.cluster.directory / "schedule.jsonl", faults)
        violations = arena.run()
        told(arena, say)
        is_whole = True
    finally:
        arena.close(keep=not is_whole)
    if violations:
        say(f"{len(violations)} violations; the state is kept in {arena.cluster.directory}")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
