"""The tasks of a run that is being watched: read when somebody first asks, and again when tasks have come."""

from __future__ import annotations

from overnight.client import Client
from overnight.deployment import Deployment
from overnight.structure import Structure


class KnownTasks:
    """The structure of one run, which all that watch it share: it is as large as the run."""

    def __init__(self, deployment: Deployment, run_id: str) -> None:
        self._client = Client.of(deployment)
        self._run_id = run_id
        self._structure: Structure | None = None

    def structure(self, number: int) -> Structure:
        """Return a structure of at least so many tasks, as far as the server has them. Raises UnreadableRun."""
        if self._structure is None or len(self._structure) < number:
            self._structure = self._client.structure(self._run_id)
        return self._structure
