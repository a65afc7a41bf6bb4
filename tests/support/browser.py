"""A real browser without a window, and what its screenshots show."""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

INSTALL = "Reports are looked at in a real browser: install it with `apt-get install chromium`."
SECONDS = 60.0
_NAMES = ("chromium", "chromium-browser", "google-chrome")
Colour = tuple[int, int, int]


def browser() -> str:
    """Return the program; skip the test, with what to install, where there is none."""
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(INSTALL)
    return found


def browse(*words: str) -> str:
    """Run the browser once and return what it prints."""
    with tempfile.TemporaryDirectory(prefix="ov-browser-") as profile:
        fixed = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}"]
        done = subprocess.run([browser(), *fixed, *words], capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def dom_of(page: Path) -> str:
    """Return a page as the browser has understood it."""
    return browse("--dump-dom", page.as_uri())


@dataclass(frozen=True)
class Picture:
    """What was on the screen."""

    width: int
    rows: Sequence[Sequence[Colour]]

    def count(self, colour: Colour) -> int:
        """How many pixels have exactly this colour."""
        return sum(row.count(colour) for row in self.rows)

    def column(self, at: int) -> set[Colour]:
        """The colours of a column."""
        return {row[at] for row in self.rows}


def screenshot(page: Path, width: int, height: int, *words: str) -> Picture:
    """Return what a page looks like; a window narrower than browsers allow is a frame in a wider one."""
    with tempfile.TemporaryDirectory(prefix="ov-shot-") as place:
        file, frame = Path(place) / "shot.png", Path(place) / "frame.html"
        style = f"width:{width}px;height:{height}px;border:0;display:block"
        frame.write_text(f'<body style="margin:0"><iframe src="{page.as_uri()}" style="{style}"></iframe>')
        browse(*words, f"--window-size={max(width, 600)},{height}", f"--screenshot={file}", frame.as_uri())
        whole = decoded(file.read_bytes())
    return Picture(width, [row[:width] for row in whole.rows])


def decoded(png: bytes) -> Picture:
    """Return the pixels of a PNG of 8 bits a channel, as browsers write it."""
    position, data, width, channels = 8, b"", 0, 0
    while position < len(png):
        length, kind = struct.unpack_from(">I4s", png, position)
        chunk = png[position + 8 : position + 8 + length]
        if kind == b"IHDR":
            width, _, depth, colours = struct.unpack_from(">IIBB", chunk)
            assert depth == 8
            channels = {2: 3, 6: 4}[colours]
        elif kind == b"IDAT":
            data += chunk
        position += 12 + length
    return Picture(width, _rows(zlib.decompress(data), width * channels, channels))


def _rows(data: bytes, size: int, channels: int) -> list[list[Colour]]:
    rows, above = [], bytearray(size)
    for start in range(0, len(data), size + 1):
        line = bytearray(data[start + 1 : start + 1 + size])
        _unfilter(data[start], line, above, channels)
        rows.append([(line[i], line[i + 1], line[i + 2]) for i in range(0, size, channels)])
        above = line
    return rows


def _unfilter(kind: int, line: bytearray, above: bytearray, channels: int) -> None:
    for i in range(len(line) if kind else 0):
        left = line[i - channels] if i >= channels else 0
        corner = above[i - channels] if i >= channels else 0
        up = above[i]
        guess = {1: left, 2: up, 3: (left + up) // 2, 4: _nearest(left, up, corner)}[kind]
        line[i] = (line[i] + guess) & 255


def _nearest(left: int, up: int, corner: int) -> int:
    estimate = left + up - corner
    return min((left, up, corner), key=lambda value: abs(estimate - value))
