"""What befalls a run from outside: flags and results that change at rest, and people who ask things of it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from overnight.client import Client
from overnight.errors import OvernightError
from overnight.launch import BLOBS
from overnight.naming import flag_name
from overnight.store.records import Request
from tests.support.simulation.actors import SimDeployment
from tests.support.simulation.faults import TICK
from tests.support.simulation.server import Line

if TYPE_CHECKING:
    from tests.support.simulation.play import Play

REQUESTS = (Request.CANCEL, Request.PAUSE, Request.RETRY, Request.RESUME)


class Gremlin:
    """Strikes now and then for as long as the storm lasts."""

    def __init__(self, play: Play) -> None:
        self._play = play
        self._world = play.world
        self._flags = play.directory / "flags"

    def serve(self) -> None:
        """Damage flags, lose results and steer the run, each at its rate."""
        world = self._world
        line = Line(self._play.server, "people")
        while world.storm:
            world.sleep(TICK * (0.5 + world.random.random()))
            if world.strikes("damage"):
                self.damage()
            if world.strikes("loss"):
                self.lose()
            if world.strikes("steer"):
                with suppress(OvernightError):
                    self.steer(line, world.random.choice(REQUESTS))

    def damage(self) -> None:
        """Damage, cut, remove or exchange a flag, or put a former one back."""
        draw, oracle = self._world.random, self._play.oracle
        names = [name for name in self._play.dependencies if self._place(name).exists()]
        if not names:
            return
        name = draw.choice(names)
        kind = draw.choice(("removed", "cut", "changed", "swapped", "former"))
        self._world.note(None, f"flag of {name} {kind}")
        path = self._place(name)
        data = path.read_bytes()
        if kind == "removed":
            path.unlink()
        elif kind == "cut":
            path.write_bytes(data[: draw.randrange(max(1, len(data)))])
        elif kind == "changed":
            path.write_bytes(_with_a_bit_flipped(data, draw))
        elif kind == "swapped":
            other = draw.choice(list(self._play.dependencies))
            former = self._place(other).read_bytes() if self._place(other).exists() else b""
            self._place(other).write_bytes(data)
            path.write_bytes(former)
            oracle.damage(other)
            self._world.struck["damage"] += 1  # two results are lost, at different times if these are found then
        elif oracle.former.get(name):
            path.write_bytes(draw.choice(oracle.former[name]))
        oracle.damage(name)

    def lose(self) -> None:
        """Lose or damage what the server, or the directory beside it, holds of a result."""
        draw, play = self._world.random, self._play
        kept = [(run_id, task) for run_id, run in play.server.data.runs.items() for task in run.results]
        if not kept:
            return
        run_id, task = draw.choice(kept)
        kind = draw.choice(("evicted", "changed", "file"))
        run = play.server.data.runs[run_id]
        name = play.oracle._name(run, task)
        blob = play.settings.state_dir / BLOBS / run.digest(task).hex()
        if kind == "file" and not blob.exists():
            kind = "evicted"
        self._world.note(None, f"result of {name} {kind}")
        play.oracle.lose(name)
        if kind == "file":
            blob.write_bytes(_with_a_bit_flipped(blob.read_bytes(), draw))
        else:
            left = None if kind == "evicted" else _with_a_bit_flipped(run.results[task], draw)
            play.server.lose(run_id, task, left)

    def steer(self, line: Any, request: Request) -> None:
        """Ask something of the newest run."""
        runs = line.runs()
        if not runs:
            return
        self._world.note(None, f"request {request.name}")
        self._play.oracle.was_cancelled |= request is Request.CANCEL
        if request is Request.RETRY and self._world.random.random() < 0.5:
            # As a client does: a retried task takes along what it needs.
            self._play.oracle.is_partly_retried = True
            client = Client.of(SimDeployment(line, self._play.settings))  # type: ignore[arg-type] # has what is used
            client.retry(runs[0].run_id, (self._world.random.choice(list(self._play.dependencies)),))
        else:
            line.request(runs[0].run_id, request)

    def _place(self, name: str) -> Path:
        return self._flags / flag_name(name)


def _with_a_bit_flipped(data: bytes, draw: Any) -> bytes:
    changed = bytearray(data)
    if changed:
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)
