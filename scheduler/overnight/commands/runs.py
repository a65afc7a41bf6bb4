"""`overnight runs`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from overnight.commands.opening import open_to_read
from overnight.commands.options import json_option, server_options, verb

if TYPE_CHECKING:
    from overnight.config import Settings
    from overnight.store.records import RunRecord

_RUN = "overnight run "


@verb("runs", "overnight runs")
@server_options
@json_option
def command(*, settings: Settings, as_json: bool) -> None:
    """List the runs that are kept, newest first."""
    from overnight.client import Client
    from overnight.commands.facts import tell
    from overnight.commands.screen import duration, moment, say, table
    from overnight.hints import hint
    from overnight.naming import shown

    with open_to_read(settings) as deployment:
        runs, now = Client.of(deployment).runs(), deployment.store.now()
    if as_json:
        tell("runs", {"runs": [_facts(run) for run in runs]})
        return
    if not runs:
        say(f"There are no runs. Start one: {hint(settings, 'run', 'TARGET')}")
        return
    rows = [
        [
            shown(run.run_id),
            "paused" if run.paused else run.phase.value,
            str(run.total),
            moment(run.created_at),
            duration(run.seconds(now)),
            shown(_spelled(run)),
        ]
        for run in runs
    ]
    table(["RUN", "PHASE", "TASKS", "STARTED", "TOOK", "NAME"], rows)


def _spelled(run: RunRecord) -> str:
    """Return what tells runs of one target apart: its parameters and chosen tasks too, as they were typed."""
    typed = run.command.removeprefix(_RUN)
    return typed if typed != run.command and typed.startswith(run.name) else run.name


def _facts(run: RunRecord) -> dict[str, Any]:
    return {
        "run": run.run_id,
        "name": run.name,
        "phase": run.phase.value,
        "paused": run.paused,
        "note": run.note,
        "total": run.total,
        "created_at": run.created_at,
        "ended_at": run.ended_at,
        "owner": run.owner,
        "command": run.command,
    }
