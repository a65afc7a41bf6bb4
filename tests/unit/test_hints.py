"""Commands that messages tell people to type are whole: typed as they are, they do what was meant."""

from __future__ import annotations

import shlex

import pytest

from overnight.commands.logs import command
from overnight.config import Settings
from overnight.hints import hint


@pytest.mark.parametrize("task_id", ["a", "a b", "-f", "--json", "-x=1"])
def test_a_task_is_never_taken_for_an_option_of_the_verb(task_id: str) -> None:
    settings = Settings().with_values(state_dir="some where")
    _, _, *words = shlex.split(hint(settings, "logs", "R", task_id=task_id))
    given = command.make_context("logs", words).params
    assert (given["run"], given["task"], given["state_dir"]) == ("R", task_id, "some where")
    assert not given["follow"]
