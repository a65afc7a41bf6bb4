"""Processes that tests share, because starting them takes longer than most runs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from overnight.local_fleet import ensure_fleet
from tests.support.command import Desk, desk
from tests.support.sites import COMPRESSED, Site, open_site


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """A running site with compressed times."""
    before = {name: os.environ.get(name) for name in COMPRESSED}
    os.environ.update(COMPRESSED)
    try:
        with tempfile.TemporaryDirectory(prefix="ov-", ignore_cleanup_errors=True) as directory:
            os.environ["TEST_SITE"] = directory
            with open_site(Path(directory)) as site:
                yield site
    finally:
        del os.environ["TEST_SITE"]
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@pytest.fixture(scope="package")
def place(short_directory: Path) -> Iterator[Desk]:
    """A desk whose local processes stay from command to command, because this process uses them too."""
    with desk(short_directory / "bad") as given:
        lease = ensure_fleet(given.state_dir, workers=2)
        yield given
        lease.close(stop=False)
