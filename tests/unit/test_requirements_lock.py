"""What a deployment installs is pinned by hash (ADVERSITY 8, H9): `deploy/requirements.lock`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from itertools import product
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "deploy" / "requirements.lock"
ENVIRONMENTS = [
    {"python_version": minor, "python_full_version": f"{minor}.9", "sys_platform": system, "platform_machine": machine}
    for minor, (system, machine) in product(
        ("3.11", "3.12", "3.13"), (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"), ("linux", "riscv64"))
    )
]


def entries() -> Iterator[tuple[Requirement, list[str]]]:
    """Yield each pin with the words that follow it."""
    for logical in LOCK.read_text("utf-8").replace("\\\n", " ").splitlines():
        words = re.split(r"\s+(?=--)", logical.strip())
        if words != [""] and not words[0].startswith("#"):
            yield Requirement(words[0]), words[1:]


def wanted() -> list[Requirement]:
    """Return what overnight declares, with all its extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    [everything] = [Requirement(text) for text in extras["all"]]
    assert everything.name == project["name"]
    declared = [*project["dependencies"], *(text for extra in sorted(everything.extras) for text in extras[extra])]
    return [Requirement(text) for text in declared]


def applies(requirement: Requirement, environment: dict[str, str], extras: set[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({**environment, "extra": extra}) for extra in {"", *extras})


def test_each_pin_is_exact_and_has_hashes_and_names_no_place() -> None:
    """H9: what lies elsewhere under the same name and version is refused."""
    pins = list(entries())
    assert pins
    for requirement, words in pins:
        assert re.fullmatch(r"==[\w.]+", str(requirement.specifier)), requirement
        assert requirement.url is None, requirement
        assert words, requirement
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", word) for word in words), requirement
    assert not re.search(r"://|index|find-links|trusted-host|@", LOCK.read_text("utf-8"))


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda found: "-".join(found.values()))
def test_the_pins_satisfy_what_overnight_declares_and_what_that_needs_in_turn(environment: dict[str, str]) -> None:
    """H9. What the pinned release of a package needs is known where that release is installed."""
    pinned: dict[str, str] = {}
    for pin, _ in entries():
        if applies(pin, environment, set()):
            name = canonicalize_name(pin.name)
            assert name not in pinned, f"{name} is pinned twice"
            pinned[name] = next(iter(pin.specifier)).version
    todo = [(requirement, "overnight", frozenset[str]()) for requirement in wanted()]
    seen = set()
    while todo:
        requirement, source, extras = todo.pop()
        if not applies(requirement, environment, set(extras)):
            continue
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"{source} needs {name}, which deploy/requirements.lock lacks"
        assert requirement.specifier.contains(pinned[name], prereleases=True), f"{source} needs {requirement}"
        if (name, frozenset(requirement.extras)) in seen:
            continue
        seen.add((name, frozenset(requirement.extras)))
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            continue
        if installed.version == pinned[name]:
            below = [Requirement(text) for text in installed.requires or ()]
            todo += [(one, name, frozenset(requirement.extras)) for one in below]
    assert {"redis", "rq", "hiredis", "cloudpickle"} <= {name for name, _ in seen}
