"""Which local processes end as soon as they are started, as the keeper of a client's fleet has noted it."""

from __future__ import annotations

from overnight.config import Settings
from overnight.early_ends import LEAST_IN_A_ROW, EarlyEnds
from overnight.embedded import EmbeddedServer
from overnight.fleet_files import FleetFiles, fleet_files
from overnight.fleet_plan import SCHEDULER, worker_slots


def failing_slots(settings: Settings) -> list[EarlyEnds]:
    """Return what is noted of the slots of the fleet that these settings name, by the slots' names."""
    files = _fleet_of(settings)
    noted = [files.early_ends(slot) for slot in files.known_slots()]
    return [ends for ends in noted if ends is not None and ends.number >= LEAST_IN_A_ROW]


def failures_of_workers(settings: Settings) -> list[str]:
    """Return a sentence for each way in which local workers end as soon as they are started."""
    alike: dict[tuple[str, str], list[EarlyEnds]] = {}
    for ends in failing_slots(settings):
        if ends.slot != SCHEDULER:
            alike.setdefault((ends.how, ends.line), []).append(ends)
    return [first.sentence(len(others)) for first, *others in alike.values()]


def failing_scheduler(settings: Settings) -> EarlyEnds | None:
    """Return what is noted of the local scheduler, if it ends as soon as it is started."""
    return next((ends for ends in failing_slots(settings) if ends.slot == SCHEDULER), None)


def failing_worker(settings: Settings, queue: str) -> EarlyEnds | None:
    """Return what is noted of one local worker of a queue that ends as soon as it is started; None if none does."""
    failing = failing_slots(settings)
    slots = worker_slots(queue, [ends.slot for ends in failing])
    return next((ends for ends in failing if ends.slot in slots), None)


def _fleet_of(settings: Settings) -> FleetFiles:
    """Return the files of a fleet; whoever only reads names the embedded server by its address."""
    directory = settings.state_dir.expanduser().resolve()
    is_embedded = settings.redis_url in (None, EmbeddedServer(directory).url)
    return fleet_files(directory, None if is_embedded else settings.redis_url)
