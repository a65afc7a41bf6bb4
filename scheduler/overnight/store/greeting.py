"""How a connection begins, and what is heard if the server hangs up at once.

A server that takes no more clients says so unasked and hangs up. What this side sends meanwhile fails first, through a
unix socket nearly always, and redis-py then tells of a broken pipe alone.
"""

from __future__ import annotations

import os
import socket
from typing import cast

import redis
from redis.connection import AbstractConnection

_MOST_BYTES = 512


def greet(connection: AbstractConnection) -> None:
    """Begin a connection as redis-py does; raise what the server said of it rather than that it has hung up.

    It is redis-py's `redis_connect_func`.
    """
    own = cast("socket.socket | None", connection._sock)  # noqa: SLF001 - no other way leads to the socket
    if own is None:
        raise redis.ConnectionError("The connection is closed.")
    with socket.socket(fileno=os.dup(own.fileno())) as copy:
        try:
            connection.on_connect_check_health(check_health=False)
        except redis.ConnectionError as error:
            # Its subclasses tell what the server answered.
            words = _last_words(copy) if type(error) is redis.ConnectionError else ""
            if words.startswith("-"):
                raise redis.ConnectionError(words.removeprefix("-ERR").lstrip("- ")) from error
            raise


def _last_words(closed: socket.socket) -> str:
    """Return what has arrived and was not read, the empty text for nothing."""
    try:
        closed.setblocking(False)  # noqa: FBT003 - the method takes no keyword
        return closed.recv(_MOST_BYTES).decode("utf-8", "replace").strip()
    except OSError:
        return ""
