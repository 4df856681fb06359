# SPDX-License-Identifier: AGPL-3.0-or-later
"""The server of the queue protocol over a queue in memory, and peers that send it lines."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import peer_streams
import trio
from task_boxes import BIG, MemoryBox

from actors.errors import from_info
from actors.p2p.peer_registry.queue_protocol.answering import QueueAnswering
from actors.p2p.peer_registry.queue_protocol.server import QueueServer
from actors.p2p.peer_registry.stream import PeerStream, StreamBrokenError
from actors.p2p.peer_registry.stream_use import StreamUse, UseLimits
from actors.p2p.task_queue.limits import QueueLimits
from actors.p2p.task_queue.service import TaskQueue
from actors.settings_p2p import QueueProtocolSettings
from actors.task_client import repeatable
from actors.task_messages import Answer_, Op, Refused

ADA, HERE, BOB = peer_streams.A, peer_streams.B, peer_streams.C
"""A peer, this node, another peer."""
SECRET = "open sesame"
LONGEST_S = 3600


class QueueDesk:
    """A queue of this process with the methods of a `TaskClient`."""

    def __init__(self, queue: TaskQueue) -> None:
        self.queue = queue
        self.failure: Exception | None = None
        """Raised by whatever is asked next."""

    def _fail(self) -> None:
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure

    async def do(self, op: Op, answer: type[Answer_], *, timeout_s: float = 30.0) -> Any:
        self._fail()
        outcome = await self.queue.do(repeatable(op))
        if isinstance(outcome, Refused):
            raise from_info(outcome.error)
        assert isinstance(outcome, answer)
        return outcome

    async def do_all(self, ops: Any, *, timeout_s: float = 30.0) -> Any:
        self._fail()
        return await self.queue.do_all([repeatable(op) for op in ops], 0)

    async def get(self, ask: Any, *, timeout_s: float = 30.0) -> Any:
        self._fail()
        return await self.queue.get(ask)

    async def scan(self, ask: Any, *, timeout_s: float = 30.0) -> Any:
        self._fail()
        return await self.queue.scan(ask)

    async def read_results(self, ask: Any, *, timeout_s: float = 30.0) -> Any:
        self._fail()
        return await self.queue.results(ask)

    async def stats(self, *, timeout_s: float = 30.0) -> Any:
        self._fail()
        return await self.queue.stats()


class Rig:
    """`await rig("submit", task_type="dig")` is a reply, by way of a stream; `by` names the peer."""

    def __init__(self, nursery: trio.Nursery, box: MemoryBox, desk: QueueDesk) -> None:
        self.nursery = nursery
        self.box = box
        self.desk = desk
        self.server: QueueServer
        self.answering: QueueAnswering
        self.use: StreamUse
        self.violations: list[tuple[str, str]] = []
        self.forbidden: set[tuple[str, str]] = set()
        """Rights that nobody has: right and what it is for."""
        self.ended = 0

    def may(self, peer_id: str, right: str, what: str) -> bool:
        return (right, what) not in self.forbidden and (right, peer_id) not in self.forbidden

    def stream(self, by: str = ADA) -> PeerStream:
        """A stream that a peer has opened: its end."""
        theirs, ours = peer_streams.pair(by, HERE)
        self.nursery.start_soon(self._serve, ours)
        return theirs

    async def _serve(self, stream: PeerStream) -> None:
        await self.server.serve(stream)
        self.ended += 1

    async def open_stream(self, timeout_s: float) -> PeerStream:
        """For clients."""
        return self.stream()

    async def raw(self, data: bytes, by: str = ADA) -> bytes:
        """What is answered to bytes, up to the end."""
        stream = self.stream(by)
        said = b""
        try:
            await stream.write(data)
            await stream.finish()
            while piece := await stream.read():
                said += piece
        except StreamBrokenError:
            return said + b"<broken>"
        return said

    async def __call__(self, op: str, /, by: str = ADA, **fields: Any) -> dict[str, Any]:
        request = {"op": op, "token": SECRET} | fields
        said = await self.raw(json.dumps(request).encode() + b"\n", by)
        assert said.endswith(b"\n"), said
        assert said.count(b"\n") == 1
        reply = json.loads(said)
        assert reply["peer_id"] == HERE
        assert isinstance(reply["ok"], bool)
        return reply

    async def submit(self, task_type: str = "dig", by: str = ADA, **more: Any) -> str:
        reply = await self("submit", by, task_type=task_type, payload=more.pop("payload", {"n": 1}), **more)
        assert reply["ok"], reply
        return reply["task_id"]

    async def take(self, worker_id: str = "w", by: str = ADA, **more: Any) -> dict[str, Any]:
        """Claim one task; there has to be one."""
        task = (await self("claim", by, worker_id=worker_id, **more))["task"]
        assert task is not None
        return task

    async def row(self, task_id: str, by: str = ADA) -> dict[str, Any]:
        return (await self("get", by, task_id=task_id))["task"]


@asynccontextmanager
async def open_rig(
    directory: Path,
    *,
    secret: str | None = SECRET,
    tools: Any = None,
    limits: QueueLimits = BIG,
    use: UseLimits | None = None,
    running: bool = True,
    **settings: Any,
) -> AsyncGenerator[Rig, None]:
    """A queue that runs and its server; `settings` are those of `p2p.peer_registry.queue_protocol`. A queue that is not
    `running` uses no threads, so that the clock may jump, and answers nothing."""
    box = MemoryBox(directory, limits)
    if running:
        await box.open()
    queue = TaskQueue(box.store, most_waiting=1000, now=box.clock)
    with trio.fail_after(LONGEST_S):
        async with trio.open_nursery() as nursery:
            if running:
                nursery.start_soon(queue.run)
            rig = Rig(nursery, box, QueueDesk(queue))
            rig.answering = QueueAnswering(
                HERE, rig.desk, rig.may, QueueProtocolSettings(**({"enabled": True} | settings)),
                secret=secret, tools=tools, now=box.clock,
                violation=lambda peer, what: rig.violations.append((peer, what)),
            )  # fmt: skip
            rig.use = StreamUse(use or UseLimits(burst=10_000))
            rig.server = QueueServer(rig.answering, rig.use)
            yield rig
            nursery.cancel_scope.cancel()
    if running:
        await box.close()
