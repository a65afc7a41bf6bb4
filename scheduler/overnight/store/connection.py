"""Connections to a server, and one clear sentence for each way in which one fails.

Timeouts and repeats are explicit: a call that failed may have been carried out, and redis-py sends it again. That is
safe because every step that writes is a script that may be repeated.
"""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import AuthenticationError, BusyLoadingError, NoPermissionError, ReadOnlyError, RedisError
from redis.retry import Retry

from overnight.config import Settings
from overnight.errors import DamagedRun, NoRoom, StoreFull, Unreachable, UsageError
from overnight.store.greeting import greet

SOCKET_SECONDS = 5.0
HEALTH_CHECK_SECONDS = 30
REPEATS = 3
LONGEST_BACKOFF_SECONDS = 1.0
FIRST_BACKOFF_SECONDS = 0.05
_PROBE_PAUSE_SECONDS = 0.2
_MOST_DATABASES = 1 << 31
#: A server that ends hangs up once; one that always does demands another kind of connection.
_MOST_HANG_UPS = 2
_CLOSED, _CROWDED = "Connection closed by server", "max number of clients"
#: The beginning of what follows ``://`` in a URL of good form: user, host, port.
_SPLIT = re.compile(r"^(?:[^/?#@]*@)?(?:\[[^\]]*\]|[^/?#:\[]*)(?::\d*)?(?:[/?#]|$)")
#: What Python says of an option of the URL that the connection does not have.
_NO_OPTION = re.compile(r"unexpected keyword argument '(\w+)'")
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_HOST_END = re.compile(r"[:\[]")


def connect(url: str, *, settings: Settings) -> redis.Redis:
    """Return a client of the server at `url` that has answered.

    Waits up to `settings.connect_seconds` for a server that refuses, is silent or still loads its data, or that ends
    while it is spoken to and comes back. Raises UsageError for a URL that cannot be read, Unreachable, naming URL and
    reason, for all else.
    """
    deadline = time.monotonic() + settings.connect_seconds
    hang_ups = 0
    while True:
        try:
            with _client(url, Retry(NoBackoff(), 0), min(SOCKET_SECONDS, settings.connect_seconds)) as probe:
                probe.ping()
            break
        except (TypeError, UnicodeError) as error:  # an option that no connection has, a host that no name can have
            option = _NO_OPTION.search(str(error))
            raise _no_url(url, f": connections have no option {option[1]!r}" if option else "") from error
        except (RedisError, OSError) as error:
            hang_ups += _CLOSED in str(error)
            passes = _may_pass(error) and hang_ups <= _MOST_HANG_UPS
            if not passes or time.monotonic() + _PROBE_PAUSE_SECONDS > deadline:
                raise translated(error, hidden(url)) from error
        time.sleep(_PROBE_PAUSE_SECONDS)
    backoff = ExponentialBackoff(cap=LONGEST_BACKOFF_SECONDS, base=FIRST_BACKOFF_SECONDS)
    return _client(url, Retry(backoff, REPEATS), SOCKET_SECONDS)


def _client(url: str, retry: Retry, seconds: float) -> redis.Redis:
    try:
        client = redis.Redis.from_url(
            url,
            protocol=2,
            retry=retry,
            socket_timeout=seconds,
            socket_connect_timeout=seconds,
            health_check_interval=HEALTH_CHECK_SECONDS,
            redis_connect_func=greet,
        )
    except ValueError as error:
        raise _no_url(url) from error
    given = client.connection_pool.connection_kwargs
    _see_files(url, given)
    if "decode_responses" in given:
        raise _no_url(url, ": replies are bytes here, so leave decode_responses out")
    place = urlsplit(url)
    if place.scheme != "unix" and place.path.strip("/") and not 0 <= given.get("db", -1) < _MOST_DATABASES:
        raise _no_url(url, ": its database is not a number")
    try:
        client.connection_pool.connection_class(**given)  # connects to nothing, and looks at what else was given
    except (ValueError, redis.RedisError) as error:
        raise _no_url(url, f": {str(error).rstrip('.')}") from error
    return client


def _see_files(url: str, given: Mapping[str, Any]) -> None:
    """Raise UsageError for a file of TLS that cannot be read."""
    for option in _FILES:
        if given.get(option):
            try:
                Path(given[option]).open("rb").close()
            except OSError as error:
                why = f"{given[option]!r} ({option}), which cannot be read: {error.strerror}"
                raise UsageError(f"{hidden(url)!r} names the file {why}.") from error


def _no_url(url: str, why: str = "") -> UsageError:
    rest = url.partition("://")[2]
    if not why and "@" not in rest and rest and _SPLIT.search(rest) is None:
        why = ": its port is not a number"
    return UsageError(
        f"{hidden(url)!r} is no URL of a Redis server{why}. For example redis://host:6379/0, rediss://host:6380/0 or "
        "unix:///path/to/socket."
    )


def hidden(url: str) -> str:
    """Return `url` with its password, if any, replaced by ``***``: also in the query, also where the URL is faulty.

    A password may hold what separates the parts of a URL, or stand where a port should be.
    """
    scheme, separator, rest = url.partition("://")
    user, colon, _ = rest.rpartition("@")[0].partition(":")
    if separator and colon:
        rest = f"{user}:***@{rest.rpartition('@')[2]}"
    elif separator and _SPLIT.search(rest) is None:
        rest = f"{_HOST_END.split(rest, maxsplit=1)[0]}:***"
    elif not separator and ":" in scheme.rpartition("@")[0]:
        return f"***@{url.rpartition('@')[2]}"
    place, mark, query = rest.partition("?")
    fields = (f"{name}=***" if "password" in unquote(name).lower() else field for name, field in _fields(query))
    return f"{scheme}{separator}{place}{mark}{'&'.join(fields)}"


def _fields(query: str) -> Iterator[tuple[str, str]]:
    return ((field.partition("=")[0], field) for field in query.split("&"))


def address(client: redis.Redis) -> str:
    """Return the URL of a client's server without user and password."""
    options = client.connection_pool.connection_kwargs
    if "path" in options:
        return f"unix://{options['path']}"
    scheme = "rediss" if issubclass(client.connection_pool.connection_class, redis.SSLConnection) else "redis"
    return f"{scheme}://{options.get('host', 'localhost')}:{options.get('port', 6379)}/{options.get('db') or 0}"


def translated(error: Exception, url: str) -> Unreachable:
    """Return the error of overnight that says in one sentence why the server at `url` cannot be used."""
    text = str(error)
    if "command not allowed when used memory" in text:
        return StoreFull(f"The memory of the server {url} is full: raise its maxmemory or let runs end.")
    if "MISCONF" in text:
        return StoreFull(f"The server {url} cannot write to its disk and refuses changes: {text}")
    if _NO_DATABASE not in text and any(words in text for words in _FAULTS_OF_A_SCRIPT):
        return DamagedRun(f"The server {url} holds records that contradict each other: {text.rstrip('.')}.")
    if _CROWDED in text:
        return NoRoom(
            f"The server {url} cannot be used: {_CROWDED} reached: raise its maxclients, or run fewer processes."
        )
    reason = _reason(error, text)
    if reason == _SILENT and url.startswith("rediss:"):
        reason += "; perhaps it does not speak TLS"
    if reason == _HUNG_UP and not url.startswith("rediss:"):
        reason += "; perhaps it speaks TLS alone (rediss://)"
    return Unreachable(f"The server {url} cannot be used: {reason}.")


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _reason(error: Exception, text: str) -> str:
    for known, sentence in _SENTENCES:
        if known in text:
            return sentence
    found = [(sentence, cause) for cause in _causes(error) for kind, sentence in _KINDS if isinstance(cause, kind)]
    if not found:
        return text.rstrip(".") or type(error).__name__
    sentence, cause = found[0]
    return sentence.format(text=text.rstrip("."), cause=cause)


#: What a script says of records of another type or form than it wrote; not what the server says through a script.
_FAULTS_OF_A_SCRIPT = (
    "attempt to ", "WRONGTYPE", " but found ", "bad argument", "too many nested", "too many results to unpack",
    "not an integer", "not a valid float", "would overflow", "is out of range", "exceeds maximum allowed size",
    "command arguments must be strings or integers", "invalid order function",
)  # fmt: skip
_HUNG_UP = "it closed the connection"
_SILENT = "it does not answer in time"
_NO_DATABASE = "DB index is out of range"
_SENTENCES = (
    (_NO_DATABASE, "it has no database of this number"),
    ("WRONGPASS", "the user name or password is wrong"),
    ("Authentication required", "it demands a password and none was given"),
    ("without any password configured", "a password was given and it has none"),
    ("invalid username-password", "the user name or password is wrong"),
    (_CLOSED, _HUNG_UP),
    ("Connection reset", _HUNG_UP),
    (
        "executing the script can't",
        "its access rules forbid this user what is needed: take another role's address",
    ),
    ("Connection refused", "nothing listens there (connection refused): start it, or give another address"),
    ("Name or service not known", "its host name is not known"),
    ("name resolution", "its host name cannot be looked up"),
    ("nodename nor servname", "its host name is not known"),
)
_KINDS: tuple[tuple[type[BaseException], str], ...] = (
    (NoPermissionError, "its access rules forbid what is needed ({text})"),
    (BusyLoadingError, "it is still loading its data"),
    (ReadOnlyError, "it is a replica and refuses changes; name the primary"),
    (AuthenticationError, "the user name or password is wrong"),
    (ssl.SSLCertVerificationError, "TLS does not fit: its certificate is not trusted ({cause.verify_message})"),
    (ssl.SSLError, "TLS does not fit: one side is plain, or the certificate is not trusted"),
    (socket.gaierror, "its host name is not known"),
    (FileNotFoundError, "its socket does not exist"),
    (redis.TimeoutError, _SILENT),
    (TimeoutError, _SILENT),
)
_PASSING = (
    "Connection refused", _CROWDED, "No such file", "not exist",
    "Connection reset", "Broken pipe", _CLOSED,
)  # fmt: skip


def _may_pass(error: Exception) -> bool:
    if isinstance(error, AuthenticationError):
        return False
    return isinstance(error, BusyLoadingError | redis.TimeoutError) or any(word in str(error) for word in _PASSING)
