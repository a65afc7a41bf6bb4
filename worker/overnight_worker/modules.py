"""Whether the modules that tasks imported are still what lies on disk.

A warm child keeps modules loaded from run to run. Before it serves another run, or one that was retried meanwhile, it
looks whether the source of any of them has changed; a child with old code is replaced. Modules of the installation are
not looked at.
"""

from __future__ import annotations

import os
import sys
import sysconfig

_INSTALLED = tuple({sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")})


class LoadedModules:
    """The source files of the modules loaded so far, with their times."""

    def __init__(self) -> None:
        self._seen = set(sys.modules)
        self._times: dict[str, int | None] = {}

    def note(self) -> None:
        """Take down modules that were loaded since the last call."""
        if len(sys.modules) == len(self._seen):
            return
        for name in sys.modules.keys() - self._seen:
            self._seen.add(name)
            path = getattr(sys.modules.get(name), "__file__", None)
            if isinstance(path, str) and not path.startswith(_INSTALLED):
                self._times[path] = _time_of(path)

    def have_changed(self) -> bool:
        """Tell whether one of the files is gone or has another time."""
        return any(_time_of(path) != time for path, time in self._times.items())


def _time_of(path: str) -> int | None:
    try:
        return os.stat(path).st_mtime_ns  # noqa: PTH116 - the path is text
    except OSError:
        return None
