# SPDX-License-Identifier: AGPL-3.0-or-later
"""Frames on their way out of a link: what is due at about the same time leaves in one write."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any

import trio

from actors.p2p.peer_registry.link.frames import Seal, joined

if TYPE_CHECKING:
    from actors.p2p.peer_registry.link.rules import LinkRules
    from actors.p2p.peer_registry.stream import PeerStream

_TURNS = 3
"""Of the loop, before a write: so many it takes until the tasks that were woken by the same read have put what they
have to say. Each write costs far more than a turn."""


class Outgoing:
    """Frames that wait, and the one task that writes them. `put` never waits; who can wait looks at `is_full` first."""

    __slots__ = (
        "_closed",
        "_emptied",
        "_frames",
        "_room",
        "_rules",
        "_seal",
        "_writer",
        "bytes_out",
        "put_total",
        "queued_bytes",
        "taken_total",
        "writes",
        "writing_since",
    )

    def __init__(self, rules: LinkRules) -> None:
        self.queued_bytes = 0
        self.put_total = 0
        """Frames."""
        self.taken_total = 0
        """Frames that the other side may have seen."""
        self.writes = 0
        self.bytes_out = 0
        self.writing_since = math.inf
        """When the write that is under way began."""
        self._rules = rules
        self._frames: deque[bytes] = deque()
        self._seal: Seal | None = None
        self._writer: trio.lowlevel.Task | None = None
        self._room = trio.lowlevel.ParkingLot()
        self._emptied = trio.lowlevel.ParkingLot()
        self._closed = False

    def __len__(self) -> int:
        return len(self._frames)

    def is_full(self) -> bool:
        """So much waits that nothing more should be put."""
        return len(self._frames) >= self._rules.outbox or self.queued_bytes >= self._rules.max_queued_bytes

    def put(self, frame: bytes) -> None:
        """Queue one frame."""
        self._frames.append(frame)
        self.queued_bytes += len(frame)
        self.put_total += 1
        if self._writer is not None:
            writer, self._writer = self._writer, None
            trio.lowlevel.reschedule(writer)

    async def room(self) -> None:
        """Wait until something may be put, or until nothing will be written any more."""
        while self.is_full() and not self._closed:
            await self._room.park()

    def drop(self) -> None:
        """Forget what waits."""
        self._frames.clear()
        self.queued_bytes = 0

    def close(self) -> None:
        """Let go all who wait for room; what is put is still written."""
        self._closed = True
        self._room.unpark_all()

    async def emptied(self) -> None:
        """Wait until all that was put is written."""
        while self._frames or self.writing_since != math.inf:
            await self._emptied.park()

    async def run(self, stream: PeerStream, seal: Seal | None) -> None:
        """Write what is put until cancelled. Raises what the stream raises."""

        def abort(_: Any) -> trio.lowlevel.Abort:  # noqa: ANN401
            self._writer = None
            return trio.lowlevel.Abort.SUCCEEDED

        while True:
            while not self._frames:
                self._writer = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(abort)
            for _ in range(_TURNS):
                if len(self._frames) >= self._rules.frames_per_write:
                    break
                await trio.lowlevel.checkpoint()
            if data := joined(self._take(), seal):
                self.writing_since = trio.current_time()
                await stream.write(data)
                self.writing_since = math.inf
                self.writes += 1
                self.bytes_out += len(data)
            if self._room and not self.is_full():
                self._room.unpark_all()
            if self._emptied and not self._frames:
                self._emptied.unpark_all()

    def _take(self) -> list[bytes]:
        frames = self._frames
        left = self._rules.bytes_per_write
        taken: list[bytes] = []
        while frames and len(taken) < self._rules.frames_per_write and (not taken or len(frames[0]) <= left):
            frame = frames.popleft()
            left -= len(frame)
            taken.append(frame)
        self.queued_bytes -= self._rules.bytes_per_write - left
        self.taken_total += len(taken)
        return taken
