"""A picture as SVG: one file that a browser opens offline, prints and searches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from math import log10

from overnight.naming import shown
from overnight.pictures.layout import Layout, Point, place
from overnight.pictures.model import COLOURS, Node, Picture, counts_text

_FONT = "font-family: Helvetica, Arial, 'Liberation Sans', sans-serif"
_CHARACTER = 6.6
_MOST_CHARACTERS = 34
_NARROWEST = 60.0
_MARGIN = 24.0
_HEAD = 58.0
_BAR = 7.0


def as_svg(picture: Picture) -> str:
    """Return the picture as a document. Raises UsageError where the library for layouts is not installed."""
    labels = [_cut(shown(node.label)) for node in picture.nodes]
    named = list(zip(labels, picture.nodes, strict=True))
    height = 40.0 if picture.is_folded else 24.0
    sizes = [(_width(label, node, is_folded=picture.is_folded), height) for label, node in named]
    layout = place(sizes, picture.edges)
    legend = list(_legend(picture.counts))
    width = max(layout.width, _legend_width(picture.counts), _CHARACTER * 1.2 * len(shown(picture.title))) + 2 * _MARGIN
    whole = layout.height + _HEAD + 2 * _MARGIN
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{whole:.0f}" '
        f'viewBox="0 0 {width:.0f} {whole:.0f}" style="{_FONT}; font-size: 12px">'
    )
    body = [*_edges(picture, layout, sizes), *_nodes(picture, labels, layout, sizes)]
    return "\n".join(
        [
            head,
            f"<title>{_text(picture.title)}</title>",
            '<rect width="100%" height="100%" fill="#ffffff"/>',
            f'<text x="{_MARGIN}" y="{_MARGIN + 8}" font-size="15" fill="#1a1a1a">{_text(picture.title)}</text>',
            *legend,
            f'<g transform="translate({_MARGIN} {_MARGIN + _HEAD})">',
            *body,
            "</g>",
            "</svg>",
            "",
        ]
    )


def _text(text: str) -> str:
    return escape(shown(text))


def _cut(label: str) -> str:
    return label if len(label) <= _MOST_CHARACTERS else f"{label[: _MOST_CHARACTERS - 1]}\u2026"


def _width(label: str, node: Node, *, is_folded: bool) -> float:
    longest = max(len(label), len(_cut(counts_text(node.counts))) * 0.85 if is_folded else 0)
    return max(_NARROWEST, longest * _CHARACTER + 20)


def _legend(counts: Mapping[str, int]) -> Iterator[str]:
    x, y = _MARGIN, _MARGIN + 22
    for state, number in counts.items():
        fill, border = COLOURS[state]
        text = f"{number:,} {state}"
        yield f'<rect x="{x:.0f}" y="{y:.0f}" width="14" height="12" rx="3" fill="{fill}" stroke="{border}"/>'
        yield f'<text x="{x + 20:.0f}" y="{y + 10:.0f}" fill="#404040">{text}</text>'
        x += _legend_step(text)


def _legend_step(text: str) -> float:
    return 20 + len(text) * _CHARACTER + 18


def _legend_width(counts: Mapping[str, int]) -> float:
    return sum(_legend_step(f"{number:,} {state}") for state, number in counts.items())


def _edges(picture: Picture, layout: Layout, sizes: Sequence[tuple[float, float]]) -> Iterator[str]:
    yield (
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="10" markerHeight="10" '
        'markerUnits="userSpaceOnUse" orient="auto"><path d="M0 1L8 4L0 7z" fill="#8a8a8a"/></marker></defs>'
    )
    yield '<g fill="none" stroke="#8a8a8a">'
    for (start, end), number in picture.edges.items():
        (x0, y0), (x1, y1) = layout.centres[start], layout.centres[end]
        side = 1 if x1 >= x0 else -1
        points = [(x0 + side * sizes[start][0] / 2, y0), *layout.ways[start, end], (x1 - side * sizes[end][0] / 2, y1)]
        thickness = 1 + (log10(number) if picture.is_folded else 0)
        title = f"<title>{number:,} dependencies</title>" if number > 1 else ""
        yield f'<path d="{_path(points)}" stroke-width="{thickness:.1f}" marker-end="url(#tip)">{title}</path>'
    yield "</g>"


def _path(points: Sequence[Point]) -> str:
    """Return a curve that leaves and enters each point along the flow."""
    (x, y), *more = points
    parts = [f"M{x:.1f} {y:.1f}"]
    for x1, y1 in more:
        middle = (x + x1) / 2
        parts.append(f"C{middle:.1f} {y:.1f} {middle:.1f} {y1:.1f} {x1:.1f} {y1:.1f}")
        x, y = x1, y1
    return "".join(parts)


def _nodes(
    picture: Picture, labels: Sequence[str], layout: Layout, sizes: Sequence[tuple[float, float]]
) -> Iterator[str]:
    for node, label, (x, y), (width, height) in zip(picture.nodes, labels, layout.centres, sizes, strict=True):
        fill, border = COLOURS[node.state]
        left, top = x - width / 2, y - height / 2
        yield f"<g><title>{_text(node.label)}: {_text(node.note)}</title>"
        yield (
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" rx="5" '
            f'fill="{"#ffffff" if picture.is_folded else fill}" stroke="{border}"/>'
        )
        baseline = top + (15 if picture.is_folded else height / 2 + 4)
        yield f'<text x="{x:.1f}" y="{baseline:.1f}" text-anchor="middle" fill="#1a1a1a">{escape(label)}</text>'
        if picture.is_folded:
            yield from _shares(node, x, left, top, width)
        yield "</g>"


def _shares(node: Node, x: float, left: float, top: float, width: float) -> Iterator[str]:
    """Yield the numbers of a folded node, and its bar: as much of each colour as tasks have the state."""
    text = escape(_cut(counts_text(node.counts)))
    yield f'<text x="{x:.1f}" y="{top + 27:.1f}" text-anchor="middle" font-size="10" fill="#505050">{text}</text>'
    at, inner = left + 4, width - 8
    for state, number in node.counts.items():
        share = inner * number / node.tasks
        fill, border = COLOURS[state]
        yield (
            f'<rect x="{at:.1f}" y="{top + 31:.1f}" width="{share:.1f}" height="{_BAR - 1}" fill="{fill}" '
            f'stroke="{border}" stroke-width="0.5"/>'
        )
        at += share
