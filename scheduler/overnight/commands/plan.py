"""`overnight plan TARGET`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from overnight.commands.options import json_option, server_options, verb, verbose_option
from overnight.commands.run import request_of, start, target_options

if TYPE_CHECKING:
    from overnight.config import Settings


@verb("plan", "overnight plan flow.py:build -p year=2026 -j 8")
@target_options
@server_options
@json_option
@verbose_option
def command(
    *,
    target: str,
    parameters: Sequence[str],
    settings: Settings,
    as_json: bool,
    **options: Any,
) -> int:
    """Say what a run of TARGET would do, and why; run nothing.

    Each task that would run has one reason. How long it takes is told as far as it is known, from records of finished
    tasks and from what a server that is there has learned; nothing is started. Of many tasks in a row that are alike a
    few are named; -v names each, and what is up to date too.
    """
    return start(request_of(target, parameters, options), settings, as_json=as_json, dry_run=True)
