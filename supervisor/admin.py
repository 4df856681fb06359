# SPDX-License-Identifier: AGPL-3.0-or-later
"""The admin socket: what the command line (and the gateway, for people) may ask of the root.

Methods: `status` -> `TreeStatus`; `directory` -> `Directory`; `down` (`Down`) -> nothing, the tree stops;
`restart` (`RestartRequest`), `drain`, `resume` (`ActorRequest`) -> nothing, once it was accepted; `scale`
(`ScaleRequest`) -> `Scaled`; `reload` -> `supervisor.reload.Reloaded`; `quarantine`, `release`: see
`supervisor.admin_quarantine`; `chaos` -> `ChaosInfo`, where `chaos.enabled`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import trio

from actors.calls import IncomingCall, Message
from actors.channel import Channel, ChannelClosedError
from actors.errors import MCPServerError
from actors.listening import accept
from actors.peers import hello
from supervisor.control import open_unix_listener
from supervisor.rundir import ADMIN_SOCKET, NotRunningError, RunInfo


class Down(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Stop the tree: in order, or at once."""

    now: bool = False


class ActorRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An order about one actor."""

    name: str


class RestartRequest(ActorRequest, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Give one actor a new process."""

    drain: bool = False
    """Start it beside the old one, which then finishes its calls."""


class ScaleRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Give a pool so many processes."""

    pool: str
    size: int


class Scaled(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `scale` set going."""

    pool: str
    before: int
    after: int
    added: list[str]
    removed: list[str]


AdminMethod = Callable[[msgspec.Raw], Awaitable[Message]]


class AdminServer:
    """Serves the admin socket. Whoever can open it is the user who started the tree."""

    def __init__(self, runtime_dir: Path, methods: dict[str, AdminMethod]) -> None:
        self._path = runtime_dir / ADMIN_SOCKET
        self._methods = methods

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        listener = await open_unix_listener(self._path)
        async with listener, trio.open_nursery() as connections:
            task_status.started()
            while True:
                stream = await accept(listener)
                connections.start_soon(self._carry, stream.socket)

    async def _carry(self, sock: trio.socket.SocketType) -> None:
        channel = Channel(sock, me=hello("root", 0), handler=self._handle)
        try:
            with sock:
                await channel.run()
        except ChannelClosedError:
            return

    async def _handle(self, call: IncomingCall) -> Message:
        method = self._methods.get(call.method)
        if method is None:
            raise MCPServerError(f"the admin interface has no method {call.method!r}")
        return await method(call.body)


@asynccontextmanager
async def open_admin(info: RunInfo) -> AsyncGenerator[Channel, None]:
    """A connection to the admin socket of a running root. Raises `NotRunningError`."""
    async with open_socket(str(Path(info.runtime_dir) / ADMIN_SOCKET)) as channel:
        yield channel


@asynccontextmanager
async def open_socket(path: str) -> AsyncGenerator[Channel, None]:
    """A connection to any socket of a running tree. Raises `NotRunningError` when nobody answers there."""
    sock = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    with sock:
        try:
            await sock.connect(path)
        except OSError as error:
            raise NotRunningError(f"no answer on {path} ({error.strerror}); is the system still up?") from None
        channel = Channel(sock, me=hello("cli", 0))
        async with background() as nursery:
            await nursery.start(_run, channel)
            try:
                yield channel
            finally:
                channel.close("done")


@asynccontextmanager
async def background() -> AsyncGenerator[trio.Nursery, None]:
    """A nursery whose tasks serve the block and end with it. What the block raises comes out as it is, in no group."""
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        try:
            yield nursery
        except Exception as error:  # noqa: BLE001
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _run(channel: Channel, *, task_status: trio.TaskStatus[None]) -> None:
    try:
        await channel.run(task_status=task_status)
    except ChannelClosedError:
        task_status.started()
