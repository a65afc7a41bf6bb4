"""How a supervisor tells the parent that started it that it has taken a batch: one byte on an inherited pipe.

The descriptor is named by a variable, which goes before anything else is started: no other process finds it.
"""

from __future__ import annotations

import os
from contextlib import suppress

WORD_VARIABLE = "OVERNIGHT_WORD_FD"
_pipes: list[int] = []


def take_word() -> None:
    """Take the pipe that the parent has handed over, if there is one."""
    number = os.environ.pop(WORD_VARIABLE, "")
    if number.isdecimal():
        os.set_inheritable(int(number), False)  # noqa: FBT003 - the function takes no keyword
        _pipes.append(int(number))


def say_it_works() -> None:
    """Tell the parent, once."""
    while _pipes:
        with suppress(BrokenPipeError):
            os.write(_pipes[-1], b"w")
        os.close(_pipes.pop())
