"""Parameters from the command line become the arguments that a target's annotations ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

import pytest

from overnight.commands.target_parameters import converted, split_parameters
from overnight.errors import UsageError


def target(  # type: ignore[no-untyped-def]  # users leave annotations out
    *,
    count: int = 3,
    share: float = 0.5,
    deep: bool = False,
    root: Path = Path(),
    name: str = "x",
    limit: int | None = None,
    old_style: Optional[float] = None,  # noqa: UP045  # users still write it
    either: int | str = 0,
    free=None,
    by_default=2.5,
    several: list[int] | None = None,
) -> None:
    """Takes one of each."""


def needs(*, out: str, year: int) -> None:
    """Has no defaults."""


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("count", "12", 12),
        ("count", "-1", -1),
        ("share", "1e-3", 0.001),
        ("deep", "yes", True),
        ("deep", "True", True),
        ("deep", "0", False),
        ("root", "a/b", Path("a/b")),
        ("name", "a=b", "a=b"),
        ("name", "", ""),
        ("limit", "4", 4),
        ("old_style", "4", 4.0),
        ("either", "7", 7),
        ("either", "seven", "seven"),
        ("free", "7", "7"),
        ("by_default", "7", 7.0),
    ],
)
def test_a_text_becomes_what_the_annotation_or_the_default_says(name: str, text: str, value: Any) -> None:
    found = converted(target, split_parameters([f"{name}={text}"]), "m:target")[name]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("function", "given", "sentence"),
    [
        (target, ["count=many"], "Parameter count must be a whole number, not 'many'."),
        (target, ["share=much"], "Parameter share must be a number, not 'much'."),
        (target, ["deep=perhaps"], "Parameter deep must be true or false, not 'perhaps'."),
        (target, ["several=1"], "Parameter several is annotated .*, which a command line cannot give"),
        (
            target,
            ["conut=1"],
            "m:f has no parameter 'conut'; did you mean 'count'\\? It takes count \\(int, default 3\\)",
        ),
        (target, ["count"], "A parameter is name=value, not 'count'."),
        (target, ["=1"], "A parameter is name=value, not '=1'."),
        (target, ["count=1", "count=2"], "Parameter count is given twice."),
        (needs, ["out=here"], "m:f needs -p year=.... It takes out \\(text\\), year \\(int\\)."),
        (lambda: None, ["x=1"], "m:f has no parameter 'x'. It takes none."),
        (target, ["a\x1b[0m=1"], r"no parameter 'a.*x1b\[0m'"),
    ],
)
def test_what_does_not_fit_is_one_sentence_that_says_what_would(function: Any, given: list[str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        converted(function, split_parameters(given), "m:f")


def test_a_callable_that_takes_any_name_gets_texts() -> None:
    def anything(**names: str) -> None:
        """Takes all."""

    assert converted(anything, {"colour": "7"}, "m:f") == {"colour": "7"}


def test_a_dash_in_a_name_stands_for_an_underscore() -> None:
    assert split_parameters(["old-style=1"]) == {"old_style": "1"}
