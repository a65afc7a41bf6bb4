"""Planted bugs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

PLANTED: dict[str, Callable[[ExitStack], None]] = {}


@contextmanager
def planted(name: str | None) -> Iterator[None]:
    """Break a rule of the product for a while; None breaks none."""
    with ExitStack() as stack:
        if name is not None:
            PLANTED[name](stack)
        yield
