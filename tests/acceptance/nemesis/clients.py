"""Who wants the results: the same command, started again whenever it has been killed, interrupted or has given up."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.acceptance.nemesis.cluster import Cluster
from tests.acceptance.nemesis.rounds import Round

UNREACHABLE, DECLINED, INTERRUPTED = 4, 5, 130
#: So long after an interrupt may another client of the same run find it cancelled.
CANCELLED_SECONDS = 60.0


@dataclass
class Client:
    """One invocation of the command, and the signal that it was sent."""

    process: subprocess.Popen[bytes]
    out: Path
    started_at: float
    sent: signal.Signals | None = None

    @property
    def facts(self) -> dict[str, Any] | None:
        """The JSON that it printed, if it came to that."""
        for line in reversed(self.out.with_suffix(".out").read_text("utf-8").splitlines()):
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                return found
        return None


class Clients:
    """The commands of one round. `ended` judges one that came to an end by itself and tells whether all is done."""

    def __init__(
        self,
        cluster: Cluster,
        of: Round,
        ended: Callable[[int, dict[str, Any] | None], bool],
        violated: Callable[[str], None],
        was_disturbed: Callable[[float, float], bool],
    ) -> None:
        self._cluster = cluster
        self._round = of
        self._ended = ended
        self._violated = violated
        self._was_disturbed = was_disturbed
        self._interrupted_at = float("-inf")
        self._next_at = 0.0
        self._number = 0
        self.alive: list[Client] = []
        self.is_done = False

    def step(self, now: float) -> None:
        """Judge clients that have ended; see that there is one."""
        for client in list(self.alive):
            if client.process.poll() is not None:
                self.alive.remove(client)
                self._judge(client, now)
        if not self.alive and not self.is_done and now >= self._next_at:
            self.start(now)

    def start(self, now: float) -> None:
        """Start the command once more."""
        self._number += 1
        name = f"client{self._round.number}-{self._number}"
        words = [sys.executable, "-P", "-m", "overnight.commands", *self._round.words]
        environ = self._cluster.environment("client", "client")
        out = self._cluster.logs / f"{name}.out"
        with out.open("wb") as output:
            process = self._cluster.spawn(words, environ, self._cluster.log(name), stdout=output)
        self.alive.append(Client(process, out, now))

    def send(self, number: signal.Signals, now: float, *, back_after: float) -> bool:
        """Send one client a signal, and let nobody come for some seconds; False if there is none."""
        self._next_at = now + back_after
        unharmed = [client for client in self.alive if client.sent is None]
        if not unharmed:
            return False
        if number == signal.SIGINT:
            self._interrupted_at = now
        unharmed[0].sent = number
        unharmed[0].process.send_signal(number)
        return True

    def _judge(self, client: Client, now: float) -> None:
        status = client.process.returncode
        if status in (0, 1) and (client.sent is None or client.facts is not None):
            self.is_done = self._ended(status, client.facts) or self.is_done
        elif not self._is_expected(client, status, now):
            said = client.out.with_suffix(".log").read_text("utf-8")[-1500:]
            self._violated(f"P11: a client ended with {status} ({client.out.stem}): {said}")

    def _is_expected(self, client: Client, status: int, now: float) -> bool:
        if client.sent is not None:
            return True
        if status == UNREACHABLE:
            return self._was_disturbed(client.started_at, now)
        return status == DECLINED and client.started_at - CANCELLED_SECONDS < self._interrupted_at

    def close(self) -> None:
        """Kill what is left."""
        for client in self.alive:
            client.process.kill()
            client.process.wait()
