"""A scheduler of one run in memory, step by step: what it hears, what it wants, what it does."""

from __future__ import annotations

from collections.abc import Sequence

from overnight.core.actions import Action
from overnight.keyring import Keyring
from overnight.service.active_run import ActiveRun
from overnight.service.intake import events_of
from overnight.service.learned import LearnedDurations
from overnight.service.perform import Performer
from overnight.service.recover import take_over
from overnight.service.sharing import Sharing
from overnight.store.memory import MemoryStore
from overnight.transport.memory import MemoryTransport
from tests.support.stores import Night

KEYRING = Keyring()


class OneScheduler:
    """A scheduler of one run, step by step."""

    def __init__(self, night: Night) -> None:
        assert isinstance(night.store, MemoryStore)
        self.store = night.store
        self.performer = Performer(night.store, MemoryTransport(), KEYRING, night.epoch)
        self.run, self.due = take_over(night.store.load_run("r1"), KEYRING, LearnedDurations(), 0.0)

    def hear(self) -> list[Action]:
        """Take in what has happened since; return what is due."""
        events, _ = self.store.wait({"r1": self.run.cursor}, 0.0)
        actions = []
        for entry in events:
            self.run.hear(entry, 0.0)
            for event in events_of(self.run, entry, 0.0, lambda: 1.0):
                actions += self.run.core.handle(event)
        return actions

    def perform(self, actions: Sequence[Action]) -> None:
        self.performer.perform(self.run, actions, 0.0)

    def offers(self) -> list[ActiveRun]:
        """Return the runs that are offered room."""
        return [turn.run for turn in Sharing({}).turns("default", 1, [self.run], 0.0)]
