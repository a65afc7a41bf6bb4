"""Writes the census: a table of files, a document of totals and ranks, and a page for people.

Each file is complete under a temporary name in the same directory before it takes its own name, so a reader,
and a run that is repeated after any crash, finds the former file or the new one. The content depends on the
counted files alone: no times, no host.
"""

from __future__ import annotations

import csv
import io
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from overnight.examples._census_count import DEFINITIONS, FileCount
from overnight.examples._census_merge import ImportRanking, PackageCount, add_up
from overnight.examples._census_page import render_page

CSV_NAME, JSON_NAME, HTML_NAME = OUTPUT_NAMES = ("census.csv", "census.json", "census.html")
CSV_COLUMNS = ("path", "package", "lines", "functions", "classes", "branches", "imports", "error")


def write_census(
    out: str, about: Mapping[str, str], packages: Sequence[PackageCount], ranking: ImportRanking
) -> dict[str, int]:
    """Write the three files into the directory `out`, made if missing; return the totals of the census.

    `about` says what was counted, for the document and the page: `title`, `python` and `root`.
    """
    directory = Path(out)
    directory.mkdir(parents=True, exist_ok=True)
    files = sorted(file for package in packages for file in package.files)
    document = _document(about, packages, ranking, files)
    _write_whole(directory / CSV_NAME, _table(files))
    _write_whole(directory / JSON_NAME, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    _write_whole(directory / HTML_NAME, render_page(about, packages, ranking))
    return dict(document["totals"])


def _table(files: Sequence[FileCount]) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(CSV_COLUMNS)
    rows.writerows([getattr(file, column) for column in CSV_COLUMNS] for file in files)
    return text.getvalue()


def _document(
    about: Mapping[str, str],
    packages: Sequence[PackageCount],
    ranking: ImportRanking,
    files: Sequence[FileCount],
) -> dict[str, Any]:
    return {
        "about": dict(about),
        "definitions": DEFINITIONS,
        "totals": add_up(package.totals for package in packages)._asdict(),
        "packages": {package.package: package.totals._asdict() for package in packages},
        "import_graph": {
            "modules": ranking.modules,
            "edges": ranking.edges,
            "largest_cycle": ranking.largest_cycle,
        },
        "ranks": [rank._asdict() for rank in ranking.ranks],
        "failures": [{"path": file.path, "error": file.error} for file in files if file.error],
    }


def _write_whole(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("x", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
