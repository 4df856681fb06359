# SPDX-License-Identifier: AGPL-3.0-or-later
"""Peers of a whole node that live in this process: honest ones that call it all the time, and those that mean harm.

All of them come with identities of their own. Those that only have sockets come from another address of this machine,
since a node counts what comes from each address.
"""

from __future__ import annotations

import json
import random
from contextlib import asynccontextmanager, suppress

import msgspec
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from actors.p2p.peer_registry.host import Host, open_host
from actors.p2p.peer_registry.host_rules import HostRules
from actors.p2p.peer_registry.link.frames import Cutter, joined
from actors.p2p.peer_registry.link.hello import Handshake
from actors.p2p.peer_registry.link.link import Link
from actors.p2p.peer_registry.link.links import PROTOCOL
from actors.p2p.peer_registry.link.messages import Body, CallTool
from actors.p2p.peer_registry.link.rules import LinkRules
from actors.p2p.peer_registry.link.side import About, OwnSide
from actors.p2p.peer_registry.stream import PeerStream

ELSEWHERE = "127.0.0.66"
PATIENCE_S = 10
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[int, int, Body | None]).decode


class Target:
    """The node that is called or attacked."""

    def __init__(self, address: str, secret: bytes) -> None:
        self.place, _, self.peer_id = address.rpartition("/p2p/")
        self.port = int(self.place.split("/")[4])
        self.secret = secret
        """Of links."""


@asynccontextmanager
async def host_at(target: Target, key: Ed25519PrivateKey | None = None):
    """A host in this process that is connected to the target."""
    async with open_host(HostRules(listen=()), key or Ed25519PrivateKey.generate()) as host:
        await host.dial(target.place, target.peer_id, PATIENCE_S)
        yield host


class Honest:
    """Calls a tool of the target over one link, all the time."""

    def __init__(self, target: Target, key: Ed25519PrivateKey) -> None:
        self.target = target
        self.key = key
        self.seconds: list[float] = []

    async def run(self, *, task_status=trio.TASK_STATUS_IGNORED) -> None:
        async with host_at(self.target, self.key) as host:
            side = OwnSide(peer_id=host.peer_id, secret=self.target.secret)
            link = Link(await host.open_stream(self.target.peer_id, PROTOCOL, PATIENCE_S), side)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(link.run)
                with trio.fail_after(PATIENCE_S):
                    await link.ready.wait()
                task_status.started()
                while True:
                    began = trio.current_time()
                    text = str(len(self.seconds))
                    answer = await link.call(CallTool(name="echo", arguments=json.dumps({"text": text})), PATIENCE_S)
                    assert text in answer.result
                    self.seconds.append(trio.current_time() - began)
                    await trio.sleep(0.02)


class Insider:
    """The dialling end of a link with the target, by hand."""

    def __init__(self, host: Host, stream: PeerStream, target: Target, secret: bytes | None, about: About) -> None:
        self.stream = stream
        self.handshake = Handshake(
            host.peer_id,
            target.peer_id,
            inbound=False,
            instance=bytes(16),
            about=about,
            rules=LinkRules(),
            secret=secret,
        )
        self.cutter = Cutter(1 << 30)

    async def greet(self) -> None:
        """Until all was said."""
        await self.stream.write(self.handshake.first())
        while self.handshake.peer is None:
            if answer := self.handshake.take(await self._frame()):
                await self.stream.write(answer)

    def sealed(self, frame_id: int, op: int, body=None) -> bytes:
        """A right frame."""
        return joined([_encode((frame_id, op, body))], self.handshake.sending)

    async def hear(self):
        """The next frame `(id, op, body)`. Raises EOFError at the end of the stream."""
        return _decode(self.handshake.receiving.opened(await self._frame()))

    async def _frame(self) -> bytes:
        while (frame := self.cutter.cut()) is None:
            chunk = await self.stream.read()
            if not chunk:
                raise EOFError
            self.cutter.feed(chunk)
        return frame

    async def until_ended(self) -> None:
        """Read until the target has had enough."""
        with trio.fail_after(PATIENCE_S), suppress(EOFError, OSError):
            while True:
                await self._frame()


@asynccontextmanager
async def insider(
    target: Target,
    key: Ed25519PrivateKey | None = None,
    *,
    secret: bytes | None = None,
    about: About | None = None,
    greet: bool = True,
):
    """Somebody who has a link, or has just dialled. `secret`: what it thinks the secret is."""
    async with host_at(target, key) as host:
        stream = await host.open_stream(target.peer_id, PROTOCOL, PATIENCE_S)
        one = Insider(host, stream, target, secret or target.secret, about or About())
        one.peer_id = host.peer_id
        if greet:
            with trio.fail_after(PATIENCE_S):
                await one.greet()
        yield one


async def from_elsewhere(target: Target) -> trio.SocketStream:
    """A bare connection with the target's port."""
    sock = trio.socket.socket()
    try:
        await sock.bind((ELSEWHERE, 0))
        await sock.connect(("127.0.0.1", target.port))
    except BaseException:
        sock.close()
        raise
    return trio.SocketStream(sock)


async def say(target: Target, data: bytes, hold_s: float) -> None:
    """Say something, and stay there for as long as one is let."""
    with suppress(OSError, trio.BrokenResourceError):
        async with await from_elsewhere(target) as stream:
            with trio.move_on_after(hold_s):
                await stream.send_all(data)
                while await stream.receive_some():
                    pass


def noise(rng: random.Random) -> bytes:
    """What is said instead of a handshake."""
    begun = b"\x13/multistream/1.0.0\n"
    return rng.choice(
        [
            rng.randbytes(rng.randrange(1, 2000)),
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            bytes.fromhex("16030100a5010000a10303") + rng.randbytes(80),
            begun,
            begun + b"\x07/noise\n" + rng.randbytes(2) + rng.randbytes(rng.randrange(400)),
            begun + b"\x07/noise\n\xff\xff" + bytes(70_000),
            begun + b"\xff\xff\xff\x7f",
        ]
    )
