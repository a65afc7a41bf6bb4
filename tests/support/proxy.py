"""A TCP proxy that does what networks do: a process of its own, steered by lines of JSON over a unix socket.

`python -m tests.support.proxy CONTROL TO_HOST:TO_PORT NAME=HOST:PORT ...` listens for each named link and passes its
bytes on. A line ``{"link": NAME, ...}`` sets members of the link's `Weather` (``"*"``: of every link) or asks for one
of the `ACTS`; ``{}`` asks for nothing. Each line is answered by one with the counts so far. A black hole is half-open:
connections are accepted and stay, and nothing passes until it ends. Connections from one process end with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import socket
import struct
import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from overnight.state_dir import wait_until

CHUNK = 1 << 16
_TICK_SECONDS = 0.02


@dataclass(frozen=True)
class Weather:
    """How a link is: seconds of delay a chunk, bytes a second, bytes a write, and seconds before a close passes on."""

    latency: float = 0.0
    bandwidth: float | None = None
    slice: int | None = None
    slow_close: float = 0.0
    black_hole: bool = False


class Connection:
    """Two streams and the reply that is to be lost."""

    def __init__(self, link: Link, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self._link = link
        self._near, self._far = near, far
        self._loses_reply = False

    def reset(self) -> None:
        """Break both sides off, as a host that has lost its memory does."""
        for writer in (self._near, self._far):
            with contextlib.suppress(OSError, AttributeError):
                end = writer.get_extra_info("socket")
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def carry(self, reader: asyncio.StreamReader, near: asyncio.StreamReader) -> None:
        """Pass bytes both ways until one side ends."""
        ways = [
            asyncio.ensure_future(self._pass(near, self._far, is_request=True)),
            asyncio.ensure_future(self._pass(reader, self._near, is_request=False)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(self._link.weather.slow_close)
        finally:
            for way in ways:
                way.cancel()
            for writer in (self._near, self._far):
                writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_request: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                await self._link.weathered(len(data))
                if is_request:
                    self._loses_reply |= self._link.notes_request(data)
                elif self._loses_reply:
                    self._link.counts["dropped"] += 1
                    return self.reset()
                if self._link.is_cut(len(data)):
                    return self.reset()
                await self._write(writer, data)
        return None

    async def _write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        weather = self._link.weather
        step = weather.slice or (CHUNK if weather.bandwidth is None else max(1, int(weather.bandwidth * _TICK_SECONDS)))
        for start in range(0, len(data), step):
            part = data[start : start + step]
            writer.write(part)
            await writer.drain()
            if weather.bandwidth is not None:
                await asyncio.sleep(len(part) / weather.bandwidth)


@dataclass
class Link:
    """One listening address; `cut_after` and `drop_in` count down, in bytes and in EVALSHAs."""

    to: tuple[str, int]
    weather: Weather = Weather()
    cut_after: int | None = None
    drop_in: int | None = None
    counts: Counter[str] = field(default_factory=Counter)
    connections: set[Connection] = field(default_factory=set)
    unanswered: set[bytes] = field(default_factory=set)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def become(self, **weather: Any) -> None:
        """Change the weather; who waits for a better one looks again."""
        self.weather = replace(self.weather, **weather)
        self.changed.set()
        self.changed = asyncio.Event()

    async def serve(self, near: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection from its beginning to its end."""
        try:
            reader, far = await asyncio.open_connection(*self.to)
        except OSError:
            self.counts["refused"] += 1
            Connection(self, writer, writer).reset()
            return
        connection = Connection(self, writer, far)
        self.connections.add(connection)
        try:
            await connection.carry(reader, near)
        finally:
            self.connections.discard(connection)

    async def weathered(self, size: int) -> None:
        """Wait as long as the weather holds so many bytes back."""
        if self.weather.latency:
            await asyncio.sleep(self.weather.latency)
        if self.weather.black_hole:
            self.counts["swallowed"] += size
        while self.weather.black_hole:
            await self.changed.wait()

    def notes_request(self, data: bytes) -> bool:
        """Note what is asked; tell whether the reply to it is to be lost."""
        scripts = data.count(b"EVALSHA")
        digest = hashlib.sha256(data).digest()
        if digest in self.unanswered:
            self.counts["repeated"] += 1
            self.unanswered.discard(digest)
        if not scripts or self.drop_in is None:
            return False
        self.drop_in -= scripts
        if self.drop_in > 0:
            return False
        self.drop_in = None
        self.unanswered.add(digest)
        return True

    def is_cut(self, size: int) -> bool:
        """Tell whether the link is cut before these bytes."""
        if self.cut_after is None:
            return False
        self.cut_after -= size
        if self.cut_after > 0:
            return False
        self.cut_after = None
        self.counts["cut"] += 1
        return True

    def reset(self) -> None:
        """Reset all connections."""
        for connection in list(self.connections):
            self.counts["reset"] += 1
            connection.reset()


#: What a line may ask for beside the members of `Weather`: reset (true), cut_after (bytes), drop_in (k of the EVALSHA).
ACTS = ("reset", "cut_after", "drop_in")


class Proxy:
    """All links, and the control socket."""

    def __init__(self, to: tuple[str, int], links: dict[str, tuple[str, int]]) -> None:
        self._places = links
        self._links = {name: Link(to) for name in links}

    async def run(self, control: Path) -> None:
        """Serve until the process ends."""
        for name, (host, port) in self._places.items():
            await asyncio.start_server(self._links[name].serve, host, port)
        server = await asyncio.start_unix_server(self._obey, control)
        await server.serve_forever()

    async def _obey(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for line in reader:
            self._set(json.loads(line))
            await asyncio.sleep(0)  # what was reset is closed in this turn of the loop
            answer = {name: {**link.counts, "open": len(link.connections)} for name, link in self._links.items()}
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        writer.close()

    def _set(self, wish: dict[str, Any]) -> None:
        name = wish.pop("link", "*")
        acts = {act: wish.pop(act) for act in ACTS if act in wish}
        for link in self._links.values() if name == "*" else [self._links[name]]:
            link.become(**wish)
            link.cut_after = acts.get("cut_after", link.cut_after)
            link.drop_in = acts.get("drop_in", link.drop_in)
            if acts.get("reset"):
                link.reset()


class Control:
    """The other end of the control socket. TimeoutError if nobody is there within `seconds`."""

    def __init__(self, path: Path, seconds: float = 30.0) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(10)
        if not wait_until(lambda: self._socket.connect_ex(str(path)) == 0, seconds):
            raise TimeoutError(f"no proxy listens at {path}")
        self._lines = self._socket.makefile("rb")

    def __call__(self, link: str = "*", **wish: Any) -> dict[str, dict[str, int]]:
        """Set what is wished for, wait until it holds, and return the counts by link."""
        self._socket.sendall(json.dumps({"link": link, **wish}).encode() + b"\n")
        answer: dict[str, dict[str, int]] = json.loads(self._lines.readline())
        return answer

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


def address(text: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT``."""
    host, _, port = text.rpartition(":")
    return host, int(port)


def main(words: list[str]) -> None:
    links = dict(word.split("=", 1) for word in words[2:])
    proxy = Proxy(address(words[1]), {name: address(place) for name, place in links.items()})
    asyncio.run(proxy.run(Path(words[0])))


if __name__ == "__main__":
    main(sys.argv[1:])
