"""`python -m overnight.commands`: the command, where its script is not on PATH."""

from __future__ import annotations

import sys

from overnight.commands import main

if __name__ == "__main__":
    sys.exit(main())
