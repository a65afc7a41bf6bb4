"""The Lua scripts, one for each transition, read once from `scripts/`.

Each file opens with its arguments, effect, reply and first write; `common.lua` goes before every one of them. The text
of a script is fixed: whatever varies is passed in KEYS and ARGV.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files

#: The most tasks that one call of a script handles, so that no call blocks the server for long.
MOST_TASKS = 500


@dataclass(frozen=True, slots=True)
class Script:
    """A script as the server knows it."""

    name: str
    text: str
    sha: str


def _read(name: str) -> str:
    return (files("overnight.store") / "scripts" / f"{name}.lua").read_text("ascii")


def _script(name: str) -> Script:
    text = _COMMON + _read(name)
    return Script(name, text, hashlib.sha1(text.encode("ascii"), usedforsecurity=False).hexdigest())


_COMMON = _read("common")

SUBMIT = _script("submit")
STAGE = _script("stage")
ADD = _script("add")
ACTIVATE = _script("activate")
BLOBS = _script("blobs")
ADOPT = _script("adopt")
REWRITE = _script("rewrite")
RESTORE = _script("restore")
INVALIDATE = _script("invalidate")
REQUEST = _script("request")
RETRY = _script("retry")
EPOCH = _script("epoch")
LEAVE = _script("leave")
LOAD = _script("load")
DISPATCH = _script("dispatch")
WITHDRAW = _script("withdraw")
SETTLE = _script("settle")
FINISH = _script("finish")
ABANDON = _script("abandon")
NOTE = _script("note")
REAP = _script("reap")
GRACE = _script("grace")
DURATIONS = _script("durations")
REGISTER = _script("register")
UNREGISTER = _script("unregister")
CLAIM = _script("claim")
COMMIT = _script("commit")
HEARTBEAT = _script("heartbeat")
GIVE_BACK = _script("give_back")
BARRED = _script("barred")
ACCUSE = _script("accuse")
RELEASE = _script("release")

#: All scripts, as they are loaded after each connection to another server.
SCRIPTS = tuple(value for value in list(globals().values()) if isinstance(value, Script))
