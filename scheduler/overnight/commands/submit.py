"""`overnight submit TARGET`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from overnight.commands.options import json_option, server_options, settings_of, verb, verbose_option
from overnight.commands.run import parameter_option, request_of, start, target_argument, work_options


@verb("submit", "overnight submit flow.py:build -p year=2026")
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
    """Start the graph that TARGET makes, print the run's id, and leave it running."""
    settings = settings_of(redis_url, state_dir)
    return start(request_of(target, parameters, options), settings, as_json=as_json, detach=True)
