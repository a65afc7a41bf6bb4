"""Ends servers that stand in the way of the one that is to serve a directory.

A killed server leaves behind the child that was rewriting its append-only file. That child holds the server's lock, as
a copy of the server, and would keep it until it has written a file that nobody will use, which can take minutes. And a
server whose lock or socket was removed lives on where nobody reaches it, and writes to the same data as the next one.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

_END_SECONDS = 2.0
_SERVER_NAME = re.compile("redis|valkey")

_logger = logging.getLogger(__name__)


def end_orphans(lock_path: Path, pid_file: Path) -> None:
    """Kill the children of a server that wrote `pid_file`, held `lock_path` and is dead; else do nothing."""
    if _is_dead(pid_file):
        for process in _servers_with_open(lock_path):
            _logger.warning("killing pid %d, which a killed server left behind", process.pid)
            with suppress(psutil.Error):
                process.kill()


def end_strays(data_dir: Path) -> None:
    """Kill the servers whose data are in `data_dir`, and wait until they are gone.

    What they have answered is in their append-only file by then.
    """
    strays = list(_servers_at_home_in(data_dir))
    for process in strays:
        _logger.warning("killing pid %d, a server of %s that nobody can reach", process.pid, data_dir)
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(strays, timeout=_END_SECONDS)


def _is_dead(pid_file: Path) -> bool:
    """Tell whether the process that wrote its id has ended; without an id it may be about to write it."""
    try:
        text = pid_file.read_text().strip()
    except FileNotFoundError:
        return False
    if not text.isdecimal():
        return False
    try:
        return psutil.Process(int(text)).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _servers_with_open(path: Path) -> Iterator[psutil.Process]:
    """Return the processes that have the file open and are servers: clients that look at the lock have it open too."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if _SERVER_NAME.search(process.name()) and any(file.path == str(path) for file in process.open_files()):
                yield process


def _servers_at_home_in(directory: Path) -> Iterator[psutil.Process]:
    """Return the servers that work in the directory, also where it has been removed since."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if _SERVER_NAME.search(process.name()) and process.cwd() == str(directory):
                yield process
