"""Loaded by the worker processes of a local Dask cluster: keeps Ctrl-C at a terminal from ending them.

The terminal interrupts the driver and its workers alike. The driver gives its run up and shuts the cluster down; a
worker that ended by itself would only print a traceback. Programs that tasks start can be interrupted as usual: a
handler, unlike an ignored signal, is not inherited by them.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
from typing import Any


def dask_setup(worker: Any) -> None:  # noqa: ARG001  # Dask's convention for what it preloads
    """Pass over SIGINT, if this process is the worker's own."""
    if multiprocessing.parent_process() is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, lambda _number, _frame: None)
