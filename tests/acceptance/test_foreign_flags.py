"""Flags that another user's workers write: a group may share them; what cannot be read ends a run, and is told."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from overnight.local_fleet import ensure_fleet
from tests.support import foreign_client
from tests.support.ledgers import read_ledger

OTHER_USER = 65534
SECONDS = 90.0
#: Root may read everything only by these two capabilities: without them it is a user like others.
AS_A_USER_LIKE_OTHERS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a directory to another user")


def run_client(place: Path, mode: int) -> list[str]:
    """Let workers write into the directory of another user what this one is to read; return what the client got."""
    status_dir = place / "status"
    status_dir.mkdir()
    os.chown(status_dir, OTHER_USER, os.getegid())
    status_dir.chmod(mode)
    lease = ensure_fleet(place / "state", workers=1)
    try:
        places = (str(place / "state"), str(status_dir), str(place / "ledger"))
        client = subprocess.run(
            [*AS_A_USER_LIKE_OTHERS, sys.executable, "-m", foreign_client.__name__, *places],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    finally:
        lease.close(stop=True)
    assert client.returncode == 0, client.stderr
    starts = [task_id for event, task_id in read_ledger(place / "ledger") if event == "start"]
    assert len(starts) == len(set(starts)) == foreign_client.TASKS, "finished work ran again"
    return client.stdout.splitlines()


def test_a_group_shares_a_status_directory(tmp_path: Path) -> None:
    """ADVERSITY 8: 0640 where a group shares the directory on purpose."""
    told = run_client(tmp_path, 0o2770)
    assert sorted(told) == [f"entry {number}: {foreign_client.BYTES}" for number in range(foreign_client.TASKS)]
    modes = {stat.S_IMODE(flag.stat().st_mode) for flag in (tmp_path / "status").glob("*.flag")}
    assert modes == {0o640}


def test_a_result_that_the_client_may_not_read_fails_once_and_says_what_to_do(tmp_path: Path) -> None:
    """It is not lost: computing it again would end in the same place, without end."""
    told = run_client(tmp_path, 0o1777)
    assert len(told) == foreign_client.TASKS
    for line in told:
        assert "ResultNotPicklable" in line
        assert "Permission denied" in line
        assert "share the status directory with a group" in line
