"""A server that falls back to an earlier moment while it runs, as one does that fails over to a replica."""

from __future__ import annotations

import redis

LIFETIME_MILLISECONDS = 3_600_000


class Saved:
    """What a server held at a moment, but for what names one of the given words."""

    def __init__(self, client: redis.Redis, *spared: bytes) -> None:
        self._client = client
        self._spared = spared
        self._values = {key: client.dump(key) for key in self._keys()}

    def _keys(self) -> list[bytes]:
        keys: list[bytes] = self._client.keys("*")  # type: ignore[assignment]  # the client decodes nothing
        return [key for key in keys if not any(word in key for word in self._spared)]

    def fall_back(self) -> None:
        """Bring that moment back, at one instant."""
        with self._client.pipeline(transaction=True) as pipeline:
            pipeline.delete(*self._keys())
            for key, value in self._values.items():
                if value is not None:
                    pipeline.restore(key, LIFETIME_MILLISECONDS, value)
            pipeline.execute()
