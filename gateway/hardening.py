# SPDX-License-Identifier: AGPL-3.0-or-later
"""hypercorn's HTTP/1.1 side, made safe to face strangers. Pinned to hypercorn 0.18.0: the seams used are private to it.

Each remedy stands alone, so that a test can leave it out and show the fault:

* `GuardedServer.run`: an error inside one connection ends that connection, not the process.
* `HardenedH11._check_protocol`: no HTTP/2 in clear text, by upgrade or by preface.
* `HardenedH11._create_stream`: no WebSocket (an early byte after the upgrade crashed the process).
* `StrictConnection`: heads as strict as in the fast lane, and the limits on head and body, as they arrive.
* `GuardedServer._read_data`: time-outs for heads, bodies and idle connections; reading goes on while a pipelined
  request waits, so that a client's leaving is noticed; of one that sends without end, what is too much is dropped.
* `HandedStream.send_all`: a client that takes nothing is dropped.
* `withhold_disconnect`: hypercorn tells an application that its own answer's end is a disconnect; Quart then cancels
  hypercorn's clean-up half-way, and the connection is never closed.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import h11
import trio
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import EventWrapper
from hypercorn.typing import ConnectionState

from actors.settings import ServerSettings
from gateway import wire

_log = logging.getLogger(__name__)

_LINGER_S = 1.0
_QUEUED_CHUNKS = 4
"""Pieces of up to 64 KiB that are read ahead of a request that is being answered."""


class HandedStream:
    """A socket of the fast lane as the stream that hypercorn wants. The bytes read so far come first."""

    def __init__(self, sock: trio.socket.SocketType, data: bytes, write_timeout_s: float) -> None:
        self.socket = sock
        self._data = data
        self._write_timeout_s = write_timeout_s

    async def receive_some(self, max_bytes: int) -> bytes:
        """The next bytes; b"" at the end."""
        if self._data:
            data, self._data = self._data, b""
            await trio.lowlevel.checkpoint()
            return data
        try:
            return await self.socket.recv(max_bytes)
        except OSError as error:
            raise trio.BrokenResourceError from error

    async def send_all(self, data: bytes) -> None:
        """Send everything. Raises BrokenResourceError when the client takes nothing for the write time-out."""
        rest = memoryview(data)
        while rest:
            sent = 0
            with trio.move_on_after(self._write_timeout_s):
                try:
                    sent = await self.socket.send(rest)
                except OSError as error:
                    raise trio.BrokenResourceError from error
            if sent == 0:
                self.socket.close()
                raise trio.BrokenResourceError("the client takes nothing")
            rest = rest[sent:]

    async def send_eof(self) -> None:
        """Say that nothing more will be sent."""
        try:
            self.socket.shutdown(trio.socket.SHUT_WR)
        except OSError as error:
            raise trio.BrokenResourceError from error

    async def aclose(self) -> None:
        """Close the socket."""
        self.socket.close()
        await trio.lowlevel.checkpoint()


class StrictConnection(h11.Connection):
    """h11's server side with the fast lane's view of heads, and limits that hold however the bytes arrive."""

    def __init__(self, settings: ServerSettings) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=settings.max_header_bytes + 1024)
        self._settings = settings
        self._body_bytes = 0
        self.problem = ""
        """Why the connection is refused."""
        self.to_head = False
        """The request is a HEAD: a refusal may have no body."""

    def next_event(self) -> Any:  # noqa: ANN401 - as h11 has it
        """The next event. Raises `h11.RemoteProtocolError` with the status to answer."""
        try:
            if self.their_state is h11.IDLE and (data := self.trailing_data[0]):
                self.to_head = wire.is_head(data)
                wire.check_head(data, self._settings.max_header_bytes)
            event = super().next_event()
            if isinstance(event, h11.Request):
                headers = {name.decode("ascii"): value.decode("ascii") for name, value in event.headers}
                wire.check_length(headers, self._settings.max_body_bytes)
                self._body_bytes = 0
            elif isinstance(event, h11.Data):
                self._body_bytes += len(event.data)
                wire.check_length({"content-length": str(self._body_bytes)}, self._settings.max_body_bytes)
        except wire.HeadError as error:
            self.problem = str(error)
            raise h11.RemoteProtocolError(str(error), error_status_hint=error.status) from None
        except h11.RemoteProtocolError as error:
            self.problem = f"malformed request: {error}"
            raise
        return event


class _PauseEvent(EventWrapper):
    """hypercorn's `can_read`, which tells when somebody begins to wait for it."""

    def __init__(self, on_wait: Callable[[], None]) -> None:
        super().__init__()
        self._on_wait = on_wait
        self.waiting = False

    async def wait(self) -> None:
        self.waiting = True
        self._on_wait()
        try:
            await super().wait()
        finally:
            self.waiting = False


class HardenedH11(H11Protocol):
    """hypercorn's HTTP/1.1 protocol without its ways into other protocols, and with answers to those it refuses."""

    refused = False
    """A refusal was sent; the client may still be sending."""

    def harden(self, settings: ServerSettings, on_pause: Callable[[], None]) -> None:
        """Put the strict parser in. Called once, before the first byte."""
        self.connection = StrictConnection(settings)
        self.can_read: _PauseEvent = _PauseEvent(on_pause)

    async def _check_protocol(self, event: h11.Request) -> None:
        """Stay with HTTP/1.1, whatever the request proposes."""

    async def _create_stream(self, request: h11.Request) -> None:
        """Answer a proposal to upgrade as the plain request that it is besides (RFC 9110, 7.8)."""
        headers = [(name, value) for name, value in request.headers if name != b"upgrade"]
        plain = h11.Request(
            method=request.method, target=request.target, headers=headers, http_version=request.http_version
        )
        await super()._create_stream(plain)

    async def _send_error_response(self, status_code: int) -> None:
        """The refusal that the fast lane would send."""
        self.refused = True
        problem = self.connection.problem if isinstance(self.connection, StrictConnection) else ""
        answer = wire.refusal(status_code, problem or "the request was not understood")
        if isinstance(self.connection, StrictConnection) and self.connection.to_head:
            # h11 may not know that it is one; nothing comes after this on the connection.
            await self.send(RawData(data=wire.encode_answer(answer, close=True, to_head=True)))
            return
        headers = [(name.encode(), value.encode()) for name, value in answer.headers]
        headers += [(b"content-length", b"%d" % len(answer.body)), (b"connection", b"close")]
        headers += self.config.response_headers("h11")
        await self._send_h11_event(h11.Response(status_code=status_code, headers=headers))
        await self._send_h11_event(h11.Data(data=answer.body))
        await self._send_h11_event(h11.EndOfMessage())

    @property
    def waits_for(self) -> Literal["head", "body", ""]:
        """What of a request is incomplete, so that its sender is on the clock."""
        state = self.connection.their_state
        if state is h11.SEND_BODY:
            return "body"
        return "head" if state is h11.IDLE and self.connection.trailing_data[0] else ""

    async def time_out(self) -> None:
        """The rest of the request did not come: say so where an answer is still due."""
        if self.connection.their_state is h11.SEND_BODY and self.connection.our_state is h11.SEND_RESPONSE:
            if isinstance(self.connection, StrictConnection):
                self.connection.problem = "the body did not arrive in time"
            await self._send_error_response(408)


class GuardedServer(TCPServer):
    """One handed-over connection. `run` never raises but for cancellation."""

    settings: ServerSettings
    on_error: Callable[[], None]
    protocol: HardenedH11  # type: ignore[assignment] # stands where hypercorn's wrapper would switch protocols

    async def run(self) -> None:
        """Serve to the connection's end."""
        try:
            await self._run()
        except* Exception:  # noqa: BLE001 - whatever a stranger provokes ends his connection only
            self.on_error()
            _log.exception("a connection failed; only that connection was closed")

    async def _run(self) -> None:
        self._pumping = True
        self._lingering = False
        self._patience = trio.CancelScope()
        self._head_began = math.inf
        self._last_read = self._idle_since = trio.current_time()
        self._settled = trio.Event()
        try:
            client = _address(self.stream.socket.getpeername())
            server = _address(self.stream.socket.getsockname())
            async with TaskGroup() as group:
                self._task_group = group
                self.protocol = HardenedH11(
                    self.app,
                    self.config,
                    self.context,
                    group,
                    ConnectionState(self.state),
                    False,
                    client,
                    server,
                    self.protocol_send,
                )
                self.protocol.harden(self.settings, self._settle)
                await self._read_data()
        except OSError:
            pass
        finally:
            self._pumping = False
            with trio.CancelScope(shield=True):  # nothing in it waits
                await self._close()

    async def _read_data(self) -> None:
        """Read, and feed the protocol from a second task, until the client has left or was too slow."""
        give, take = trio.open_memory_channel[bytes](_QUEUED_CHUNKS)
        fed = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._feed, take, fed)
            with give:
                overrun = await self._pump(give)
            if overrun:
                await self._drain(fed)
            # Bytes that came before the end are heeded, unless they wait behind an answer nobody will read.
            while not fed.is_set() and not self.protocol.can_read.waiting:
                self._settled = trio.Event()
                await self._settled.wait()
            nursery.cancel_scope.cancel()
        await self.protocol.handle(Closed())

    async def _pump(self, give: trio.MemorySendChannel[bytes]) -> bool:
        """Read and queue. Returns whether the client sends more than is kept while it waits for an answer."""
        while True:
            with trio.CancelScope() as self._patience:
                self._rearm()
                try:
                    data = await self.stream.receive_some(2**16)
                except (trio.ClosedResourceError, trio.BrokenResourceError):
                    return False
            if self._patience.cancelled_caught:
                if not self._lingering:
                    await self.protocol.time_out()
                return False
            if not data:
                return False
            self._last_read = trio.current_time()
            if self._lingering:
                continue
            with trio.move_on_after(self.settings.read_timeout_s) as patience:
                await give.send(bytes(data))
            if patience.cancelled_caught:
                return True

    async def _drain(self, fed: trio.Event) -> None:
        """Drop what comes until the client has left, which can't be seen behind bytes that nobody reads, or until all
        that was kept is answered: the connection ends then."""
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                await fed.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(wait)
            with contextlib.suppress(trio.ClosedResourceError, trio.BrokenResourceError):
                more: bytes | bytearray | None = None
                while more != b"" and not self._over():
                    more = None
                    with trio.move_on_after(self.settings.read_timeout_s):
                        more = await self.stream.receive_some(2**16)
            nursery.cancel_scope.cancel()

    def _over(self) -> bool:
        """Whether nothing will be answered any more, whatever the client does."""
        return self._lingering or (self.protocol.stream is None and self.protocol.can_read.waiting)

    async def _feed(self, take: trio.MemoryReceiveChannel[bytes], fed: trio.Event) -> None:
        try:
            async for data in take:
                await self.protocol.handle(RawData(data))
                self._settle()
        finally:
            fed.set()
            self._settle()

    def _settle(self) -> None:
        """The protocol has done what it can with what it was given."""
        self._settled.set()
        self._rearm()

    async def protocol_send(self, event: Event) -> None:
        """As hypercorn's, but idleness moves a deadline: its idle task outlives connections and costs a third more."""
        if isinstance(event, Updated):
            self._idle_since = trio.current_time()
            self._rearm()
        else:
            await super().protocol_send(event)

    def close_if_idle(self) -> None:
        """Close if no request is open: the gateway drains."""
        if self.protocol.stream is None and not self.protocol.waits_for:
            self._patience.cancel()

    def _rearm(self) -> None:
        """Set the reader's deadline: one read time-out for the whole head and for each piece of a body."""
        waits_for = self.protocol.waits_for
        self._head_began = min(self._head_began, trio.current_time()) if waits_for == "head" else math.inf
        if self._lingering:
            deadline = self._linger_until
        elif waits_for == "head":
            deadline = self._head_began + self.settings.read_timeout_s
        elif waits_for == "body":
            deadline = self._last_read + self.settings.read_timeout_s
        elif self.protocol.stream is None:
            deadline = self._idle_since + self.settings.idle_timeout_s
        else:
            deadline = math.inf
        self._patience.deadline = deadline

    async def _close(self) -> None:
        """Close. After a refusal the reader goes on for a moment, so that the client reads it and not a reset."""
        if self._pumping and self.protocol.refused:
            if not self._lingering:
                self._lingering = True
                self._linger_until = trio.current_time() + _LINGER_S
                self._rearm()
                with contextlib.suppress(trio.BrokenResourceError):
                    await self.stream.send_eof()
            return
        await super()._close()


def _address(name: Any) -> tuple[str, int] | None:  # noqa: ANN401 - its form depends on the socket's family
    return (str(name[0]), int(name[1])) if isinstance(name, tuple) else None


Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
AsgiApp = Callable[[Any, Receive, Send], Awaitable[None]]


def withhold_disconnect(app: AsgiApp) -> AsgiApp:
    """An application that is not told of a disconnect once it has begun to send the last of its answer."""

    async def wrapped(scope: Any, receive: Receive, send: Send) -> None:  # noqa: ANN401
        answered = False

        async def receive_more() -> Any:  # noqa: ANN401
            message = await receive()
            if answered:
                await trio.sleep_forever()  # until the application itself ends
            return message

        async def send_more(message: Any) -> None:  # noqa: ANN401
            nonlocal answered
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                answered = True
            await send(message)

        if scope["type"] == "http":
            await app(scope, receive_more, send_more)
        else:
            await app(scope, receive, send)

    return wrapped
