"""The shapes of ``--json`` as they are documented."""

from __future__ import annotations

from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from overnight.commands.app import VERBS
from overnight.commands.facts import VERSION
from overnight.commands.shapes import SHAPES, page, schema_of

ROOT = Path(__file__).parents[2]
SCHEMAS = ROOT / "scheduler" / "overnight" / "commands" / "schemas"
#: What prints no facts: a log is text, and two serve until they are ended.
TEXT_ALONE = {"logs", "scheduler", "worker"}
KNOWN = sorted(path.stem for path in SCHEMAS.glob("*.json"))


def test_each_verb_that_prints_facts_has_shapes() -> None:
    assert SHAPES.keys() == VERBS.keys() - TEXT_ALONE
    assert sorted({shape for shapes in SHAPES.values() for shape in shapes}) == KNOWN


@pytest.mark.parametrize("shape", KNOWN)
def test_each_schema_is_one_and_names_its_shape_and_version(shape: str) -> None:
    schema = schema_of(shape)
    Draft202012Validator.check_schema(schema)
    assert schema["properties"]["schema"]["const"] == schema["title"] == f"overnight.{shape}/{VERSION}"


def test_the_page_is_made_of_the_schemas() -> None:
    """Anew with ``python -m overnight.commands.shapes > scheduler/JSON.md``."""
    assert (ROOT / "scheduler" / "JSON.md").read_text(encoding="utf-8") == page()
