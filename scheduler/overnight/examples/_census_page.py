"""Renders the census as one HTML page that needs nothing else: style, picture and tables are inside it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from overnight.examples._census_bars import draw_bars
from overnight.examples._census_count import DEFINITIONS
from overnight.examples._census_merge import ImportRanking, PackageCount, Totals, add_up

LARGEST_FILES = 20
RANKS_SHOWN = 25

_STYLE_FILE = Path(__file__).with_name("census.css")
_COUNTED = ("lines", "code_lines", "functions", "classes", "branches", "imports")
_HEADINGS = ("Lines", "Code", "Functions", "Classes", "Branches", "Imports")

_SEPARATORS = re.compile(r"([/_-]|\.(?!py$))")

Cell = str | int | float


def render_page(about: Mapping[str, str], packages: Sequence[PackageCount], ranking: ImportRanking) -> str:
    """Return the page as HTML text."""
    totals = add_up(package.totals for package in packages)
    sections = (
        _header(about),
        _figures(totals, ranking),
        _section("Lines per package", _picture(packages)),
        _section("Packages", _package_table(packages, totals)),
        _section("Strongest modules", _rank_table(ranking)),
        _section("Largest files", _largest_table(packages)),
        _section("Files that do not parse", _failure_table(packages)),
        _section("What is counted", _definitions()),
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>Census of {escape(about['title'])}</title>\n"
        f"<style>\n{_STYLE_FILE.read_text(encoding='utf-8')}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(sections)
        + "\n</main>\n</body>\n</html>\n"
    )


def _header(about: Mapping[str, str]) -> str:
    return (
        f"<header><h1>Census of {escape(about['title'])}</h1>"
        f"<p>Every <code>.py</code> file under <code>{escape(about['root'])}</code>. A row for each file is in "
        '<a href="census.csv">census.csv</a>, totals and ranks are in <a href="census.json">census.json</a>.</p>'
        "</header>"
    )


def _figures(totals: Totals, ranking: ImportRanking) -> str:
    figures = (
        ("Files", totals.files),
        ("Lines", totals.lines),
        ("Lines of code", totals.code_lines),
        ("Functions", totals.functions),
        ("Classes", totals.classes),
        ("Import edges", ranking.edges),
        ("Largest import cycle", ranking.largest_cycle),
        ("Do not parse", totals.failed),
    )
    cells = "".join(f"<div><dt>{name}</dt><dd>{value:,}</dd></div>" for name, value in figures)
    return f'<dl class="figures">{cells}</dl>'


def _picture(packages: Sequence[PackageCount]) -> str:
    return (
        '<p class="legend"><span><i class="code"></i>code</span>'
        '<span><i class="other"></i>comments and blank lines</span>'
        "<span>a bar with a gap is longer than drawn</span></p>" + draw_bars(packages)
    )


def _package_table(packages: Sequence[PackageCount], totals: Totals) -> str:
    rows = [_totals_row(package.package, package.totals) for package in packages]
    return _table(("Package", "Files", *_HEADINGS), rows, foot=_totals_row("All", totals))


def _totals_row(name: str, totals: Totals) -> tuple[Cell, ...]:
    return (name, totals.files, *(getattr(totals, field) for field in _COUNTED))


def _rank_table(ranking: ImportRanking) -> str:
    note = (
        "<p>By the number of modules that import them, test packages aside. Nearness is 1 for a module that every "
        "other one imports directly, and falls with the length of the chains of imports that lead to it.</p>"
    )
    rows = [(rank.module, rank.importers, rank.test_importers, rank.nearness) for rank in ranking.ranks]
    return note + _table(("Module", "Importers", "In tests", "Nearness"), rows[:RANKS_SHOWN])


def _largest_table(packages: Sequence[PackageCount]) -> str:
    files = [file for package in packages for file in package.files]
    files.sort(key=lambda file: (-file.lines, file.path))
    rows = [(file.path, *(getattr(file, field) for field in _COUNTED)) for file in files[:LARGEST_FILES]]
    return _table(("File", *_HEADINGS), rows)


def _failure_table(packages: Sequence[PackageCount]) -> str:
    rows = [(file.path, file.error) for package in packages for file in package.files if file.error]
    return _table(("File", "Error"), rows, kind="listing") if rows else "<p>Every file parses.</p>"


def _definitions() -> str:
    names = zip(_HEADINGS, _COUNTED, strict=True)
    items = "".join(f"<div><dt>{name}</dt><dd>{escape(DEFINITIONS[field])}</dd></div>" for name, field in names)
    return f'<dl class="definitions">{items}</dl>'


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{title}</h2>\n{content}\n</section>"


def _table(
    headings: Sequence[str], rows: Iterable[Sequence[Cell]], *, foot: Sequence[Cell] = (), kind: str = "counts"
) -> str:
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    body = "\n".join(_table_row(row) for row in rows)
    end = f"<tfoot>{_table_row(foot)}</tfoot>" if foot else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(headings[0])} table">'
        f'<table class="{kind}"><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>{end}</table></div>'
    )


def _table_row(cells: Sequence[Cell]) -> str:
    name, *others = cells
    return f'<tr><th scope="row">{_breakable(str(name))}</th>{"".join(map(_cell, others))}</tr>'


def _breakable(name: str) -> str:
    """Return a path or dotted name as HTML that a narrow page breaks at its separators."""
    return "".join(
        f"{escape(part)}<wbr>" if _SEPARATORS.fullmatch(part) else escape(part) for part in _SEPARATORS.split(name)
    )


def _cell(value: Cell) -> str:
    if isinstance(value, str):
        return f'<td class="text">{escape(value)}</td>'
    return f"<td>{value:,}</td>" if isinstance(value, int) else f"<td>{value:.2f}</td>"
