"""The command `overnight`: one file per verb, over the same interface that programs use (`client`, `deployment`).

A verb's module imports click and nothing heavy; what it needs is imported when it runs, so that help is quick.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with the given arguments, those of the process if None; return the exit status."""
    try:
        from overnight.commands.app import run

        return run(arguments)
    except KeyboardInterrupt:  # while modules were being imported, or at the very end
        return 128 + signal.SIGINT
