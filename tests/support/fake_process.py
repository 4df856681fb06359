# SPDX-License-Identifier: AGPL-3.0-or-later
"""A process of the tree as its callers see it: a real Unix socket, with a channel for each connection."""

from __future__ import annotations

import trio

from actors.channel import Channel
from actors.messages import DirectoryEntry, State
from actors.peers import hello


class FakeProcess:
    """Subclasses answer in `handle`."""

    def __init__(self, name, incarnation, folder):
        self.name = name
        self.incarnation = incarnation
        self.path = str(folder / f"{name}.{incarnation}")
        self.channels = []

    async def handle(self, call):
        raise NotImplementedError

    async def listen(self, nursery):
        sock = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
        await sock.bind(self.path)
        sock.listen(10)
        self.listener = trio.SocketListener(sock)
        nursery.start_soon(self._accept, nursery)

    async def _accept(self, nursery):
        async with self.listener:
            while True:
                try:
                    stream = await self.listener.accept()
                except trio.ClosedResourceError:
                    return
                channel = Channel(stream.socket, me=hello(self.name, self.incarnation), handler=self.handle)
                self.channels.append(channel)
                nursery.start_soon(channel.run)

    async def die(self):
        await self.listener.aclose()
        for channel in self.channels:
            channel.close("killed")

    def entry(self, state=State.READY, reason=""):
        return DirectoryEntry(
            name=self.name,
            group="tools",
            state=state,
            pid=1,
            incarnation=self.incarnation,
            socket=self.path,
            reason=reason,
        )
