"""A process that knows a key or a password lets no other process of its user look into it.

Tasks run as the user of their worker. Without this they could read the environment and the memory of its processes in
/proc, or attach to them as a debugger does. Such a process leaves no core file, and only root can debug it. Who may
read a key's file can still do so.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping

from overnight.keyring import KEY_FILE_VARIABLE, KEY_VARIABLE

_PR_SET_DUMPABLE = 4


def conceal_secrets(environ: Mapping[str, str] = os.environ) -> None:
    """Close this process to others, on Linux, if its environment names a key or an address with a password.

    A program that this process starts is open again.
    """
    if sys.platform == "linux" and _names_secret(environ):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0)


def _names_secret(environ: Mapping[str, str]) -> bool:
    url = environ.get("OVERNIGHT_REDIS_URL", "")
    return KEY_VARIABLE in environ or KEY_FILE_VARIABLE in environ or "@" in url or "password" in url
