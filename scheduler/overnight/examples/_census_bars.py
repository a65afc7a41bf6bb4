"""Draws the totals per package as horizontal bars in SVG.

Horizontal measures are percentages of the picture, so bars follow the width of the window while letters keep
their size. A few packages may be many times as large as all others; their bars are then cut with a visible break,
and the lengths of the others stay comparable.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from overnight.examples._census_merge import PackageCount

_ROW_HEIGHT = 26
_BAR_HEIGHT = 16
_BAR_LEFT = 32.0
_BAR_WIDTH = 50.0
_MOST_CUT = 3
_CUT_ABOVE = 2.5
_CUT_LENGTH = 1.25
_LONGEST_LABEL = 15
_BREAK = f"M-5,{_BAR_HEIGHT + 2} L0,-2 H7 L2,{_BAR_HEIGHT + 2} Z"


def draw_bars(packages: Sequence[PackageCount]) -> str:
    """Return the picture, the package with most lines first; bars without a break share one linear scale."""
    order = sorted(packages, key=lambda package: (-package.totals.lines, package.package))
    full = longest_comparable([package.totals.lines for package in order])
    height = _ROW_HEIGHT * len(order)
    return "\n".join(
        (
            f'<svg class="bars" width="100%" height="{height}" role="img" aria-label="Lines of each package">',
            *(_row(package, full, number * _ROW_HEIGHT) for number, package in enumerate(order)),
            "</svg>",
        )
    )


def longest_comparable(lengths: Sequence[int]) -> int:
    """Return the length that fills the picture, given lengths in falling order: at most three are longer."""
    for number in reversed(range(min(_MOST_CUT, len(lengths) - 1))):
        if 0 < lengths[number + 1] * _CUT_ABOVE < lengths[number]:
            return int(lengths[number + 1] * _CUT_LENGTH)
    return max(lengths, default=0) or 1


def _row(package: PackageCount, full: int, top: int) -> str:
    totals = package.totals
    middle = top + _ROW_HEIGHT // 2
    bar_top = middle - _BAR_HEIGHT // 2
    whole = _BAR_WIDTH * min(totals.lines / full, 1)
    code = whole * totals.code_lines / max(totals.lines, 1)
    return (
        f"<g><title>{escape(package.package)}: {totals.lines:,} lines, {totals.code_lines:,} of them code</title>"
        f'<text class="label" x="{_BAR_LEFT - 1.5}%" y="{middle}">{escape(_label(package.package))}</text>'
        + _bar("code", _BAR_LEFT, bar_top, code)
        + _bar("other", _BAR_LEFT + code, bar_top, whole - code)
        + (_break_mark(bar_top) if totals.lines > full else "")
        + f'<text class="value" x="100%" y="{middle}">{totals.lines:,}</text></g>'
    )


def _bar(kind: str, left: float, top: int, width: float) -> str:
    return f'<rect class="{kind}" x="{left:.2f}%" y="{top}" width="{width:.2f}%" height="{_BAR_HEIGHT}"/>'


def _break_mark(bar_top: int) -> str:
    at = _BAR_LEFT + 0.7 * _BAR_WIDTH
    return f'<svg x="{at}%" y="{bar_top}" overflow="visible"><path class="break" d="{_BREAK}"/></svg>'


def _label(name: str) -> str:
    return name if len(name) <= _LONGEST_LABEL else f"{name[: _LONGEST_LABEL - 1]}…"
