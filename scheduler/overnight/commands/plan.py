"""`overnight plan TARGET`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from overnight.commands.options import json_option, server_options, settings_of, verb, verbose_option
from overnight.commands.run import parameter_option, request_of, start, target_argument, work_options


@verb("plan", "overnight plan flow.py:build -p year=2026 -j 8")
@target_argument
@parameter_option
@work_options
@server_options
@json_option
@verbose_option
def command(
    *,
    target: str,
    parameters: Sequence[str],
    redis_url: str | None,
    state_dir: str | None,
    as_json: bool,
    **options: Any,
) -> int:
    """Say what a run of TARGET would do, and why; run nothing.

    Each task that would run has one reason. How long it takes is told as far as it is known, from records of finished
    tasks and from what a server that is there has learned; nothing is started. -v names what is up to date too.
    """
    settings = settings_of(redis_url, state_dir)
    return start(request_of(target, parameters, options), settings, as_json=as_json, dry_run=True)
