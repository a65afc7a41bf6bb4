"""What each verb prints with ``--json`` is of a documented shape, and holds nothing that is not documented."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from overnight.commands.facts import VERSION
from overnight.commands.shapes import SHAPES, schema_of
from overnight.local_fleet import ensure_fleet
from tests.support.command import Desk, Finished, desk

GRAPHS = "tests.support.graphs"
#: Which shapes of each verb were seen; the last test compares.
SEEN: dict[str, set[str]] = {}


@pytest.fixture(scope="module")
def place(short_directory: Path) -> Iterator[Desk]:
    """A desk whose two workers stay, with a run in which one task failed, one was skipped and one is done."""
    with desk(short_directory / "json") as given:
        lease = ensure_fleet(given.state_dir, workers=2)
        shaped(given, "outcome", "run", f"{GRAPHS}:raises", "-k", status=1)
        yield given
        lease.close(stop=False)


def closed(schema: Any) -> Any:
    """Return a schema that allows no member that it does not name."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: closed(part) for name, part in schema.items()}
    return {**found, "additionalProperties": False} if "properties" in found else found


def judged(found: Finished, shape: str) -> dict[str, Any]:
    """Return what a command printed, having seen that it is of this shape and nothing else."""
    lines = found.out.splitlines()
    assert len(lines) == 1, found.out
    Draft202012Validator(closed(schema_of(shape))).validate(found.document)
    assert found.document["schema"] == f"overnight.{shape}/{VERSION}"
    return found.document


def shaped(place: Desk, shape: str, verb: str, *words: str, status: int = 0) -> dict[str, Any]:
    found = place.run(verb, *words, "--json")
    assert found.status == status, found.err
    SEEN.setdefault(verb, set()).add(shape)
    return judged(found, shape)


def opened_gate(place: Desk, verb: str, *more: str, name: str) -> tuple[dict[str, Any], int]:
    """Start a gated run and wait until its gate runs; return what was printed, and what opens the gate when closed."""
    fifo = place.directory / f"{name}.fifo"
    os.mkfifo(fifo)
    gated = [f"{GRAPHS}:gated", "-p", f"fifo={fifo}", "-p", f"ledger={name}.ledger", *more]
    facts = shaped(place, "started", verb, *gated)
    return facts, os.open(fifo, os.O_WRONLY)


def test_a_run_and_what_is_asked_of_it_while_it_goes_on(place: Desk) -> None:
    started, gate = opened_gate(place, "submit", name="asked")
    run = started["run"]
    assert shaped(place, "status", "status", run)["running"] != []
    shaped(place, "why", "why", run, "entry 0")
    shaped(place, "task", "status", run, "gate")
    shaped(place, "workers", "workers")
    assert shaped(place, "wanted", "workers", "--wanted", "1h")["wanted"] == 1
    assert shaped(place, "request", "pause", run) == {
        "schema": f"overnight.request/{VERSION}", "run": run, "request": "pause", "tasks": [],
    }  # fmt: skip
    shaped(place, "request", "resume", run)
    os.close(gate)
    assert shaped(place, "outcome", "follow", run)["phase"] == "succeeded"


def test_a_run_that_is_cancelled_and_run_again(place: Desk) -> None:
    started, gate = opened_gate(place, "run", "--detach", name="cancelled")
    run = started["run"]
    shaped(place, "request", "cancel", run)
    assert shaped(place, "outcome", "follow", run, status=5)["counts"].get("cancelled")
    os.close(gate)


def test_what_failed_and_is_tried_again(place: Desk) -> None:
    failed = shaped(place, "outcome", "run", f"{GRAPHS}:raises", "-k", status=1)
    run = failed["run"]
    assert [task["task"] for task in failed["failed"]] == ["culprit"]
    shaped(place, "status", "status", run)
    for task in ("culprit", "dependant", "bystander"):
        shaped(place, "task", "status", run, task)
        shaped(place, "why", "why", run, task)
    shaped(place, "log", "logs", run, "culprit")
    assert shaped(place, "report", "report", run, "-o", "r.html")["causes"] == 1
    assert shaped(place, "request", "retry", run, "-t", "culprit")["tasks"] == ["culprit"]
    shaped(place, "outcome", "follow", run, status=1)
    assert run in [one["run"] for one in shaped(place, "runs", "runs")["runs"]]


def test_what_would_run_and_nothing_to_run(place: Desk) -> None:
    target = f"{GRAPHS}:diamond"
    shaped(place, "plan", "plan", target)
    shaped(place, "plan", "run", target, "-n")
    shaped(place, "outcome", "run", target)
    shaped(place, "plan", "plan", target)
    for verb in ("run", "submit"):
        assert shaped(place, "nothing", verb, target)["run"] is None
    for task in ("top", "bottom"):
        shaped(place, "why-target", "why", target, task)
    shaped(place, "why-target", "why", f"{GRAPHS}:raises", "culprit")
    shaped(place, "graph", "graph", target, "-o", "g.dot")
    shaped(place, "graph", "graph", "last", "-o", "g.svg", "--fold-above", "1")


def test_the_demo_and_the_doctor(place: Desk) -> None:
    small = ["--limit", "3", "--out", "counted"]
    shaped(place, "outcome", "demo", *small)
    shaped(place, "nothing", "demo", *small)
    shaped(place, "started", "demo", "--limit", "2", "--out", "other", "--detach")
    shaped(place, "outcome", "follow")
    shaped(place, "doctor", "doctor")


def test_an_error_prints_nothing_for_programs(place: Desk) -> None:
    for words in (("status", "nobody"), ("plan", "no_module:build"), ("why", "nobody"), ("runs", "-u", "http://x")):
        found = place.run(*words, "--json")
        assert (found.status, found.out) == (2, "")
        assert found.sentence


def test_every_documented_shape_was_seen(place: Desk) -> None:
    """But that of the end of a quarantine, which takes three hosts to bring about (`test_quarantine`)."""
    documented = {verb: set(shapes) - {"released"} for verb, shapes in SHAPES.items()}
    assert documented == SEEN
