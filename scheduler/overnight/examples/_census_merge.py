"""Brings the counts of files together: the totals of a package, and the graph of who imports whom."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from overnight.examples._census_count import FileCount, module_name

RANKED_MODULES = 50

_TEST_PACKAGES = frozenset(("test", "tests", "idle_test"))


class Totals(NamedTuple):
    """Sums over files; `failed` is the number of files that did not parse."""

    files: int = 0
    failed: int = 0
    lines: int = 0
    code_lines: int = 0
    functions: int = 0
    classes: int = 0
    branches: int = 0
    imports: int = 0


class PackageCount(NamedTuple):
    """A top-level package: its totals and its files, sorted by path."""

    package: str
    totals: Totals
    files: tuple[FileCount, ...]


class ModuleRank(NamedTuple):
    """How much of the library stands on one module.

    `importers` counts the modules outside test packages that import it directly, `test_importers` those inside;
    `nearness`, from 0 to 1, is its harmonic centrality among the former as a share of the possible: 1 if each of
    them imports it directly, less the longer the chains of imports that lead to it.
    """

    module: str
    importers: int
    test_importers: int
    nearness: float


class ImportRanking(NamedTuple):
    """The import graph in figures: its nodes, its edges, its largest import cycle, its strongest modules."""

    modules: int
    edges: int
    largest_cycle: int
    ranks: tuple[ModuleRank, ...]


def merge_package(package: str, counts: Iterable[FileCount]) -> PackageCount:
    """Return the files of a package with their totals."""
    files = tuple(sorted(counts))
    return PackageCount(package, add_up(_totals_of(file) for file in files), files)


def add_up(parts: Iterable[Totals]) -> Totals:
    """Return the field-wise sum."""
    return Totals(*map(sum, zip(Totals(), *parts, strict=True)))


def rank_imports(packages: Sequence[PackageCount], most: int = RANKED_MODULES) -> ImportRanking:
    """Rank the modules by the number of modules that import them; the first `most` are reported.

    Test packages import everything that they test, so they have a column of their own and no say in the order.
    """
    import networkx as nx  # only this task needs it, and building the graph must stay quick

    everyone: nx.DiGraph[str] = nx.DiGraph()
    everyone.add_nodes_from(module_name(file.path) for package in packages for file in package.files)
    everyone.add_edges_from(list(_import_edges(packages, frozenset(everyone))))
    library = everyone.subgraph([module for module in everyone if not _is_test(module)])
    strongest = sorted(library, key=lambda module: (-library.in_degree(module), module))[:most]
    nearness = nx.harmonic_centrality(library, nbunch=strongest)
    return ImportRanking(
        everyone.number_of_nodes(),
        everyone.number_of_edges(),
        max((len(cycle) for cycle in nx.strongly_connected_components(library)), default=0),
        tuple(
            ModuleRank(
                module,
                library.in_degree(module),
                everyone.in_degree(module) - library.in_degree(module),
                round(nearness[module] / max(len(library) - 1, 1), 4),
            )
            for module in strongest
        ),
    )


def _import_edges(packages: Iterable[PackageCount], known: frozenset[str]) -> Iterator[tuple[str, str]]:
    for package in packages:
        for file in package.files:
            importer = module_name(file.path)
            for name in file.imported:
                imported = _longest_known(name, known)
                if imported and imported != importer:
                    yield importer, imported


def _longest_known(name: str, known: frozenset[str]) -> str:
    """Return the module that a dotted name leads to: ``os.path.join`` leads to ``os``, the one with a file."""
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name


def _is_test(module: str) -> bool:
    return not _TEST_PACKAGES.isdisjoint(module.split("."))


def _totals_of(file: FileCount) -> Totals:
    return Totals(
        1,
        1 if file.error else 0,
        file.lines,
        file.code_lines,
        file.functions,
        file.classes,
        file.branches,
        file.imports,
    )
