"""Writing text of any origin to a stream whose encoding may lack some of its letters.

Ids and messages hold whatever users put there, even halves of letters from file names that are not text. A terminal
or file in a narrow encoding must not turn them into a failure of the tool.
"""

from __future__ import annotations

from typing import TextIO


def write_text(stream: TextIO, text: str) -> None:
    """Write text; what the stream's encoding lacks is written as a backslash escape."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
