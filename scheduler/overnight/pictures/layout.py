"""Places the nodes of a picture in columns, dependencies on the left, with as few crossings as can be found.

The layout is Sugiyama's, by the library grandalf, which makes rows from top to bottom: it is given heights for widths,
and its axes are exchanged. Parts that hang together are placed one below the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from overnight.errors import UsageError

Point = tuple[float, float]
_BETWEEN_NODES = 14.0
_BETWEEN_COLUMNS = 70.0
_ROUNDS = 6


@dataclass(frozen=True, slots=True)
class Layout:
    """Centres of the nodes, and of each edge the points between its ends that it passes; all coordinates from 0 on."""

    centres: Sequence[Point]
    ways: Mapping[tuple[int, int], Sequence[Point]]
    width: float
    height: float


class _View:
    """What grandalf wants to know of a node, and tells: `w` across the flow, `h` along it, `xy` the centre."""

    def __init__(self, across: float, along: float) -> None:
        self.w = across
        self.h = along
        self.xy: Point = (0.0, 0.0)


class _Way:
    """What grandalf tells of an edge."""

    def __init__(self) -> None:
        self.points: list[Point] = []

    def setpath(self, points: list[Point]) -> None:
        self.points = list(points)


def place(sizes: Sequence[tuple[float, float]], edges: Iterable[tuple[int, int]]) -> Layout:
    """Place boxes of these (width, height) in columns. Raises UsageError where the library is not installed."""
    try:
        from grandalf.graphs import Edge, Graph, Vertex
        from grandalf.layouts import SugiyamaLayout
    except ImportError as error:
        install = "pip install 'overnight[graph]'"
        raise UsageError(
            f"A picture as .svg needs the library grandalf: {install}. As .dot or .mmd it needs none."
        ) from error
    vertices = [Vertex(number) for number in range(len(sizes))]
    for vertex, (width, height) in zip(vertices, sizes, strict=True):
        vertex.view = _View(height, width)
    links = {pair: Edge(vertices[pair[0]], vertices[pair[1]]) for pair in edges}
    for link in links.values():
        link.view = _Way()
    parts = Graph(vertices, list(links.values())).C
    top = 0.0
    for part in sorted(parts, key=lambda part: min(vertex.data for vertex in part.sV)):
        sugiyama = SugiyamaLayout(part)
        sugiyama.xspace, sugiyama.yspace = _BETWEEN_NODES, _BETWEEN_COLUMNS
        sugiyama.init_all()
        sugiyama.draw(_ROUNDS)
        top = _moved_below(list(part.sV), list(part.sE), top) + _BETWEEN_NODES
    return _exchanged(vertices, links, sizes)


def _moved_below(vertices: Sequence[Any], links: Sequence[Any], top: float) -> float:
    """Move a part so that it begins at `top` across the flow, and at 0 along it; return where it ends.

    It is mirrored too: grandalf puts what it is given first to the right, which becomes the bottom.
    """
    across = [vertex.view.xy[0] + vertex.view.w / 2 for vertex in vertices]
    across += [point[0] for link in links for point in link.view.points]
    along = min(vertex.view.xy[1] - vertex.view.h / 2 for vertex in vertices)
    shift = top + max(across)
    for vertex in vertices:
        vertex.view.xy = (shift - vertex.view.xy[0], vertex.view.xy[1] - along)
    for link in links:
        link.view.points = [(shift - x, y - along) for x, y in link.view.points]
    ends = [vertex.view.xy[0] + vertex.view.w / 2 for vertex in vertices]
    return float(max(ends + [point[0] for link in links for point in link.view.points]))


def _exchanged(
    vertices: Sequence[Any], links: dict[tuple[int, int], Any], sizes: Sequence[tuple[float, float]]
) -> Layout:
    centres = [(vertex.view.xy[1], vertex.view.xy[0]) for vertex in vertices]
    ways = {pair: [(y, x) for x, y in link.view.points[1:-1]] for pair, link in links.items()}
    right = max((x + size[0] / 2 for (x, _), size in zip(centres, sizes, strict=True)), default=0.0)
    lowest = [y + size[1] / 2 for (_, y), size in zip(centres, sizes, strict=True)]
    lowest += [y for way in ways.values() for _, y in way]
    return Layout(centres, ways, right, max(lowest, default=0.0))
