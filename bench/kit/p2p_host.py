# SPDX-License-Identifier: AGPL-3.0-or-later
"""One node's side of the network without a tree: its host and its links, as the peer registry makes them.

As a program (`python -m kit.p2p_host SECRET_FILE`) it is the far side of `bench/p2p.py`: it prints its address, answers
echoes on links, echoes raw bytes on `RAW`, swallows them on `SINK`, and ends when its standard input does.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from actors.p2p.peer_registry.host import Host, open_host
from actors.p2p.peer_registry.host_rules import HostRules
from actors.p2p.peer_registry.link.link import Link
from actors.p2p.peer_registry.link.links import PROTOCOL
from actors.p2p.peer_registry.link.messages import Answer, Echo, Request
from actors.p2p.peer_registry.link.rules import LinkRules
from actors.p2p.peer_registry.link.side import OwnSide
from actors.p2p.peer_registry.shared_secret import load_secret
from actors.p2p.peer_registry.stream import PeerStream

RAW: Final = "/bench/raw/1.0.0"
SINK: Final = "/bench/sink/1.0.0"
TIMEOUT_S: Final = 30.0


class Near:
    """A host of ours with what a link needs."""

    def __init__(self, host: Host, side: OwnSide) -> None:
        self.host = host
        self.side = side

    @asynccontextmanager
    async def link(self, address: str) -> AsyncGenerator[Link]:
        """A link with the node at this address, which has its id at the end."""
        place, _, peer_id = address.rpartition("/p2p/")
        await self.host.dial(place, peer_id, TIMEOUT_S)
        link = Link(await self.host.open_stream(peer_id, PROTOCOL, TIMEOUT_S), self.side)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.run)
            with trio.fail_after(TIMEOUT_S):
                await link.ready.wait()
            yield link
            await link.close()
            nursery.cancel_scope.cancel()

    async def stream(self, address: str, protocol: str) -> PeerStream:
        """A raw stream to the node at this address."""
        place, _, peer_id = address.rpartition("/p2p/")
        await self.host.dial(place, peer_id, TIMEOUT_S)
        return await self.host.open_stream(peer_id, protocol, TIMEOUT_S)


@asynccontextmanager
async def near(secret_file: Path, *, listen: bool) -> AsyncGenerator[Near]:
    """A host with an identity of its own that knows the secret."""

    async def handle(_: Link, request: Request) -> Answer:
        assert isinstance(request, Echo)
        return request

    rules = HostRules(listen=("/ip4/127.0.0.1/tcp/0",) if listen else ())
    async with open_host(rules, Ed25519PrivateKey.generate()) as host:
        secret = load_secret(secret_file).key("link")
        yield Near(host, OwnSide(peer_id=host.peer_id, secret=secret, handler=handle, rules=LinkRules(max_serving=64)))


async def _serve(secret_file: Path) -> None:
    async def echo(stream: PeerStream) -> None:
        while data := await stream.read():
            await stream.write(data)

    async def sink(stream: PeerStream) -> None:
        size = 0
        while data := await stream.read():
            size += len(data)
        await stream.write(size.to_bytes(8, "big"))

    async with near(secret_file, listen=True) as here:

        async def link(stream: PeerStream) -> None:
            await Link(stream, here.side).run()

        here.host.serve(PROTOCOL, link)
        here.host.serve(RAW, echo)
        here.host.serve(SINK, sink)
        print(here.host.addresses[0], flush=True)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)


if __name__ == "__main__":
    trio.run(_serve, Path(sys.argv[1]))
