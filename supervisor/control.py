# SPDX-License-Identifier: AGPL-3.0-or-later
"""The control socket: each actor connects once, proves its token, then tells ready and beats and gets orders."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import msgspec
import trio

from actors.channel import Channel, ChannelClosedError, ChannelLimits
from actors.errors import MCPServerError
from actors.listening import accept as accept_connection
from actors.messages import PROTOCOL_VERSION, Beat, ControlMessage, Directory, Hello, Marks, Ready, Survived
from supervisor.lives import Life, Lives
from supervisor.rundir import CONTROL_SOCKET

_decode = msgspec.msgpack.Decoder(ControlMessage).decode
_LIMITS = ChannelLimits(max_frame_bytes=1024 * 1024, max_calls_at_once=16, write_timeout_s=10.0)
_DEATH_SHOWS_WITHIN_S = 0.1

Report = Callable[..., None]
"""Called as `report(level, event, **fields)`."""


async def open_unix_listener(path: Path) -> trio.SocketListener:
    """A listening Unix socket that only this user can reach (its folder is private, and so is it)."""
    # Not trio's own bind, which uses a worker thread: a mock clock would run on meanwhile.
    await trio.lowlevel.checkpoint()
    return trio.SocketListener(trio.socket.from_stdlib_socket(_bind_private(path)))


def _bind_private(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(str(path))
    path.chmod(0o600)
    sock.listen(128)
    return sock


class ControlServer:
    """Serves the control socket. `on_ready(life, message)` hears of each life that says ready, once; `on_survived` of
    calls that were marked as suspect and answered."""

    def __init__(
        self,
        runtime_dir: Path,
        lives: Lives,
        *,
        directory: Callable[[], Directory],
        marks: Callable[[], Marks],
        on_ready: Callable[[Life, Ready], None],
        on_survived: Callable[[Survived], None],
        report: Report,
    ) -> None:
        self._path = runtime_dir / CONTROL_SOCKET
        self._lives = lives
        self._directory = directory
        self._marks = marks
        self._on_ready = on_ready
        self._on_survived = on_survived
        self._report = report

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        listener = await open_unix_listener(self._path)
        async with listener, trio.open_nursery() as connections:
            task_status.started()
            while True:
                stream = await accept_connection(listener)
                connections.start_soon(self._carry, stream.socket)

    async def _carry(self, sock: trio.socket.SocketType) -> None:
        life: Life | None = None

        def accept(hello: Hello) -> None:
            nonlocal life
            life = self._lives.by_token(hello.actor, hello.incarnation, hello.token)
            if life is None or life.control is not None:
                life = None
                raise MCPServerError("it proved no life that was started here")
            life.control = channel
            channel.post(self._directory())
            channel.post(self._marks())
            if life.stop is not None:
                channel.post(life.stop)

        def on_event(body: msgspec.Raw) -> None:
            assert life is not None
            try:
                message = _decode(body)
            except msgspec.DecodeError as error:
                channel.close(f"a bad message ({error})")
            else:
                self._told(life, message)

        channel = Channel(sock, me=Hello(PROTOCOL_VERSION, "root", 0), accept=accept, on_event=on_event, limits=_LIMITS)
        try:
            with sock:
                reason = await channel.run()
        except ChannelClosedError as error:
            self._report("WARNING", "control connection refused", reason=str(error))
            return
        if life is not None and life.stop is None:
            # A process that no longer hears the root can't be supervised: the same as death. One that is dead already
            # is given the time to say so, for its own reason tells more.
            with trio.move_on_after(_DEATH_SHOWS_WITHIN_S):
                await life.ended.wait()
            if not life.ended.is_set():
                life.kill(f"control connection lost: {reason}")

    def _told(self, life: Life, message: ControlMessage) -> None:
        if isinstance(message, Beat):
            life.beat = message
            life.last_beat_at = trio.current_time()
        elif isinstance(message, Survived):
            self._on_survived(message)
        elif isinstance(message, Ready) and life.ready_at is None:
            life.ready_at = life.last_beat_at = trio.current_time()
            life.socket = message.socket
            life.note = message.note
            self._on_ready(life, message)

    def push_directory(self) -> None:
        """Send the directory to every connected actor."""
        directory = self._directory()
        for life in self._lives:
            if life.control is not None:
                life.control.post(directory)
