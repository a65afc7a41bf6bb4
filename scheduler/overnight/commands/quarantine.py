"""Hosts in quarantine as people see them (ADVERSITY P10), and the end of a quarantine by a person's word."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from overnight.commands.facts import tell
from overnight.commands.screen import duration, say
from overnight.errors import BadSeal, UnknownRun, UsageError, nearest
from overnight.naming import shown

if TYPE_CHECKING:
    from overnight.client import Client
    from overnight.store.records import Quarantine
    from overnight.store.redis import RedisStore

_MOST_NAMED = 5


def release(store: RedisStore, host: str, *, as_json: bool = False) -> None:
    """End the quarantine of a host, and forget what was held against it. UsageError if there is nothing to end."""
    if store.release(host):
        if as_json:
            tell("released", {"host": host})
        else:
            say(f"Host {shown(host)} takes work again.")
        return
    known = [one.host for one in store.quarantines()]
    hosts = f" In quarantine: {', '.join(shown(one) for one in known)}." if known else ""
    raise UsageError(f"Nothing is held against host {shown(host)}{nearest(host, known)}{hosts}")


def as_fact(client: Client, quarantine: Quarantine) -> dict[str, Any]:
    """Return a quarantine as plain values; `seconds` is how long it lasts from now on."""
    tasks = [{"run": run_id, "task": _task_id(client, run_id, task)} for run_id, task in quarantine.tasks]
    return {"seconds": round(quarantine.seconds, 3), "tasks": tasks}


def lines(facts: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield what people read of hosts in quarantine, by host."""
    for host, fact in facts.items():
        names = [shown(task["task"]) for task in fact["tasks"]]
        named = ", ".join(names[:_MOST_NAMED]) + (", ..." if len(names) > _MOST_NAMED else "")
        yield (
            f"Host {shown(host)} is in quarantine for {duration(fact['seconds'])} more: {len(names)} tasks died on it "
            f"that then succeeded elsewhere ({named}). It takes nothing from a queue that other hosts serve. "
            f"This ends it: overnight workers --release {shown(host)}"
        )


def _task_id(client: Client, run_id: str, task: int) -> str:
    """Return the id of a task, its index where its run is gone or cannot be read."""
    try:
        return client.structure(run_id).task_id(task)
    except (UnknownRun, BadSeal, IndexError):
        return f"#{task}"
