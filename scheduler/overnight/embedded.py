"""Runs a private Redis or Valkey server whose data live in the state directory.

The server belongs to the directory, not to the process that started it. It inherits the lock ``server.lock`` and
so holds it for exactly as long as it lives: whoever can take the lock knows that no server runs on the data and may
start one, and no two ever run on the same. Everyone else waits until the one that runs answers. No process id
decides anything. A server whose lock or socket was removed is killed before the next one starts.

It listens on a unix socket alone, in a directory that is open to its user alone; its append-only file brings the
data back after any death. The file is kept in the plain command format, which both Redis and Valkey read, so that
another server program can take over the directory later.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import psutil
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from overnight.errors import Unreachable
from overnight.naming import shown
from overnight.server_binary import ServerBinary, find_server_binary
from overnight.server_orphans import end_orphans, end_strays
from overnight.slots import spawn_detached
from overnight.socket_places import SOCKET_NAME, fits_a_socket, is_made, is_private, make_short_directory
from overnight.state_dir import (
    POLL_SECONDS,
    is_locked,
    last_line,
    open_log,
    prepare_state_dir,
    try_lock,
    wait_until,
)

_MOST_STARTS = 2
START_SECONDS = 30.0
STOP_SECONDS = 30.0
#: For so long a server that has just been started can be without its socket.
_SOCKET_SECONDS = 2.0
_ANSWER_SECONDS = 2.0
_MULTI_PART_LOG = "appendonlydir"
#: What the server may see of our environment; secrets are not among it.
_SERVER_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR")
_LOG_PREFIX = re.compile(r"^\d+:[A-Z] .{10,40}? [*#.-] ")
_PLAIN = re.compile(rb"[A-Za-z0-9_./+:@%=,-]")

_CONFIGURATION = """\
# Written at each start of the server; changes are lost.
port 0
unixsocket {socket}
unixsocketperm 700
dir {data}
pidfile {pid}
daemonize no
protected-mode yes
databases 16
loglevel notice
save ""
appendonly yes
appendfsync everysec
no-appendfsync-on-rewrite no
aof-load-truncated yes
aof-use-rdb-preamble no
maxmemory-policy noeviction
"""


class EmbeddedServer:
    """The server of one state directory. Making this object touches nothing."""

    def __init__(self, state_dir: str | os.PathLike[str]) -> None:
        self._state_dir = Path(state_dir).expanduser().resolve()
        self._server_dir = self._state_dir / "server"
        self._lock = self._state_dir / "server.lock"
        self._log = self._server_dir / "redis.log"
        self._pid_file = self._server_dir / "redis.pid"
        self._log_start = 0
        self._seen: psutil.Process | None = None

    @property
    def data_dir(self) -> Path:
        """Return the directory that holds the append-only file."""
        return self._server_dir / "data"

    @property
    def url(self) -> str:
        """Return the address for `redis.Redis.from_url`; it stays the same from start to start."""
        return f"unix://{quote(str(self._socket()))}?db=0"

    def ensure(self, timeout: float = START_SECONDS) -> str:
        """Start the server unless it runs, wait until it answers, return its URL.

        `timeout` is in seconds and covers the loading of the data. Raises Unreachable, with the server's last word,
        if it cannot start or does not answer in time, and UsageError if the directory or the program is unfit.
        """
        deadline = time.monotonic() + timeout
        starts = int(self.start_if_absent())
        while not self._answers():
            self.end_orphans()
            if not self.is_present():
                # One that cannot start fails again; one that was killed does not.
                if starts >= _MOST_STARTS:
                    raise Unreachable(self.failure())
                starts += self.start_if_absent()
            if time.monotonic() >= deadline:
                raise Unreachable(
                    f"The embedded server in {self._state_dir} did not answer within {timeout:g} s{self._said()}"
                )
            time.sleep(POLL_SECONDS)
        return self.url

    def start_if_absent(self) -> bool:
        """Start the server if none runs, without waiting for it; tell whether this call started it."""
        prepare_state_dir(self._state_dir)
        lock = try_lock(self._lock)
        if lock is None:
            return False
        try:
            self._start(lock)
        finally:
            os.close(lock)
        return True

    def is_present(self) -> bool:
        """Tell whether a server process exists, be it starting, loading or serving."""
        return is_locked(self._lock)

    def is_running(self) -> bool:
        """Tell whether the server answers and has its data loaded."""
        return self.is_present() and self._answers()

    def is_cut_off(self) -> bool:
        """Tell whether a server process exists and its socket does not: yet, or, as somebody removed it, for ever."""
        return self.is_present() and not self._socket().is_socket()

    def end_cut_off(self) -> None:
        """End a server that nobody can reach any more."""
        end_strays(self.data_dir)

    def end_orphans(self) -> None:
        """End what a server that was killed has left behind, so that another can start."""
        end_orphans(self._lock, self._pid_file)

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """Stop the server, its data written to disk, and wait until it is gone; nothing happens if none runs."""
        if self.is_cut_off() and not wait_until(lambda: not self.is_cut_off(), _SOCKET_SECONDS):
            self.end_cut_off()
        if not wait_until(self._told_to_stop, timeout) or not wait_until(lambda: not self.is_present(), timeout):
            raise Unreachable(f"The embedded server in {self._state_dir} did not stop within {timeout:g} s.")

    def kill(self) -> None:
        """Kill the server that last answered this object, whose directory has been removed since.

        One that ended in order would remove its socket, and by now another server may listen there.
        """
        if self._seen is not None and self._seen.is_running():
            with suppress(psutil.NoSuchProcess):
                self._seen.kill()

    def failure(self) -> str:
        """Say in one sentence why the server that was started last is gone."""
        return f"The embedded server in {self._state_dir} ended as soon as it was started{self._said()}"

    # Starting.

    def _start(self, lock: int) -> None:
        binary = find_server_binary()
        for directory in (self._server_dir, self.data_dir):
            directory.mkdir(mode=0o700, exist_ok=True)
        self._see_readable_by(binary)
        end_strays(self.data_dir)
        socket = self._own_socket()
        socket.unlink(missing_ok=True)
        self._pid_file.unlink(missing_ok=True)
        configuration = self._server_dir / "redis.conf"
        configuration.write_text(
            _CONFIGURATION.format(socket=quoted(socket), data=quoted(self.data_dir), pid=quoted(self._pid_file))
        )
        log = open_log(self._log)
        try:
            self._log_start = os.fstat(log).st_size
            environment = {name: os.environ[name] for name in _SERVER_VARIABLES if name in os.environ}
            spawn_detached([str(binary.path), str(configuration)], log=log, environment=environment, lock=lock)
        finally:
            os.close(log)

    def _see_readable_by(self, binary: ServerBinary) -> None:
        """Refuse a version before 7.0 for data in several parts: it would not see them, and start empty."""
        if binary.version < (7, 0, 0) and (self.data_dir / _MULTI_PART_LOG).exists():
            raise Unreachable(
                f"{binary.path} is version {'.'.join(map(str, binary.version))}, but the data in {self.data_dir} were "
                "written by 7.0 or newer; install such a server or name it in OVERNIGHT_SERVER_BINARY."
            )

    def _said(self) -> str:
        line = shown(_LOG_PREFIX.sub("", last_line(self._log, self._log_start)))
        return f": {line.rstrip('.')}. (log: {self._log})" if line else f"; see {self._log}."

    # Where the socket is.

    @property
    def _socket_note(self) -> Path:
        return self._state_dir / "socket-dir"

    def _socket(self) -> Path:
        """Return the socket's path: in the state directory, or, if that path is too long, where the note says."""
        if self._socket_note.exists():
            return Path(self._socket_note.read_text(encoding="utf-8")) / SOCKET_NAME
        return self._state_dir / SOCKET_NAME

    def _own_socket(self) -> Path:
        """Return a path that a socket can be bound to, making a private directory for it where needed.

        Called under the lock.
        """
        in_place = self._state_dir / SOCKET_NAME
        if fits_a_socket(in_place):
            self._socket_note.unlink(missing_ok=True)
            return in_place
        noted = self._socket()
        # One that was removed is made again where it was: that is where clients look for the server.
        if fits_a_socket(noted) and (is_private(noted.parent) or is_made(noted.parent)):
            return noted
        directory = make_short_directory()
        draft = self._socket_note.with_name("socket-dir.new")
        draft.write_text(str(directory), encoding="utf-8")
        draft.replace(self._socket_note)
        return directory / SOCKET_NAME

    # Talking to it.

    def _answers(self) -> bool:
        """Ask for an answer; any but LOADING counts, so that a server whose disk is full is not taken for dead."""
        with self._connection() as connection:
            try:
                self._seen = psutil.Process(connection.info("server")["process_id"])
                connection.ping()
            except redis.ResponseError:
                return True
            except (redis.ConnectionError, redis.TimeoutError, psutil.NoSuchProcess):
                return False
        return True

    def _told_to_stop(self) -> bool:
        """Send SHUTDOWN, which writes out the append-only file; tell whether the server has taken it or is gone."""
        if not self.is_present():
            return True
        with self._connection() as connection:
            try:
                connection.shutdown(nosave=True)
            except redis.RedisError:
                return not self.is_present()
        return True

    def _connection(self) -> redis.Redis:
        return redis.Redis(
            unix_socket_path=str(self._socket()),
            socket_timeout=_ANSWER_SECONDS,
            socket_connect_timeout=_ANSWER_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )


def quoted(path: Path) -> str:
    """Return a path as a value of the server's configuration, whatever bytes it holds."""
    text = "".join(chr(byte) if _PLAIN.match(bytes([byte])) else f"\\x{byte:02x}" for byte in os.fsencode(path))
    return f'"{text}"'
