"""`overnight submit TARGET`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from overnight.commands.options import json_option, server_options, tasks_verbose_option, verb
from overnight.commands.run import request_of, start, target_options

if TYPE_CHECKING:
    from overnight.config import Settings


@verb("submit", "overnight submit flow.py:build -p year=2026")
@target_options
@server_options
@json_option
@tasks_verbose_option
def command(
    *,
    target: str,
    parameters: Sequence[str],
    settings: Settings,
    as_json: bool,
    **options: Any,
) -> int:
    """Start the graph that TARGET makes, print the run's id, and leave it running."""
    return start(request_of(target, parameters, options), settings, as_json=as_json, detach=True)
