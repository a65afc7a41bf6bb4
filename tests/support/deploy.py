"""What tests of `deploy/` share: the documents of its YAML files, the commands of its README, its units."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.support.command import ROOT

DEPLOY = ROOT / "deploy"
_BLOCK = re.compile(r"^<!-- (?:(\w+): )?(\w+) -->\n```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def documents(path: Path) -> list[Any]:
    """The documents of a YAML file."""
    return [one for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one is not None]


def manifests() -> list[Any]:
    """All documents of the Kubernetes manifests but the kustomization."""
    paths = [path for path in sorted((DEPLOY / "kubernetes").glob("*.yaml")) if path.stem != "kustomization"]
    return [one for path in paths for one in documents(path)]


def readme_steps() -> Iterator[tuple[str, str, str]]:
    """The marked commands of the README in order: machine (empty: that of the step before), name, text."""
    for block in _BLOCK.finditer((DEPLOY / "README.md").read_text(encoding="utf-8")):
        yield block[1] or "", block[2], block[3]


def unit_lines(name: str, key: str) -> list[str]:
    """The values of a key in a systemd unit, in order."""
    lines = (DEPLOY / "systemd" / name).read_text(encoding="utf-8").splitlines()
    return [line.partition("=")[2] for line in lines if line.startswith(f"{key}=")]
