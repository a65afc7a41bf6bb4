"""Schedulers and workers that a test starts by hand on a server of its own."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.support.command import Desk

SECONDS = 60.0


@contextmanager
def daemon(desk: Desk, name: str, *words: str, inside: tuple[str, ...] = ()) -> Iterator[Callable[[str], int]]:
    """Run a daemon that must live to the end; what is yielded tells how often it has said something.

    `inside` are words that go before the command, as those of ``unshare``.
    """
    log = desk.directory / f"{name}.log"
    with log.open("wb") as output:
        process = desk.start(*words, inside=inside, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield lambda text: log.read_text("utf-8", "replace").count(text)
        assert process.poll() is None, log.read_text("utf-8", "replace")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(SECONDS)
