"""A picture in the language of Mermaid, which GitLab, GitHub and many editors draw."""

from __future__ import annotations

from overnight.naming import shown
from overnight.pictures.model import COLOURS, Picture, counts_text


def as_mermaid(picture: Picture) -> str:
    """Return the picture as a flowchart."""
    lines = ["---", f"title: {_title(picture)}", "---", "flowchart LR"]
    for number, node in enumerate(picture.nodes):
        label = f"{node.label}\n{counts_text(node.counts)}" if picture.is_folded else node.label
        lines.append(f"  n{number}({_quoted(label)}):::{_class(node.state)}")
    for (start, end), number in picture.edges.items():
        lines.append(f"  n{start} -->" + (f'|"{number:,}"| ' if number > 1 else " ") + f"n{end}")
    for state in sorted({node.state for node in picture.nodes}):
        fill, border = COLOURS[state]
        lines.append(f"  classDef {_class(state)} fill:{fill},stroke:{border},color:#1a1a1a")
    return "\n".join([*lines, ""])


def _class(state: str) -> str:
    return f"is_{state.replace(' ', '_')}"


def _title(picture: Picture) -> str:
    """Return the title as a quoted string of YAML."""
    text = shown(f"{picture.title}: {counts_text(picture.counts)}").replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _quoted(text: str) -> str:
    """Return a text as a label, with entities for what Mermaid or HTML would take for its own."""
    lines = ("".join(_escaped(character) for character in shown(line)) for line in text.split("\n"))
    return '"' + "<br>".join(lines) + '"'


def _escaped(character: str) -> str:
    return f"#{ord(character)};" if character in '"#&;<>`*_\\[]{}|' else character
