"""How daemons begin on a server that has no room for another client: they wait, where what a person types ends."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from overnight.errors import NoRoom

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 10.0
Reached = TypeVar("Reached")
_logger = logging.getLogger("overnight.store")


def await_room(reach: Callable[[], Reached], pause: Callable[[float], object] = time.sleep) -> Reached:
    """Return what `reach` returns, tried again for as long as it raises NoRoom; one warning tells of the wait."""
    seconds = 0.0
    while True:
        try:
            return reach()
        except NoRoom as error:
            if not seconds:
                _logger.warning("%s Waiting for room.", error)
            seconds = min(LONGEST_PAUSE_SECONDS, max(FIRST_PAUSE_SECONDS, 2 * seconds))
        pause(seconds)
