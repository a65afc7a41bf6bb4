"""The store on a Redis or Valkey server.

Redis holds one compact truth per run (`keys.py`). Every change of it is one script (`scripts/`) that compares and sets
and may be repeated: redis-py sends a command again after a lost reply, and the outcome of a call that failed is
unknown. The roles are apart (`redis_submitting`, `redis_scheduling`, `redis_working`, `redis_reading` with
`redis_records`) and meet here.
"""

from __future__ import annotations

from overnight.store.redis_flights import RedisFlights
from overnight.store.redis_records import RedisRecords
from overnight.store.redis_repairing import RedisRepairing
from overnight.store.redis_scheduling import RedisScheduling
from overnight.store.redis_submitting import RedisSubmitting
from overnight.store.redis_working import RedisWorking


class RedisStore(RedisSubmitting, RedisScheduling, RedisWorking, RedisRepairing, RedisFlights, RedisRecords):
    """All ports of the store on one server: `RedisStore(client, prefix)`. The client must not decode replies."""
