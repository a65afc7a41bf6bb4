"""A picture in the language of Graphviz."""

from __future__ import annotations

from overnight.naming import shown
from overnight.pictures.model import COLOURS, Picture, counts_text


def as_dot(picture: Picture) -> str:
    """Return the picture as a graph for `dot`."""
    lines = [
        "digraph overnight {",
        f"  label={_quoted(f'{picture.title}: {counts_text(picture.counts)}')};",
        "  rankdir=LR;",
        '  node [shape=box, style="rounded,filled", fontname="Helvetica", fontsize=11];',
        '  edge [color="#808080"];',
    ]
    for number, node in enumerate(picture.nodes):
        fill, border = COLOURS[node.state]
        label = f"{node.label}\n{counts_text(node.counts)}" if picture.is_folded else node.label
        lines.append(
            f'  n{number} [label={_quoted(label)}, tooltip={_quoted(node.note)}, fillcolor="{fill}", color="{border}"];'
        )
    for (start, end), number in picture.edges.items():
        lines.append(f"  n{start} -> n{end}" + (f' [label="{number:,}"];' if number > 1 else ";"))
    return "\n".join([*lines, "}", ""])


def _quoted(text: str) -> str:
    """Return a text as a quoted string, each of its lines escaped as for a terminal."""
    lines = (shown(line).replace("\\", "\\\\").replace('"', '\\"') for line in text.split("\n"))
    return '"' + "\\n".join(lines) + '"'
