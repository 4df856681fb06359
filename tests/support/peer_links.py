# SPDX-License-Identifier: AGPL-3.0-or-later
"""Links between two nodes in this process, and a stranger that says on a link whatever a test wants.

async with linked() as (left, right):
    await left.link.call(Echo(data=b"x"), 1)

async with met() as (stranger, node):
    await stranger.send(1, Op.REQUEST, Echo())
"""

from __future__ import annotations

from contextlib import asynccontextmanager

import msgspec
import trio
from peer_streams import A, B, MemoryStream, pair

from actors.p2p.peer_registry.link.frames import Cutter, Seal, joined
from actors.p2p.peer_registry.link.hello import Handshake
from actors.p2p.peer_registry.link.link import Link
from actors.p2p.peer_registry.link.messages import Body, Echo
from actors.p2p.peer_registry.link.rules import LinkRules
from actors.p2p.peer_registry.link.side import About, OwnSide

SECRET = b"s" * 32
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[int, int, Body | None]).decode


class Node:
    """One end: its link, and what it has seen."""

    def __init__(self, stream: MemoryStream, me: str, **side) -> None:
        self.stream = stream
        self.requests: list = []
        self.notes: list = []
        self.errors: list[tuple[str, BaseException]] = []
        self.cancelled = 0
        self.running = 0
        self.most_running = 0
        self.answer = self.echo
        """Answers each request; a test may put another function here."""
        side.setdefault("on_note", lambda _, note: self.notes.append(note))
        side.setdefault("secret", SECRET)
        self.side = OwnSide(peer_id=me, handler=self._handle, on_error=lambda *error: self.errors.append(error), **side)
        self.link = Link(stream, self.side)
        self.nursery: trio.Nursery
        """Where the links of the test run."""

    async def _handle(self, link, request):
        self.requests.append(request)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            return await self.answer(request)
        except trio.Cancelled:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    async def echo(self, request):
        return request

    async def hang(self, request):
        await trio.sleep_forever()

    def answer_when(self, event: trio.Event):
        async def answer(request):
            await event.wait()
            return request

        self.answer = answer


@asynccontextmanager
async def linked(rules=None, right_rules=None, *, left=None, right=None):
    """Two nodes whose links are ready; `left` has dialled."""
    ends = pair()
    rules = rules or LinkRules()
    a = Node(ends[0], A, rules=rules, **(left or {}))
    b = Node(ends[1], B, rules=right_rules or rules, **(right or {}))
    async with trio.open_nursery() as nursery:
        for node in (a, b):
            node.nursery = nursery
            nursery.start_soon(node.link.run)
        await a.link.ready.wait()
        await b.link.ready.wait()
        yield a, b
        nursery.cancel_scope.cancel()


class Stranger:
    """The other end of a link, by hand. It has dialled."""

    def __init__(self, stream: MemoryStream, me: str, other: str, rules: LinkRules, secret: bytes | None) -> None:
        self.stream = stream
        self.handshake = Handshake(
            me, other, inbound=False, instance=bytes(16), about=About(), rules=rules, secret=secret
        )
        self.cutter = Cutter(1 << 30)
        self._next: list = []

    async def greet(self) -> None:
        await self.stream.write(self.handshake.first())
        while self.handshake.peer is None:
            if answer := self.handshake.take(await self._frame()):
                await self.stream.write(answer)

    async def _frame(self) -> bytes | None:
        while (frame := self.cutter.cut()) is None:
            chunk = await self.stream.read()
            if not chunk:
                return None
            self.cutter.feed(chunk)
        return frame

    def sealed(self, *frames: bytes) -> bytes:
        return joined(frames, self.handshake.sending)

    async def send(self, frame_id: int, op: int, body=None) -> None:
        await self.stream.write(self.sealed(_encode((frame_id, op, body))))

    async def receive(self):
        """The next frame `(id, op, body)`; None at the end of the stream."""
        frame = await self._frame()
        if frame is None:
            return None
        seal: Seal | None = self.handshake.receiving
        return _decode(frame if seal is None else seal.opened(frame))


@asynccontextmanager
async def met(rules=None, *, greet=True, secret=SECRET, stranger_rules=None, **side):
    """A stranger and a node that it has dialled."""
    left, right = pair()
    rules = rules or LinkRules()
    node = Node(right, B, rules=rules, secret=secret, **side)
    stranger = Stranger(left, A, B, stranger_rules or rules, secret)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.link.run)
        if greet:
            await stranger.greet()
            await node.link.ready.wait()
        yield stranger, node
        nursery.cancel_scope.cancel()


def echo(n: int = 0) -> Echo:
    return Echo(data=b"%d" % n)
