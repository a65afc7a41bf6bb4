"""Settings: one frozen value, read once at the edge of each process. Units stand in the names.

All faults are reported together. Inside, each part receives only what it needs.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from overnight.errors import UsageError

DEFAULT_PREFIX = "overnight"
DEFAULT_STATE_DIR = ".overnight"
DEFAULT_QUEUE = "default"
LEASE_SECONDS = 15.0
#: Whoever lives renews three times a term: no lease, of a batch or of the scheduler, lasts for longer than so many.
LONGEST_TERMS = 4
HEARTBEAT_SECONDS = 5.0
#: Who gives signs of life more often does nothing else.
SHORTEST_HEARTBEAT_SECONDS = 0.01
KEEP_SECONDS = 7 * 24 * 3600.0
CONNECT_SECONDS = 12.0
INLINE_BYTES = 64 * 1024
DRAIN_SECONDS = 30.0
TASK_LOG_BYTES = 1 << 30
QUARANTINE_SECONDS = 3600.0
#: For so long a local fleet stays that nobody uses.
IDLE_SECONDS = 60.0
#: A server elsewhere that is silent for so long, longer than a long weekend, is gone for good.
GONE_SECONDS = 4 * 24 * 3600.0
#: More worker processes than this on one machine are a slip of the finger.
MOST_JOBS = 1024

#: Environment variables by field; every one of them is optional.
VARIABLES = {
    "redis_url": "OVERNIGHT_REDIS_URL",
    "state_dir": "OVERNIGHT_STATE_DIR",
    "prefix": "OVERNIGHT_PREFIX",
    "lease_seconds": "OVERNIGHT_LEASE_SECONDS",
    "heartbeat_seconds": "OVERNIGHT_HEARTBEAT_SECONDS",
    "keep_seconds": "OVERNIGHT_KEEP_SECONDS",
    "connect_seconds": "OVERNIGHT_CONNECT_SECONDS",
    "inline_bytes": "OVERNIGHT_INLINE_BYTES",
    "drain_seconds": "OVERNIGHT_DRAIN_SECONDS",
    "task_log_bytes": "OVERNIGHT_TASK_LOG_BYTES",
    "host_name": "OVERNIGHT_HOST_NAME",
    "quarantine_seconds": "OVERNIGHT_QUARANTINE_SECONDS",
    "idle_seconds": "OVERNIGHT_IDLE_SECONDS",
    "gone_seconds": "OVERNIGHT_GONE_SECONDS",
    "metrics": "OVERNIGHT_METRICS",
    "resource_limits": "OVERNIGHT_RESOURCE_LIMITS",
}
_PREFIX = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_PORT = re.compile(r"[0-9]{1,5}")
_HOST_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,253}")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where something is served. As text it is ``host:port``; a port alone is one on the loopback."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Return the endpoint that a text names; ValueError says what was expected."""
        host, _, port = text.rpartition(":")
        if not _PORT.fullmatch(port) or int(port) > 65535:
            raise ValueError("expected a port, as 9464, or host and port, as 0.0.0.0:9464")
        return cls(host.strip("[]") or "127.0.0.1", int(port))

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Settings:
    """What every process of a deployment agrees on. `redis_url` None means the embedded server of `state_dir`.

    `host_name` is what a worker calls its host: where containers have names of their own, that of the machine below
    them can be given, so that people, and the quarantine of hosts, know what belongs together. `resource_limits` are
    those of a scheduler over all runs, and those of the run that a command starts.
    """

    redis_url: str | None = None
    state_dir: Path = Path(DEFAULT_STATE_DIR)
    prefix: str = DEFAULT_PREFIX
    lease_seconds: float = LEASE_SECONDS
    heartbeat_seconds: float = HEARTBEAT_SECONDS
    keep_seconds: float = KEEP_SECONDS
    connect_seconds: float = CONNECT_SECONDS
    inline_bytes: int = INLINE_BYTES
    drain_seconds: float = DRAIN_SECONDS
    task_log_bytes: int = TASK_LOG_BYTES
    host_name: str = field(default_factory=socket.gethostname)
    quarantine_seconds: float = QUARANTINE_SECONDS
    idle_seconds: float = IDLE_SECONDS
    gone_seconds: float = GONE_SECONDS
    metrics: Endpoint | None = None
    resource_limits: Mapping[str, float] = field(default_factory=dict)
    typed: tuple[str, ...] = ()
    """The options for server and state directory that were given, as a command line has them."""

    def with_values(self, *, redis_url: str | None = None, state_dir: str | Path | None = None) -> Settings:
        """Return these settings with what was given on a command line in place of the environment's."""
        changed = self
        if redis_url is not None:
            changed = replace(changed, redis_url=redis_url, typed=(*changed.typed, "-u", redis_url))
        if state_dir is not None:
            changed = replace(changed, state_dir=Path(state_dir), typed=(*changed.typed, "--state-dir", str(state_dir)))
        return changed

    def embedded(self) -> Settings:
        """Return these settings with the embedded server, whatever the environment says."""
        return replace(self, redis_url=None)


def read_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of this process from its environment; UsageError names every fault at once."""
    source = os.environ if environ is None else environ
    values: dict[str, object] = {}
    faults: list[str] = []
    for name, variable in VARIABLES.items():
        text = source.get(variable)
        if not text:
            continue
        try:
            values[name] = _parse(name, text)
        except ValueError as error:
            faults.append(f"{variable}: {error}, found {text!r}")
    if faults:
        raise UsageError("The environment cannot be used: " + "; ".join(faults) + ".")
    settings = Settings(**values)  # type: ignore[arg-type]  # each value was parsed for its field
    if settings.heartbeat_seconds < SHORTEST_HEARTBEAT_SECONDS:
        raise UsageError(
            f"A heartbeat every {settings.heartbeat_seconds} s leaves a worker no time for its tasks: make "
            f"OVERNIGHT_HEARTBEAT_SECONDS {SHORTEST_HEARTBEAT_SECONDS} or more."
        )
    if settings.heartbeat_seconds * 2 > settings.lease_seconds:
        raise UsageError(
            f"A heartbeat every {settings.heartbeat_seconds} s cannot keep a lease of {settings.lease_seconds} s: "
            "make OVERNIGHT_LEASE_SECONDS at least twice OVERNIGHT_HEARTBEAT_SECONDS."
        )
    return settings


def task_log_bytes(environ: Mapping[str, str]) -> int:
    """Return how much one attempt may write to its log, in a process of tasks; a bad value was refused at the edge."""
    try:
        return int(environ.get(VARIABLES["task_log_bytes"], "")) or TASK_LOG_BYTES
    except ValueError:
        return TASK_LOG_BYTES


def _parse(name: str, text: str) -> object:
    parser = _PARSERS.get(name)
    if parser is not None:
        return parser(text)
    try:
        number = int(text) if name.endswith("_bytes") else float(text)
    except ValueError:
        raise ValueError("expected a number") from None
    if not 0 < number < float("inf"):
        raise ValueError("expected a positive number")
    return number


def parsed_limits(texts: Iterable[str]) -> dict[str, float]:
    """Return the limits that texts NAME=AMOUNT give, each name once; ValueError says what was expected."""
    limits: dict[str, float] = {}
    for text in texts:
        name, sign, amount = text.strip().rpartition("=")
        if name in limits:
            raise ValueError(f"expected one amount for each name, not two for {name!r}")
        try:
            limits[name] = float(amount)
        except ValueError:
            sign = ""
        if not sign or not name or not 0 < limits[name] < float("inf"):
            raise ValueError(f"expected NAME=AMOUNT with an amount above 0, such as db=2, not {text.strip()!r}")
    return limits


def _prefix(text: str) -> str:
    if not _PREFIX.fullmatch(text):
        raise ValueError("expected 1 to 64 letters, digits, '_', '.' or '-'")
    return text


def _host_name(text: str) -> str:
    if not _HOST_NAME.fullmatch(text):
        raise ValueError("expected 1 to 253 letters, digits, '_', '.', ':' or '-'")
    return text


def _patience(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ValueError("expected a number of seconds, 0 or more")
    return seconds


#: How a field is read that is no positive number.
_PARSERS: Mapping[str, Callable[[str], object]] = {
    "redis_url": str,
    "state_dir": Path,
    "prefix": _prefix,
    "host_name": _host_name,
    "idle_seconds": _patience,
    "gone_seconds": _patience,
    "metrics": Endpoint.parse,
    "resource_limits": lambda text: parsed_limits(text.split(",")),
}
