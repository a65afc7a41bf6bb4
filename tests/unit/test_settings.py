"""The settings of a process: whatever the environment holds of them is read, and refused, when it begins."""

from __future__ import annotations

import pytest

from overnight.config import Endpoint, parsed_limits, read_settings
from overnight.errors import UsageError


@pytest.mark.parametrize("variable", ["OVERNIGHT_IDLE_SECONDS", "OVERNIGHT_GONE_SECONDS"])
@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf"])
def test_how_long_a_fleet_stays_is_refused_like_every_other_setting(variable: str, text: str) -> None:
    with pytest.raises(UsageError) as refused:
        read_settings({variable: text, "OVERNIGHT_LEASE_SECONDS": "x"})
    assert f"{variable}: expected a number of seconds, 0 or more, found {text!r}" in str(refused.value)
    assert "OVERNIGHT_LEASE_SECONDS: expected a number" in str(refused.value)


def test_a_fleet_may_be_told_to_end_at_once() -> None:
    settings = read_settings({"OVERNIGHT_IDLE_SECONDS": "0", "OVERNIGHT_GONE_SECONDS": "3.6"})
    assert (settings.idle_seconds, settings.gone_seconds) == (0.0, 3.6)


@pytest.mark.parametrize("text", ["", "x", "-1", "65536", "1" * 5000, "\u0663"])
def test_what_is_no_port_is_refused_by_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match="expected a port, as 9464, or host and port"):
        Endpoint.parse(text)


def test_two_limits_of_one_resource_contradict_each_other() -> None:
    with pytest.raises(ValueError, match="expected one amount for each name, not two for 'db'"):
        parsed_limits(["db=1", "db=2"])


def test_a_heartbeat_that_leaves_no_time_for_tasks_is_refused() -> None:
    with pytest.raises(UsageError, match=r"A heartbeat every 1e-09 s leaves a worker no time .* 0\.01 or more"):
        read_settings({"OVERNIGHT_HEARTBEAT_SECONDS": "1e-9"})
