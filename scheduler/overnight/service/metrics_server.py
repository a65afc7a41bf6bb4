"""Serve a scheduler's metrics over HTTP, where that was asked for.

Whoever reaches the place costs the scheduler little: at most so many connections are served at once, each by a thread,
one that is silent is closed, and what a peer does wrong is told nobody but on request.
"""

from __future__ import annotations

import logging
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from overnight.config import Endpoint
from overnight.errors import UsageError
from overnight.service.observer import Observer

#: Connections beyond these are closed unread. Scrapers need one each.
MOST_CONNECTIONS = 32
#: A peer that says nothing, or reads nothing, for so long is let go.
SILENT_SECONDS = 5.0
_logger = logging.getLogger("overnight.scheduler")


class _Handler(WSGIRequestHandler):
    """Answers one request, and logs none."""

    timeout = SILENT_SECONDS

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the library's signature
        """Say nothing of requests."""


class _Server(ThreadingMixIn, WSGIServer):
    """Serves each connection in a thread, and no more than there is room for."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._room = threading.Semaphore(MOST_CONNECTIONS)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Hand a connection to a thread, or close it."""
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # the system gives no more threads
            self._room.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection, and make room again."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002  # the library's signature
        """Pass over a peer that hung up, fell silent or spoke something else."""
        _logger.debug("metrics: a request of %s was not answered: %s", client_address, sys.exc_info()[1])


class _ServerOfIPv6(_Server):
    address_family = socket.AF_INET6


@contextmanager
def observing(endpoint: Endpoint | None) -> Iterator[Observer]:
    """Give the observer whose metrics are served at `endpoint`; without one, an observer that looks at nothing.

    A place that is taken is told and passed over: a night is not given up for its metrics. Raises UsageError if the
    library is not installed.
    """
    if endpoint is None:
        yield Observer()
        return
    try:
        from prometheus_client import make_wsgi_app

        from overnight.service.metrics import Metrics
    except ModuleNotFoundError as error:
        raise UsageError("Metrics need prometheus_client: pip install 'overnight[metrics]'") from error
    metrics = Metrics()
    try:
        server = _bound(endpoint, make_wsgi_app(metrics.registry))
    except (OSError, UnicodeError) as error:
        _logger.warning("metrics are not served at %s: %s", endpoint, getattr(error, "strerror", None) or error)
        yield Observer()
        return
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    _logger.info("metrics are served at http://%s:%d/metrics", endpoint.host, server.server_port)
    try:
        yield metrics
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _bound(endpoint: Endpoint, app: Any) -> WSGIServer:
    """Return a server that listens at `endpoint`. Raises OSError, or UnicodeError for a host that no name can have."""
    family, _, _, _, place = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)[0]
    kind = _ServerOfIPv6 if family == socket.AF_INET6 else _Server
    return make_server(str(place[0]), endpoint.port, app, kind, _Handler)
