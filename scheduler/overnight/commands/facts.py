"""What ``--json`` prints: one line, an object that names its shape and the version of it.

The shapes are JSON schemas in `schemas/`, one file each; `scheduler/JSON.md` shows them and which verb prints which.
Within a version members are only added; one that goes or means something else makes a new version.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from overnight.commands.screen import say

VERSION = 1


def tell(shape: str, facts: Mapping[str, Any]) -> None:
    """Print facts of a shape, whose schema is `schemas/<shape>.json`."""
    say(json.dumps({"schema": f"overnight.{shape}/{VERSION}", **facts}))
