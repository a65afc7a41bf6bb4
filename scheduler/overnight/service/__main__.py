"""`python -m overnight.service`: a scheduler with the settings of the environment."""

from __future__ import annotations

import sys

from overnight.config import read_settings
from overnight.errors import UsageError
from overnight.service.main import main

if __name__ == "__main__":
    try:
        settings = read_settings()
    except UsageError as error:
        sys.exit(f"overnight scheduler: {error}")
    sys.exit(main(settings))
