"""The census of Python files: what is counted, how it is merged, ranked and written."""

from __future__ import annotations

import csv
import json
import re
import sysconfig
from pathlib import Path
from typing import Any

import networkx as nx
import pytest

from overnight.errors import UsageError
from overnight.examples._census_bars import longest_comparable
from overnight.examples._census_count import FileCount, count_file, module_name
from overnight.examples._census_merge import ImportRanking, merge_package, rank_imports
from overnight.examples._census_page import render_page
from overnight.examples._census_report import CSV_COLUMNS, write_census
from overnight.examples.stdlib_census import build
from overnight.graph import Task, TaskGraph
from tests.support.drain import drain
from tests.support.plain_census import plain_census

LIBRARY = Path(sysconfig.get_paths()["stdlib"])

ODD_SOURCES = {
    "top.py": b"import pkg.inner\nfrom pkg import inner, missing\nx = 1 if pkg else 2\n",
    "pkg/__init__.py": b'"""Two\n\nlines."""\n# alone\nfrom . import inner\nfrom .inner import deep as d\n',
    "pkg/inner.py": b"import os, top\nfrom ..beyond import x\ndef deep():\n    async def f(): pass\n",
    "pkg/crlf.py": b"class A:\r\n    def m(self):\r\n\r\n        for i in (): pass\r\n",
    "pkg/old_mac.py": b"x = 1\ry = 2\r",
    "pkg/bom.py": b"\xef\xbb\xbf# only a comment\n\nwhile 0: pass",
    "pkg/latin.py": b"# -*- coding: latin-1 -*-\ns = '\xe9'\n",
    "pkg/match.py": b"match 1:\n    case 1: pass\n    case _:\n        try: pass\n        except ValueError: pass\n",
    "pkg/empty.py": b"",
    "pkg/tests/test_it.py": b"from pkg import inner\nf = f'''a\n\n{1}\n'''\n",
    "bad/syntax.py": b"def (:\n\n",
    "bad/nul.py": b"a = 1\n\0\n",
    "bad/coding.py": b"# coding: no-such-code\n",
    "bad/bytes.py": b"x = '\xff'\n",
    "bad/indent.py": b"if 1:\n        a\n    b\n",
    "site-packages/foreign.py": b"x = 1\n",
    "pkg/__pycache__/made.py": b"x = 1\n",
    "pkg/data.txt": b"not python\n",
}


@pytest.fixture
def odd_root(tmp_path: Path) -> Path:
    root = tmp_path / "sources"
    for name, source in ODD_SOURCES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source)
    return root


def census(root: Path, out: Path) -> dict[str, Any]:
    drain(build(root=str(root), out=str(out)))
    document: dict[str, Any] = json.loads((out / "census.json").read_text("utf-8"))
    return document


@pytest.mark.parametrize("package", ["email", "json", "unittest"])
def test_totals_of_a_real_package_equal_those_of_a_plain_loop(package: str, tmp_path: Path) -> None:
    found = census(LIBRARY / package, tmp_path)
    assert found["totals"] == plain_census(str(LIBRARY / package))
    assert found["totals"]["functions"] > 0


def test_totals_of_odd_files_equal_those_of_a_plain_loop(odd_root: Path, tmp_path: Path) -> None:
    found = census(odd_root, tmp_path / "out")
    assert found["totals"] == plain_census(str(odd_root))
    assert found["totals"]["files"] == 15
    assert found["totals"]["failed"] == 5


def test_the_totals_are_the_sums_of_the_packages_and_of_the_table(odd_root: Path, tmp_path: Path) -> None:
    found = census(odd_root, tmp_path)
    with (tmp_path / "census.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == CSV_COLUMNS
    assert [row["path"] for row in rows] == sorted(row["path"] for row in rows)
    for field in ("lines", "functions", "classes", "branches", "imports"):
        assert sum(int(row[field]) for row in rows) == found["totals"][field]
        assert sum(totals[field] for totals in found["packages"].values()) == found["totals"][field]
    assert {row["package"] for row in rows} == set(found["packages"]) == {"(modules)", "bad", "pkg"}


def test_files_that_do_not_parse_are_reported_with_their_error(odd_root: Path, tmp_path: Path) -> None:
    found = census(odd_root, tmp_path)
    errors = {failure["path"]: failure["error"] for failure in found["failures"]}
    assert sorted(errors) == ["bad/bytes.py", "bad/coding.py", "bad/indent.py", "bad/nul.py", "bad/syntax.py"]
    assert all(re.match(r"[A-Z][A-Za-z]+Error: .", error) and "\n" not in error for error in errors.values())
    assert found["packages"]["bad"]["lines"] == 2 + 2 + 1 + 1 + 3


def test_a_file_that_cannot_be_read_is_reported(tmp_path: Path) -> None:
    count = count_file(str(tmp_path / "gone.py"), "gone.py", "(modules)")
    assert count == FileCount("gone.py", "(modules)", error="FileNotFoundError: No such file or directory")


def test_an_expression_too_deep_for_the_compiler_is_reported(tmp_path: Path) -> None:
    deep = tmp_path / "deep.py"
    deep.write_text("x = " + "(" * 5_000 + ")" * 5_000 + "\n")
    assert count_file(str(deep), "deep.py", "(modules)").error


def test_imports_are_named_absolutely(odd_root: Path) -> None:
    def imported(path: str) -> tuple[str, ...]:
        return count_file(str(odd_root / path), path, "pkg").imported

    assert imported("pkg/__init__.py") == ("pkg.inner", "pkg.inner.deep")
    assert imported("pkg/inner.py") == ("beyond.x", "os", "top")
    assert imported("top.py") == ("pkg.inner", "pkg.missing")


@pytest.mark.parametrize(
    ("path", "name"),
    [("json/__init__.py", "json"), ("json/decoder.py", "json.decoder"), ("os.py", "os"), ("__init__.py", "__init__")],
)
def test_a_module_is_named_as_it_is_imported(path: str, name: str) -> None:
    assert module_name(path) == name


def test_modules_are_ranked_by_importers_outside_tests(odd_root: Path, tmp_path: Path) -> None:
    found = census(odd_root, tmp_path)
    first, second, *_ = found["ranks"]
    assert (first["module"], first["importers"], first["test_importers"]) == ("pkg.inner", 2, 1)
    assert (second["module"], second["importers"]) == ("pkg", 1)
    assert found["import_graph"]["largest_cycle"] == 3
    assert "pkg.tests.test_it" not in {rank["module"] for rank in found["ranks"]}


def test_nearness_is_one_for_a_module_that_all_others_import() -> None:
    files = [FileCount("core.py", "(modules)")]
    files += [FileCount(f"m{number}.py", "(modules)", imported=("core.thing",)) for number in range(4)]
    ranking = rank_imports([merge_package("(modules)", files)], most=2)
    assert ranking.ranks[0] == ("core", 4, 0, 1.0)
    assert ranking.ranks[1].nearness == 0
    assert (ranking.modules, ranking.edges, ranking.largest_cycle) == (5, 4, 1)


def test_each_count_declares_its_file_and_the_report_its_three_files(odd_root: Path, tmp_path: Path) -> None:
    graph = build(root=str(odd_root), out=str(tmp_path / "out"))
    descs = {task.task_id: graph.get_task_desc(task) for task in graph.tasks}
    assert descs[f"count {odd_root}/pkg/inner.py"].input_files == [str(odd_root / "pkg" / "inner.py")]
    assert descs["write census"].output_files == [
        str(tmp_path / "out" / name) for name in ("census.csv", "census.json", "census.html")
    ]
    assert [task_id for task_id, desc in descs.items() if desc.output_files] == ["write census"]


def test_a_file_leads_to_its_package_the_ranking_and_the_report_only(odd_root: Path, tmp_path: Path) -> None:
    graph = build(root=str(odd_root), out=str(tmp_path))
    below = nx.descendants(graph.as_directed_graph(), Task(f"count {odd_root}/pkg/inner.py"))
    assert {task.task_id for task in below} == {"merge pkg", "rank imports", "write census"}


def test_tasks_of_the_library_are_named_by_relative_paths(tmp_path: Path) -> None:
    graph = build(out=str(tmp_path))
    for task_id in ("count json/decoder.py", "count os.py", "merge json", "merge (modules)", "rank imports"):
        assert graph.has_task(Task(task_id))
    assert not any("site-packages" in task.task_id for task in graph.tasks)


def test_tasks_of_two_roots_share_no_count(odd_root: Path, tmp_path: Path) -> None:
    def counts(graph: TaskGraph) -> set[str]:
        return {task.task_id for task in graph.tasks if task.task_id.startswith("count ")}

    other = tmp_path / "other"
    other.mkdir()
    (other / "top.py").write_text("")
    assert counts(build(root=str(odd_root))).isdisjoint(counts(build(root=str(other))))


def test_a_limit_takes_files_evenly_from_all(tmp_path: Path) -> None:
    parameters: dict[str, Any] = {"limit": "40", "slow": "0", "out": str(tmp_path), "root": ""}
    tasks = [task.task_id for task in build(**parameters).tasks]
    assert sum(task_id.startswith("count ") for task_id in tasks) == 40
    assert sum(task_id.startswith("merge ") for task_id in tasks) > 3


@pytest.mark.parametrize("wrong", [{"limit": -1}, {"limit": "many"}, {"slow": float("nan")}, {"slow": "inf"}])
def test_a_parameter_out_of_range_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=rf"{next(iter(wrong))} must be a number of at least 0"):
        build(**wrong)


def test_a_root_that_is_missing_or_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be listed: No such file"):
        build(root=str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match=r"no \.py file under"):
        build(root=str(tmp_path))


def test_the_same_files_give_the_same_reports_and_nothing_else(odd_root: Path, tmp_path: Path) -> None:
    def written(out: Path) -> dict[str, bytes]:
        census(odd_root, out)
        return {path.name: path.read_bytes() for path in out.iterdir()}

    first = written(tmp_path / "first")
    assert sorted(first) == ["census.csv", "census.html", "census.json"]
    assert written(tmp_path / "second") == first
    assert written(tmp_path / "first") == first


def test_a_report_that_cannot_be_written_raises_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "census.html").mkdir()
    ranking = ImportRanking(0, 0, 0, ())
    with pytest.raises(OSError, match="census"):
        write_census(str(tmp_path), {"title": "t", "python": "p", "root": "r"}, [], ranking)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["census.csv", "census.html", "census.json"]


def test_the_page_escapes_names_and_loads_nothing_from_elsewhere() -> None:
    """M2: what comes from file names and sources is data."""
    hostile = "<script>alert(1)</script>"
    package = merge_package(hostile, [FileCount(f"{hostile}/a.py", hostile, 3, error=hostile)])
    page = render_page({"title": hostile, "python": "p", "root": hostile}, [package], ImportRanking(1, 0, 1, ()))
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 5
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:|//)|url\(|@import", page)
    assert "<svg" in page


def test_the_picture_cuts_only_bars_that_would_hide_the_others() -> None:
    assert longest_comparable([464, 132, 34, 32]) == 42
    assert longest_comparable([100, 60, 10, 9]) == 12
    assert longest_comparable([100, 60, 30, 20]) == 100
    assert longest_comparable([7]) == 7
    assert longest_comparable([]) == 1
    assert longest_comparable([0, 0]) == 1


def test_an_odd_file_name_is_reported_escaped(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "a\nb\x1b.py").write_text("x = 1\n")
    found = census(root, tmp_path / "out")
    assert found["totals"]["files"] == 1
    assert "a\\x0ab\\x1b.py" in (tmp_path / "out" / "census.csv").read_text("utf-8")
