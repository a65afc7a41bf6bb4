"""Serve a scheduler's metrics over HTTP, where that was asked for."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from overnight.config import Endpoint
from overnight.errors import UsageError
from overnight.service.observer import Observer

_logger = logging.getLogger("overnight.scheduler")


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
        from prometheus_client import start_http_server

        from overnight.service.metrics import Metrics
    except ModuleNotFoundError as error:
        raise UsageError("Metrics need prometheus_client: pip install 'overnight[metrics]'") from error
    metrics = Metrics()
    try:
        server, thread = start_http_server(endpoint.port, endpoint.host, metrics.registry)
    except OSError as error:
        _logger.warning("metrics are not served at %s: %s", endpoint, error.strerror or error)
        yield Observer()
        return
    _logger.info("metrics are served at http://%s:%d/metrics", endpoint.host, server.server_port)
    try:
        yield metrics
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
