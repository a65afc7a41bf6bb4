"""What `overnight logs` says of a task without a log."""

from __future__ import annotations

import pytest

from overnight.commands.logs import _tell_of_no_log
from overnight.commands.task_logs import LogFile
from overnight.core.states import TaskState
from overnight.errors import Refused
from overnight.store.codec import NO_CHARGE
from overnight.store.records import TaskView
from tests.support.stores import run_record


def test_a_worker_that_could_write_no_log_is_named() -> None:
    """To say that the task wrote nothing would be wrong."""
    facts = b'{"host":"node","unlogged":true}'
    view = TaskView(0, TaskState.DONE, 1, NO_CHARGE, None, facts, None)
    with pytest.raises(Refused, match=r"by the worker on node, which may not write to /logs: .* chmod 2770"):
        _tell_of_no_log(run_record(log_dir="/logs"), view, "t0", LogFile("/logs/t0.log"), look="")
