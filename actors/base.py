# SPDX-License-Identifier: AGPL-3.0-or-later
"""What every actor does: prove itself to the root, say ready, answer calls, beat, drain, stop.

An actor's module has a `main` that the child process awaits:

    async def main(boot: Boot) -> None:
        async with open_actor(boot) as actor:
            await actor.serve({"tools/call": run_tool})
            actor.ready()
            await actor.stopping.wait()

The beat comes from the actor's own loop, never from a thread: a loop that is blocked is not alive. When the
connection to the root ends, so does the actor.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import trio

from actors.calls import IncomingCall, Message
from actors.channel import Channel, ChannelClosedError, ChannelLimits
from actors.errors import DrainingError, MCPServerError
from actors.listening import accept
from actors.logs import get_logger
from actors.logs import setup as setup_logs
from actors.memory import MemoryGauge, give_memory_back, settle_memory
from actors.messages import (
    Beat,
    Boot,
    ControlMessage,
    Directory,
    DirectoryEntry,
    Drain,
    Marks,
    Promote,
    Ready,
    Resume,
    Stop,
    Survived,
)
from actors.peers import Peers, hello, socket_path
from actors.settings import Settings

CONTROL_SOCKET = "control.sock"
_FIRST_DIRECTORY_TIMEOUT_S = 10.0
_LEAVE_S = 1.0
_decode_control = msgspec.msgpack.Decoder(ControlMessage).decode

Method = Callable[[IncomingCall], Awaitable[Message]]


class Actor:
    """This process's actor: its boot message, settings, peers, and what the root wants of it."""

    def __init__(self, boot: Boot, settings: Settings, nursery: trio.Nursery) -> None:
        self.boot = boot
        self.settings = settings
        self.nursery = nursery
        """Ends with the actor; for the actor's own tasks."""
        self.stopping = trio.Event()
        """Set when the actor has to end: by the root, or because the root is gone."""
        self.draining = trio.Event()
        self.promoted = trio.Event()
        """Set when this process does its actor's work: from the start, or, for a spare, when it takes a place."""
        self.log = get_logger()
        self.limits = ChannelLimits(
            max_frame_bytes=settings.channel.max_frame_bytes, max_calls_at_once=settings.channel.max_calls_at_once
        )
        self.peers = Peers(
            hello(boot.actor, boot.incarnation),
            nursery,
            limits=self.limits,
            on_event=self._peer_event,
            on_closed=lambda name, reason: self.log.debug("connection ended", peer=name, reason=reason),
        )
        self.on_peer_event: Callable[[DirectoryEntry, msgspec.Raw], None] | None = None
        """Hears of events from actors that this one is connected to."""
        self.marks = Marks()
        """The calls and tools that end processes, as the root said last."""
        self.on_marks: Callable[[Marks], None] | None = None
        """Hears of each change of `marks`."""
        self.on_draining: Callable[[], None] | None = None
        """Called when it has to take no new calls, so that those which only wait can end."""
        self.own_work: Callable[[], int] = lambda: 0
        """Things that it does without being called, for `greenroom drain` and `tree`, which show them as open calls."""
        self.grace_s = settings.supervisor.shutdown_s
        self.replaced = False
        """It has to end because another life does its work."""
        self.calls_total = 0
        self.errors_total = 0
        self.name = boot.actor
        """As in the directory: `tools.general#0`. A spare's changes when it takes a place."""
        if not boot.spare:
            self.promoted.set()
        self._methods: dict[str, Method] = {}
        self._also_draining = False
        self._channels: set[Channel] = set()
        self._control: Channel | None = None
        self._directory_came = trio.Event()
        self._socket = ""
        self._call_ended = trio.Event()
        self._finishing = trio.CancelScope()

    @property
    def open_calls(self) -> int:
        """Calls from others that are being answered."""
        return sum(channel.open_calls for channel in self._channels)

    # --- serving ---------------------------------------------------------------------------------------------------

    async def serve(self, methods: Mapping[str, Method], *, also_draining: bool = False) -> None:
        """Answer calls of these methods on the actor's socket from now on. `also_draining`: they belong to work that is
        there already, so that they are answered until the end."""
        self._methods.update(methods)
        self._also_draining = also_draining
        path = socket_path(self.boot.runtime_dir, self.boot.actor, self.boot.incarnation)
        sock = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
        await sock.bind(path)
        sock.listen(128)
        self._socket = path
        self.nursery.start_soon(self._accept, trio.SocketListener(sock))

    async def _accept(self, listener: trio.SocketListener) -> None:
        async with listener, trio.open_nursery() as connections:
            while True:
                stream = await accept(listener)
                connections.start_soon(self._carry, stream.socket)

    async def _carry(self, sock: trio.socket.SocketType) -> None:
        channel = Channel(
            sock,
            me=hello(self.name, self.boot.incarnation),
            handler=self._handle,
            limits=self.limits,
            on_error=self._unexpected,
        )
        self._channels.add(channel)
        try:
            with sock:
                reason = await channel.run()
            self.log.debug("connection ended", peer=channel.peer.actor, reason=reason)
        except ChannelClosedError as error:
            self.log.warning("connection refused", reason=str(error))
        finally:
            self._channels.discard(channel)

    async def _handle(self, call: IncomingCall) -> Message:
        try:
            return await self._answer(call)
        finally:
            self._call_ended.set()

    async def _answer(self, call: IncomingCall) -> Message:
        method = self._methods.get(call.method)
        if method is None:
            raise MCPServerError(f"{self.name} has no method {call.method!r}")
        if self.draining.is_set() and not self._also_draining:
            raise DrainingError(f"{self.name} is draining and takes no new calls")
        self.calls_total += 1
        try:
            return await method(call)
        except Exception:
            self.errors_total += 1
            raise

    def post_to_all(self, value: msgspec.Struct) -> None:
        """Send a one-way event to every connected caller."""
        for channel in list(self._channels):
            channel.post(value)

    @property
    def most_queued_bytes(self) -> int:
        """What waits for the connected caller that is furthest behind."""
        return max((channel.queued_bytes for channel in self._channels), default=0)

    def _unexpected(self, method: str, error: BaseException) -> None:
        self.log.error("call failed unexpectedly", method=method, exc_info=error)

    def _peer_event(self, entry: DirectoryEntry, body: msgspec.Raw) -> None:
        if self.on_peer_event is not None:
            self.on_peer_event(entry, body)

    # --- the root --------------------------------------------------------------------------------------------------

    def ready(self, note: str = "") -> None:
        """Tell the root that this actor does its work from now on. Once."""
        assert self._control is not None
        settle_memory()
        self._control.post(Ready(socket=self._socket, note=note))

    def survived(self, call: Survived) -> None:
        """Tell the root that a call which it watches was answered."""
        assert self._control is not None
        self._control.post(call)

    async def connect_root(self) -> None:
        """Prove this life on the control socket and wait for the first directory."""
        sock = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
        await sock.connect(str(Path(self.boot.runtime_dir) / CONTROL_SOCKET))
        self._control = Channel(
            sock, me=hello(self.name, self.boot.incarnation, self.boot.token), on_event=self._order, limits=self.limits
        )
        self.nursery.start_soon(self._follow_root, self._control)
        with trio.fail_after(_FIRST_DIRECTORY_TIMEOUT_S):
            await self._directory_came.wait()
        self.nursery.start_soon(self._beat)
        self.nursery.start_soon(give_memory_back)

    async def _follow_root(self, control: Channel) -> None:
        try:
            reason = await control.run()
        except ChannelClosedError as error:
            reason = str(error)
        self.log.info("the root is gone", reason=reason)
        self.stopping.set()
        self.grace_s = 0.0
        self.nursery.cancel_scope.cancel()

    def _order(self, body: msgspec.Raw) -> None:
        order = _decode_control(body)
        if isinstance(order, Directory):
            self.peers.update(order)
            self._directory_came.set()
        elif isinstance(order, Marks):
            self.marks = order
            if self.on_marks is not None:
                self.on_marks(order)
        elif isinstance(order, Drain):
            self._drain()
        elif isinstance(order, Resume):
            self.draining = trio.Event()
        elif isinstance(order, Promote):
            self.name = order.name
            name_process(self.name)
            setup_logs(self.name, self.boot.incarnation, self.settings.server.log_level)
            self.promoted.set()
        elif isinstance(order, Stop):
            self.grace_s = order.grace_s
            self.replaced = order.replaced
            self._finishing.deadline = trio.current_time() + order.grace_s
            self._drain()
            self.stopping.set()

    def _drain(self) -> None:
        self.draining.set()
        if self.on_draining is not None:
            self.on_draining()

    async def _beat(self) -> None:
        assert self._control is not None
        every = self.boot.beat_every_s
        due = trio.current_time()
        with MemoryGauge() as memory:
            while True:
                lag = max(0.0, trio.current_time() - due)
                self._control.post(
                    Beat(
                        loop_lag_s=lag,
                        open_calls=self.open_calls + self.own_work(),
                        rss_bytes=memory.read(),
                        calls_total=self.calls_total,
                        errors_total=self.errors_total,
                    )
                )
                due = trio.current_time() + every
                await trio.sleep_until(due)

    async def finish_calls(self) -> None:
        """Wait until no call from others is open, for as long as the root allows; it may allow less later on.

        Then have the callers make no more, so that none is lost that was on its way.
        """
        self._finishing = trio.CancelScope(deadline=trio.current_time() + self.grace_s)
        with self._finishing:
            await self._until_no_calls()
            with trio.move_on_after(_LEAVE_S):  # a caller that hangs is not waited for
                async with trio.open_nursery() as nursery:
                    for channel in self._channels:
                        nursery.start_soon(channel.leave)
            await self._until_no_calls()

    async def _until_no_calls(self) -> None:
        while self.open_calls:
            await self._call_ended.wait()
            self._call_ended = trio.Event()


@asynccontextmanager
async def open_actor(boot: Boot) -> AsyncGenerator[Actor, None]:
    """Set logging up, connect to the root, and end in order: finish the calls that are open, then stop everything."""
    settings = msgspec.json.decode(boot.settings, type=Settings)
    name_process(boot.actor)
    setup_logs(boot.actor, boot.incarnation, settings.server.log_level)
    async with trio.open_nursery() as nursery:
        actor = Actor(boot, settings, nursery)
        await actor.connect_root()
        yield actor
        await actor.finish_calls()
        nursery.cancel_scope.cancel()


async def wait_any(*events: trio.Event) -> None:
    """Until one of these is set."""
    async with trio.open_nursery() as nursery:

        async def wait(event: trio.Event) -> None:
            await event.wait()
            nursery.cancel_scope.cancel()

        for event in events:
            nursery.start_soon(wait, event)


def name_process(name: str) -> None:
    """Let `ps -o comm` and `top` tell the actors apart. From the main thread; the kernel keeps 15 bytes."""
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(name.removeprefix("tools."))
