"""What a driver passes on to its tasks in other processes: directory, umask, environment, import paths (B21, QX9)."""

from __future__ import annotations

import fnmatch
import os
import pwd
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path

from overnight.files import is_directory

#: The address of Redis, and overnight's own variables: no task sees them.
HIDDEN = ("OVERNIGHT_*", "REDIS_URL", "RQ_*")
#: Variables that describe the host or the terminal: a task has those of its worker.
OF_THE_HOST = (
    "HOSTNAME", "HOST", "HOSTTYPE", "MACHTYPE", "LOGNAME", "MAIL", "SHELL", "SHLVL",
    "PWD", "OLDPWD", "_", "TERM", "TERM_*", "TERMCAP", "COLORTERM", "COLUMNS", "LINES", "DISPLAY", "WAYLAND_*",
    "XAUTHORITY", "XDG_*", "DBUS_*", "DESKTOP_*", "SSH_*", "GPG_*", "TMUX*", "STY", "WINDOWID", "LS_COLORS",
    "PYTHON*", "TMPDIR", "HOME", "USER", "INVOCATION_ID", "JOURNAL_STREAM", "NOTIFY_SOCKET", "LISTEN_*",
    "SLURM_*", "PBS_*", "PYTEST_*", "OVERNIGHT_TASK_LOG_BYTES",
)  # fmt: skip


def passed_environment(
    environ: Mapping[str, str] | None = None, *, also: Iterable[str] = (), drop: Iterable[str] = ()
) -> dict[str, str]:
    """Return the variables that tasks get. `also` and `drop` are names or patterns; `drop` wins over `also`."""
    source = os.environ if environ is None else environ
    also, drop = tuple(also), tuple(drop)
    return {
        name: value
        for name, value in source.items()
        if not _matches(name, drop) and (_matches(name, also) or not _matches(name, HIDDEN + OF_THE_HOST))
    }


def host_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that describe this host, which a task has whatever the driver passes on."""
    return {name: value for name, value in environ.items() if _matches(name, OF_THE_HOST)}


def import_paths() -> list[str]:
    """Return the entries of `sys.path` that are this program's own: not the interpreter's, not its packages'."""
    own = []
    for entry in sys.path:
        path = str(Path(entry or ".").absolute())
        if path not in _interpreter_paths() and not path.endswith(".zip") and is_directory(path) and path not in own:
            own.append(path)
    return own


def current_umask() -> int:
    """Return the process's umask, without changing it where the system says it."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


def _interpreter_paths() -> set[str]:
    known = sysconfig.get_paths()
    paths = {known[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return paths | {str(Path(known["platstdlib"]) / "lib-dynload")}


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def login_name() -> str:
    """Return the name of the user that this process runs as; the number of one that the system has no name for."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
