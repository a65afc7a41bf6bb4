"""Fetch recorded outcomes of a run: from Redis where they are small, from where their locator points otherwise.

A result is believed only if its bytes have the digest that its sealed record names, whatever lies at the place. Bytes
are loaded by the caller, in the process that is to use the value.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import fsspec

from overnight.errors import BadSeal, OvernightError
from overnight.flag_files import open_flag
from overnight.keyring import Keyring
from overnight.messages import StoredResult, opened_blob

FLAG = "flag:"
FILE = "file:"
IN_REDIS = "redis:"


class ResultStore(Protocol):
    """The part of the store's ports that reads results."""

    def read_results(self, run_id: str, tasks: Iterable[int]) -> dict[int, bytes]:
        """Return sealed results by task; missing ones are left out."""

    def read_blobs(self, run_id: str, digests: Sequence[str]) -> dict[str, bytes]:
        """Return sealed blobs by digest; missing ones are left out."""


class ResultLost(OvernightError):
    """A recorded result is not where its record says, or not what it says: it must be computed again."""


class ResultOutOfReach(ResultLost):
    """A recorded result lies where this process may not read: whether it is whole is for others to say."""


class Results:
    """Reads the results of one run."""

    def __init__(self, store: ResultStore, run_id: str, keyring: Keyring) -> None:
        self._store = store
        self._run_id = run_id
        self._keyring = keyring

    def stored(self, tasks: Iterable[int]) -> dict[int, StoredResult | ResultLost]:
        """Return the sealed records of the tasks' results, opened; those that are absent are left out."""
        opened: dict[int, StoredResult | ResultLost] = {}
        for task, record in self._store.read_results(self._run_id, tasks).items():
            try:
                opened[task] = StoredResult.opened(record, self._run_id, task, self._keyring)
            except BadSeal as error:
                opened[task] = ResultLost(f"The record of task {task} cannot be believed: {error}")
        return opened

    def body(self, stored: StoredResult, task_id: str) -> bytes:
        """Return the serialised result of a task. Raise ResultLost if it is not there or not whole, or
        ResultOutOfReach."""
        if stored.body is not None:
            body = stored.body
        else:
            try:
                body = self._located(stored.locator or "", stored.digest.hex(), task_id)
            except (OSError, BadSeal) as error:
                is_forbidden = isinstance(error if isinstance(error, OSError) else error.__cause__, PermissionError)
                kind = ResultOutOfReach if is_forbidden else ResultLost
                raise kind(f"The result of task {task_id!r} is not at {stored.locator}: {error}") from error
        if hashlib.sha256(body).digest() != stored.digest:
            raise ResultLost(f"The result of task {task_id!r} at {stored.locator} has other bytes than were recorded.")
        return body

    def _located(self, locator: str, digest: str, task_id: str) -> bytes:
        if locator.startswith(FLAG):
            place = locator.removeprefix(FLAG)
            source: Path | bytes = _read_url(place) if "://" in place else Path(place)
            return open_flag(source, task_id, self._keyring).body
        if locator.startswith(FILE):
            return Path(locator.removeprefix(FILE)).read_bytes()
        if locator.startswith(IN_REDIS):
            blobs = self._store.read_blobs(self._run_id, [digest])
            if digest not in blobs:
                raise FileNotFoundError(f"blob {digest} of run {self._run_id}")
            return opened_blob(blobs[digest], self._run_id, digest, self._keyring)
        raise BadSeal(f"nothing is known of the place {locator!r}")


def _read_url(url: str) -> bytes:
    with fsspec.open(url, "rb") as file:
        data: bytes = file.read()
    return data
