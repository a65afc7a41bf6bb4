"""What a worker finds in a directory that a run is to use: the task of `overnight doctor --directory`.

Its runs are nobody's: ``last`` never means one.
"""

from __future__ import annotations

import secrets
import time

from overnight.files import file_system, is_url, local_path, see_writable
from overnight.store.records import RunRecord

NAME = "doctor"


def command_of_its_own() -> str:
    """Return what stands for the command of such a run, so that it finds none that is active."""
    return f"{NAME} {secrets.token_hex(8)}"


def is_probe(run: RunRecord) -> bool:
    """Tell whether a run is one of these."""
    return run.name == NAME and run.command.startswith(f"{NAME} ")


def look(directory: str, seconds: float) -> None:
    """Raise OSError if files cannot be made in a directory here; else stay for `seconds`, so that others look too."""
    if is_url(directory):
        system, place = file_system(directory)
        path = f"{place.rstrip('/')}/.overnight-{secrets.token_hex(8)}"
        system.pipe_file(path, b"")
        system.rm_file(path)
    else:
        see_writable(local_path(directory))
    time.sleep(seconds)
