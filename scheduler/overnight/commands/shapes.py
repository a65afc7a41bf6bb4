"""The shapes of what ``--json`` prints: their schemas, which verb prints which, and the page that shows them all.

``python -m overnight.commands.shapes`` prints that page, `scheduler/JSON.md`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any

from overnight.commands.facts import VERSION

#: The shapes that each verb prints; verbs that are not here print text alone.
SHAPES: Mapping[str, tuple[str, ...]] = {
    "run": ("outcome", "nothing", "started", "plan"),
    "submit": ("started", "nothing"),
    "plan": ("plan",),
    "runs": ("runs",),
    "status": ("status", "task"),
    "follow": ("outcome",),
    "why": ("why", "why-target"),
    "cancel": ("request",),
    "pause": ("request",),
    "resume": ("request",),
    "retry": ("request",),
    "graph": ("graph",),
    "workers": ("workers", "wanted", "released"),
    "doctor": ("doctor",),
    "demo": ("outcome", "nothing", "started"),
}
_HEAD = f"""\
# What `--json` prints

`overnight VERB --json` prints one line of JSON on standard output, an object. Its member `schema` names the shape and
the version of it, such as `overnight.status/{VERSION}`; what people read meanwhile is on standard error. Within a
version members are only added, so a program passes over those that it does not know; one that goes or comes to mean
something else makes a new version. The exit status is the same with and without `--json`; an error is a sentence on
standard error, and nothing is printed on standard output.

The schemas are in `overnight/commands/schemas/`, one JSON Schema (2020-12) for each shape. This page is made of them by
`python -m overnight.commands.shapes`. `logs` prints the log itself; `scheduler` and `worker` print no facts.
"""


def schema_of(shape: str) -> dict[str, Any]:
    """Return the JSON schema of a shape. Raises FileNotFoundError for an unknown one."""
    text = (files("overnight.commands") / "schemas" / f"{shape}.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def page() -> str:
    """Return the page that shows all shapes."""
    lines = [_HEAD, "| verb | shapes |", "|---|---|"]
    for verb, shapes in SHAPES.items():
        lines.append(f"| `{verb}` | {', '.join(f'[{shape}](#overnight{shape}{VERSION})' for shape in shapes)} |")
    for shape in dict.fromkeys(shape for shapes in SHAPES.values() for shape in shapes):
        schema = schema_of(shape)
        lines += [
            "",
            f"## {schema['title']}",
            schema["description"],
            "",
            "| member | type | what it is |",
            "|---|---|---|",
        ]
        lines += _rows(schema, "")
    return "\n".join([*lines, ""])


def _rows(schema: Mapping[str, Any], prefix: str) -> Iterator[str]:
    required = schema.get("required", ())
    for name, member in schema["properties"].items():
        if name == "schema" and not prefix:
            continue
        path = f"{prefix}{name}"
        about = member["description"] + ("" if name in required else " (Not always there.)")
        if "enum" in member:
            about += f" One of {', '.join(member['enum'])}."
        yield f"| `{path}` | {_kind(member)} | {about} |"
        if "properties" in member:
            yield from _rows(member, f"{path}.")
        elif "properties" in member.get("items", ()):
            yield from _rows(member["items"], f"{path}[].")


def _kind(member: Mapping[str, Any]) -> str:
    kinds = member["type"] if isinstance(member["type"], list) else [member["type"]]
    return " or ".join(kinds)


if __name__ == "__main__":
    sys.stdout.write(page())
