"""Which batches of a run are in flight, on a server, as people's commands see it. Nothing here changes anything."""

from __future__ import annotations

import json

from overnight.core.events import Flight
from overnight.core.states import IN_FLIGHT
from overnight.store.codec import of_known_form
from overnight.store.redis_reading import RedisReading, as_text
from overnight.store.redis_server import check_known

_IN_FLIGHT = frozenset(int(state) for state in IN_FLIGHT)


class RedisFlights(RedisReading):
    """A part of the `ReadingStore` on a server."""

    @of_known_form
    def flights(self, run_id: str) -> list[Flight]:
        """Return the batches of a run that are in flight. They are read in one go, though not at one instant."""
        keys = self.server.keys
        names = {name: keys.of_run(run_id, name) for name in ("meta", "batches", "holds", "states")}
        known, batches, holds, states = self.server.send_all(
            [
                ("EXISTS", names["meta"]),
                ("HGETALL", names["batches"]),
                ("HKEYS", names["holds"]),
                ("GET", names["states"]),
            ]
        )
        check_known(None if known else b"unknown", run_id)
        codes, claimed = (states or b"")[::2], set(holds)
        flights = []
        for batch, text in batches.items():
            record = json.loads(text)
            tasks = tuple(task for task in record["tasks"] if codes[task] in _IN_FLIGHT)
            if tasks:
                flights.append(Flight(as_text(batch), record["queue"], tasks, batch in claimed))
        return flights
