# SPDX-License-Identifier: AGPL-3.0-or-later
"""The directory as one process sees it, and its connections to the actors listed there.

The root pushes the whole directory on each change. A connection belongs to one incarnation of one actor and is never
used for another; it is opened on first use, shared by all callers, and forgotten when it ends.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import trio

from actors.calls import Handler, OnEvent
from actors.channel import Channel, ChannelClosedError, ChannelLimits
from actors.errors import ActorDiedError
from actors.messages import PROTOCOL_VERSION, Directory, DirectoryEntry, Hello

_CONNECT_TIMEOUT_S = 5.0
_RETRY_S = 0.05


def base_name(name: str) -> str:
    """`tools.general` for `tools.general#1`: what all processes of one spec have in common."""
    return name.partition("#")[0]


def is_spare(name: str) -> bool:
    """Whether this names a process that stands by: `router#spare0`."""
    return "#spare" in name


class _Connection:
    """A connection that is being opened or is open."""

    __slots__ = ("channel", "opened")

    def __init__(self) -> None:
        self.opened = trio.Event()
        self.channel: Channel | None = None


class Peers:
    """The directory and the connections of one process. `nursery` runs the channels; it outlives all of them."""

    def __init__(
        self,
        me: Hello,
        nursery: trio.Nursery,
        *,
        limits: ChannelLimits | None = None,
        handler: Handler | None = None,
        on_event: Callable[[DirectoryEntry, msgspec.Raw], None] | None = None,
        on_closed: Callable[[str, str], None] | None = None,
    ) -> None:
        """`on_event` gets events of connected actors; `on_closed` hears of each ended connection and why."""
        self.entries: dict[str, DirectoryEntry] = {}
        self._me = me
        self._nursery = nursery
        self._limits = limits
        self._handler = handler
        self._on_event = on_event
        self._on_closed = on_closed
        self._by_base: dict[str, list[DirectoryEntry]] = {}
        self._connections: dict[int, _Connection] = {}
        """By incarnation: a spare that takes a place keeps it, and with it the connections that it has."""
        self._changed = trio.Event()
        self._gone: set[int] = set()
        """Incarnations that are listed and whose socket nobody listens on any more: they are dead, and the root does
        not know yet."""
        self._failed: set[int] = set()
        """Incarnations that could not be connected to for another reason: they are tried again at a pace."""
        self.changes = 0
        """Grows with each change; for `changed`."""

    def update(self, directory: Directory) -> None:
        """Take over a new directory and wake all who wait for a change."""
        self.entries = {entry.name: entry for entry in directory.entries}
        self._by_base = {}
        for entry in directory.entries:
            if not is_spare(entry.name):
                self._by_base.setdefault(base_name(entry.name), []).append(entry)
        there = {entry.incarnation for entry in directory.entries}
        for incarnation in [known for known in self._connections if known not in there]:
            # Not closed: it ends with its process, whose last answers may be on their way.
            del self._connections[incarnation]
        self._gone &= there
        self._failed &= there
        self.wake()

    def wake(self) -> None:
        """Let all who wait in `changed` look again."""
        self.changes += 1
        self._changed.set()
        self._changed = trio.Event()

    async def changed(self, since: int | None = None) -> None:
        """Wait for the next change of the directory or of a connection; with `since`, a former value of `changes`, for
        the first one after that, which may have been already."""
        if since is None or since == self.changes:
            await self._changed.wait()
        else:
            await trio.lowlevel.checkpoint()

    def processes(self, base: str) -> list[DirectoryEntry]:
        """All processes of one spec, whatever their state, spares left out."""
        return self._by_base.get(base, [])

    def connected(self, entry: DirectoryEntry) -> Channel | None:
        """The open connection to this incarnation, if there is one."""
        connection = self._connections.get(entry.incarnation)
        channel = connection.channel if connection is not None else None
        return channel if channel is not None and not channel.closed else None

    async def connect(self, entry: DirectoryEntry) -> Channel:
        """The connection to this incarnation, opened if need be.

        Raises `ActorDiedError` (with `sent` False) when it can't be had.
        """
        if entry.incarnation in self._gone:
            raise ActorDiedError(entry.name, entry.incarnation, sent=False)
        connection = self._connections.get(entry.incarnation)
        if connection is None:
            connection = self._connections[entry.incarnation] = _Connection()
            self._nursery.start_soon(self._open, entry, connection)
        await connection.opened.wait()
        if connection.channel is None or connection.channel.closed:
            raise ActorDiedError(entry.name, entry.incarnation, sent=False)
        return connection.channel

    async def _open(self, entry: DirectoryEntry, connection: _Connection) -> None:
        """Open one connection and carry it until it ends."""
        key = entry.incarnation
        try:
            reason = await self._try(entry, connection)
            if connection.channel is not None:
                self._failed.discard(key)
            elif key not in self._gone:
                if key in self._failed:
                    await trio.sleep(_RETRY_S)
                self._failed.add(key)
        finally:
            if self._connections.get(key) is connection:
                del self._connections[key]
            connection.opened.set()
            self.wake()
        if self._on_closed is not None:
            self._on_closed(entry.name, reason)

    async def _try(self, entry: DirectoryEntry, connection: _Connection) -> str:
        """Connect, and carry the connection. Returns why it ended, or why there was none."""
        try:
            with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM) as sock:
                with trio.move_on_after(_CONNECT_TIMEOUT_S) as connecting:
                    await sock.connect(entry.socket)
                if connecting.cancelled_caught:
                    return "no connection in time"
                channel = Channel(
                    sock,
                    me=self._me,
                    handler=self._handler,
                    on_event=self._event_handler(entry),
                    accept=_same_life(entry),
                    limits=self._limits,
                )
                return await self._carry(channel, connection)
        except (ConnectionRefusedError, FileNotFoundError) as error:
            # It listened before it was listed. Unmarked, it would be tried again and again by who waits for the next.
            self._gone.add(entry.incarnation)
            return str(error)
        except (OSError, ChannelClosedError) as error:
            return str(error)

    async def _carry(self, channel: Channel, connection: _Connection) -> str:
        reason = ""

        async def run(*, task_status: trio.TaskStatus[None]) -> None:
            nonlocal reason
            try:
                reason = await channel.run(task_status=task_status)
            except ChannelClosedError as error:
                reason = str(error)
                task_status.started()

        async with trio.open_nursery() as nursery:
            await nursery.start(run)
            if not channel.closed:
                connection.channel = channel
                connection.opened.set()
                self.wake()
        return reason

    def _event_handler(self, entry: DirectoryEntry) -> OnEvent | None:
        on_event = self._on_event
        return None if on_event is None else lambda body: on_event(entry, body)


def _same_life(entry: DirectoryEntry) -> Callable[[Hello], None]:
    """A socket answers for the incarnation that the directory names, or it is not used."""

    def accept(hello: Hello) -> None:
        # Not the name: a spare that takes a place learns its new one a moment later than others do.
        if hello.incarnation != entry.incarnation:
            raise ActorDiedError(entry.name, entry.incarnation, sent=False)

    return accept


def socket_path(runtime_dir: str, actor: str, incarnation: int) -> str:
    """Where an incarnation listens. Never used again by another."""
    return str(Path(runtime_dir) / f"{actor}.{incarnation}.sock")


def hello(actor: str, incarnation: int, token: str = "") -> Hello:
    """This process's greeting."""
    return Hello(PROTOCOL_VERSION, actor, incarnation, token)
