"""What the local processes of a state directory tell each other through files.

- ``clients.lock``: every client holds it shared. Who holds it exclusively knows that no client is there and keeps
  new ones waiting: the fleet is stopped only under it.
- ``clients/<name>.json``: what one client wants, locked for as long as that client lives.
- ``keeper.lock``: held by the one keeper; ``keeper.pipe``: wakes it.
- ``slots/<slot>.lock``: held by the process of the slot (see `slots`); ``logs/<slot>.log``: what it prints;
  ``slots/<slot>.ends``: that it ends as soon as it is started (see `early_ends`).

A fleet that works for a Redis elsewhere has these files in a directory of its own, so that one state directory can
serve several servers.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from overnight.early_ends import EarlyEnds, early_ends_at
from overnight.fleet_plan import Demand, demand_from_json
from overnight.state_dir import try_lock, unlock

WAKE = b"w"
STOP = b"s"


@dataclass(frozen=True)
class FleetFiles:
    """The paths of one fleet, and the small atomic steps on them."""

    directory: Path

    @property
    def clients_lock(self) -> Path:
        """Return the lock that each client holds shared."""
        return self.directory / "clients.lock"

    @property
    def keeper_lock(self) -> Path:
        """Return the lock that the keeper holds."""
        return self.directory / "keeper.lock"

    @property
    def keeper_log(self) -> Path:
        """Return the log of the keeper."""
        return self.log("keeper")

    @property
    def pipe(self) -> Path:
        """Return the named pipe that wakes the keeper."""
        return self.directory / "keeper.pipe"

    def slot_lock(self, slot: str) -> Path:
        """Return the lock that the process of a slot holds."""
        return self.directory / "slots" / f"{slot}.lock"

    def ends_note(self, slot: str) -> Path:
        """Return the note that the process of a slot ends as soon as it is started."""
        return self.directory / "slots" / f"{slot}.ends"

    def early_ends(self, slot: str) -> EarlyEnds | None:
        """Return what is noted of a slot, or None."""
        return early_ends_at(self.ends_note(slot))

    def log(self, slot: str) -> Path:
        """Return the log of a slot."""
        return self.directory / "logs" / f"{slot}.log"

    def prepare(self) -> None:
        """Make the directories."""
        for directory in (self._clients, self.directory / "slots", self.directory / "logs"):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def add_client(self, demand: Demand) -> tuple[Path, int]:
        """Record what a client wants; return the file and the descriptor that keeps it valid."""
        name = f"{os.getpid()}-{secrets.token_hex(8)}.json"
        draft, path = self._clients / f".{name}", self._clients / name
        # Locked before it can be seen: a file that is seen and not locked is a dead client's.
        lock = try_lock(draft)
        if lock is None:
            raise BlockingIOError(f"{draft} is locked by another process")
        os.write(lock, demand.to_json().encode())
        draft.rename(path)
        return path, lock

    def demands(self) -> list[Demand]:
        """Return what the living clients want, and remove what dead ones left."""
        found = []
        for path in sorted(self._clients.glob("[!.]*.json")):
            with suppress(FileNotFoundError):
                lock = try_lock(path, create=False)
                if lock is None:
                    found.append(demand_from_json(path.read_text()))
                else:
                    path.unlink()
                    unlock(lock)
        return found

    def known_slots(self) -> list[str]:
        """Return the names of all slots that were ever used here."""
        return sorted(path.stem for path in (self.directory / "slots").glob("*.lock"))

    def tell_keeper(self, word: bytes) -> bool:
        """Write `WAKE` or `STOP` to the keeper; tell whether one is listening."""
        try:
            pipe = os.open(self.pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # no pipe yet, or nobody reads it: the keeper looks at all files when it starts
            return False
        try:
            os.write(pipe, word)
        except (BlockingIOError, BrokenPipeError):  # full: it has been told already; broken: it has just ended
            return False
        finally:
            os.close(pipe)
        return True

    @property
    def _clients(self) -> Path:
        return self.directory / "clients"


def fleet_files(state_dir: Path, redis_url: str | None) -> FleetFiles:
    """Return the files of the fleet that serves the embedded server (None) or the server at a URL."""
    if redis_url is None:
        return FleetFiles(state_dir)
    return FleetFiles(state_dir / "fleets" / hashlib.sha256(_without_password(redis_url).encode()).hexdigest()[:16])


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
