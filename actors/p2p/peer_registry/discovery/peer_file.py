# SPDX-License-Identifier: AGPL-3.0-or-later
"""A file with peers that should be connected: a multiaddr with its peer id on each line, and comments after `#`.

It is read again when it changes. A line that is wrong costs that line and is named in the log. Peers that do not stand
in it any more are not wanted any more; a file that is gone names none, and one that can't be read leaves all as it was.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import trio

from actors.logs import get_logger
from actors.p2p.peer_registry.discovery.candidates import candidate
from actors.p2p.peer_registry.peers import MOST_ADDRESSES

EVERY_S: Final = 5.0
"""A change is noticed after so long."""
MOST_BYTES: Final = 256 * 1024
MOST_PEERS: Final = 500
MOST_NAMED: Final = 10
"""Wrong lines that are named each time that the file is read; the others are counted."""
_SHOWN_CHARS: Final = 80

_T = TypeVar("_T")
Places = dict[str, list[str]]
"""Multiaddrs without the peer id, by peer id."""


class Wrong(msgspec.Struct, frozen=True):
    """A line that is wrong."""

    line: int
    """From 1."""
    text: str
    reason: str

    def __str__(self) -> str:
        return f"{self.line}: {self.text!r}: {self.reason}"


class Read(msgspec.Struct, frozen=True):
    """What stands in the file."""

    peers: Places
    wrong: list[Wrong]


def parse(text: str) -> Read:
    """Take a file's text apart. Raises nothing."""
    peers: Places = {}
    wrong: list[Wrong] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].strip()
        if not words:
            continue
        try:
            one = candidate(words)
            places = peers.get(one.peer_id, [])
            if not places and len(peers) >= MOST_PEERS:
                raise ValueError(f"there are more than {MOST_PEERS} peers")
            if one.place not in places and len(places) >= MOST_ADDRESSES:
                raise ValueError(f"there are more than {MOST_ADDRESSES} addresses of this peer")
        except ValueError as error:
            wrong.append(Wrong(number, words[:_SHOWN_CHARS], str(error)))
        else:
            peers[one.peer_id] = list(dict.fromkeys([*places, one.place]))
    return Read(peers, wrong)


class Unreadable(msgspec.Struct, frozen=True):
    """The file is there, but of no use."""

    reason: str


def read(path: Path) -> Read | Unreadable | None:
    """What stands in it; None = there is no such file. It may take as long as the disk does."""
    try:
        # Without the flag a pipe would keep the thread for ever.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        return Unreadable(error.strerror or str(error))
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return Unreadable("it is no file")
        data = b""
        while len(data) <= MOST_BYTES and (more := os.read(file, MOST_BYTES + 1 - len(data))):
            data += more
    except OSError as error:
        return Unreadable(error.strerror or str(error))
    finally:
        os.close(file)
    if len(data) > MOST_BYTES:
        return Unreadable(f"it has more than {MOST_BYTES} bytes")
    return parse(data.decode(errors="replace"))


def mark(path: Path) -> tuple[int, ...]:
    """Differs when the file does."""
    try:
        found = path.stat()
    except OSError as error:
        return (error.errno or 0,)
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class PeerFile:
    """Watches the file. `run` does so until cancelled."""

    name: Final = "peer_file"

    def __init__(self, path: Path, wanted: Callable[[Places], None]) -> None:
        """`wanted` is told all peers that stand there, each time that they have changed."""
        self._path = path
        self._wanted = wanted
        self._mark: tuple[int, ...] = ()
        self._peers: Places = {}
        self._reading = trio.Lock()
        self._thread = trio.CapacityLimiter(1)
        self.state = "not read yet"
        """`ok`, or what is wrong with it."""

    async def run(self) -> None:
        """Read it, and again whenever it changes."""
        while True:
            await self.look()
            await trio.sleep(EVERY_S)

    async def look(self, timeout_s: float = EVERY_S) -> int:
        """Read it if it has changed; what takes longer than `timeout_s` goes on by itself. Returns how many peers it
        names that it did not name before."""
        with trio.move_on_after(timeout_s):
            async with self._reading:
                return await self._look()
        return 0

    async def _look(self) -> int:
        now = await self._in_thread(mark)
        if now == self._mark:
            return 0
        found = await self._in_thread(read)
        # Taken before it was read: a change in between is seen the next time.
        self._mark = now
        log = get_logger().bind(path=str(self._path))
        if isinstance(found, Unreadable):
            self.state = f"can't be read: {found.reason}"
            log.warning("the file of peers can't be read, what it said before holds", reason=found.reason)
            return 0
        if found is None:
            self.state = "there is no such file"
            log.warning("there is no file of peers; it is looked for again")
            return self._take({})
        self.state = "ok"
        if found.wrong:
            self.state = f"ok, but for {len(found.wrong)} wrong lines, which the log names"
            log.warning(
                "lines of the file of peers are wrong",
                lines=[str(one) for one in found.wrong[:MOST_NAMED]],
                wrong=len(found.wrong),
            )
        log.info("the file of peers was read", peers=len(found.peers))
        return self._take(found.peers)

    async def _in_thread(self, what: Callable[[Path], _T]) -> _T:
        """A disk that hangs costs one thread, not all that there are."""
        return await trio.to_thread.run_sync(what, self._path, abandon_on_cancel=True, limiter=self._thread)

    def _take(self, peers: Places) -> int:
        before, self._peers = self._peers, peers
        if before != peers:
            self._wanted(peers)
        return len(peers.keys() - before.keys())
