# SPDX-License-Identifier: AGPL-3.0-or-later
"""One connection of the fast lane: read a plain request, have it answered, write the answer, again.

One task per connection. A second one, the watcher, reads while a call is older than a tick or a stream runs, to notice
that the client left; it keeps what it reads (pipelined requests) for the main task. The main task never waits for
reading while a watcher does.
"""

from __future__ import annotations

import contextlib
import logging
import math
import re
import socket
from typing import TYPE_CHECKING

import trio

from gateway import wire
from gateway.types import Answer, Request, Stream

if TYPE_CHECKING:
    from gateway.fast_lane import FastLane

RECV_BYTES = 65536
PIPELINE_BYTES = 4 * RECV_BYTES
"""What a watcher keeps. Of a client that sends more, it reads on after a read time-out, and drops what comes."""
LINGER_S = 1.0
"""After a refusal: time for the client to stop sending, so that it reads the refusal instead of a reset."""
CLOSE_S = 1.0
"""Time for the work behind a stream to stop."""
_PLAIN = b"POST /mcp HTTP/1.1\r\n"
_END = b"\r\n\r\n"
_ODD = frozenset({"transfer-encoding", "expect", "upgrade"})
_CONNECTION = re.compile("keep-alive|close", re.IGNORECASE)

_log = logging.getLogger(__name__)


class _GoneError(Exception):
    """The client left, or takes nothing."""


class Connection:
    """One accepted socket. `run` ends with the socket closed, whatever happens."""

    __slots__ = (
        "_early",
        "_head",
        "_head_bytes",
        "_lane",
        "_overrun",
        "_scope",
        "_sock",
        "_watch_done",
        "_watch_scope",
        "deadline",
        "expired",
        "idle",
        "peer",
        "started_tick",
    )

    def __init__(self, lane: FastLane, sock: socket.socket, peer: str) -> None:
        self._lane = lane
        self._sock = sock
        self.peer = peer
        self.deadline = math.inf
        """On trio's clock: when the ticker calls `expire`."""
        self.expired = False
        self.idle = False
        """Between two requests."""
        self.started_tick = 0
        self._scope = trio.CancelScope()
        self._early = b""
        self._overrun = False
        """What came during an answer was more than is kept, and was dropped: the connection ends with that answer."""
        self._head_bytes = b""
        self._head: wire.Head | None = None
        """The last plain head, and its bytes."""
        self._watch_scope: trio.CancelScope | None = None
        self._watch_done: trio.Event | None = None

    async def run(self) -> None:
        """Serve the connection to its end."""
        try:
            with self._scope:
                left = await self._plain_requests()
                if left:
                    await self._hand_over(left)
        except wire.HeadError as error:
            await self._refuse(error)
        except (_GoneError, OSError):
            pass
        finally:
            self._sock.close()
            self._lane.metrics.connections_closed += 1
            self._lane.forget(self)

    def expire(self) -> None:
        """Make a waiting read see the end of the file."""
        self.expired = True
        self.deadline = math.inf
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RD)

    def abort(self) -> None:
        """End reading and writing at once: shielded clean-up code then fails instead of waiting."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    # --- reading ---------------------------------------------------------------------------------------------------

    async def _receive(self) -> bytes:
        """The next bytes; b"" when there will be none."""
        while True:
            await trio.lowlevel.wait_readable(self._sock)
            try:
                return self._sock.recv(RECV_BYTES)
            except BlockingIOError:
                continue
            except OSError:
                return b""

    async def _plain_requests(self) -> bytes:
        """Answer plain requests. Gives the bytes of the first that is not plain, b"" when the connection is over."""
        lane = self._lane
        data = b""
        patience = lane.settings.read_timeout_s
        while True:
            if not data:
                self.deadline = lane.now + patience
                self.idle = True
                data = await self._receive()
                self.idle = False
                if not data:
                    return b""
            end = data.find(_END)
            if end < 0:
                data = await self._rest_of_head(data)
                if not data:
                    return b""
                end = data.find(_END)
            self.deadline = math.inf
            head = self._plain_head(data, end + 4)
            if head is None:
                return data
            body, data = await self._body(data, end + 4, wire.check_length(head.headers, lane.settings.max_body_bytes))
            keep = await self._answer(Request(method="POST", headers=head.headers, body=body, peer=self.peer))
            if not keep:
                return b""
            data += self._early
            self._early = b""
            if data:
                await trio.lowlevel.checkpoint()  # a client that pipelines must not keep the loop to itself
            patience = lane.settings.idle_timeout_s

    async def _rest_of_head(self, data: bytes) -> bytes:
        """Read on until the head is complete: all of it within one read time-out."""
        settings = self._lane.settings
        self.deadline = self._lane.now + settings.read_timeout_s
        while not wire.check_head(data, settings.max_header_bytes):
            more = await self._receive()
            if not more:
                return b""
            data += more
        return data

    def _plain_head(self, data: bytes, size: int) -> wire.Head | None:
        """The head if its request is plain. Raises `HeadError`."""
        if size > self._lane.settings.max_header_bytes:
            reason = f"the request's head is larger than {self._lane.settings.max_header_bytes} bytes"
            raise wire.HeadError(431, reason, to_head=wire.is_head(data))
        if not data.startswith(_PLAIN):
            return None
        # Most clients send the same head again and again.
        if size == len(self._head_bytes) and data.startswith(self._head_bytes):
            return self._head
        head = wire.parse_head(data[:size])
        headers = head.headers
        if head.repeated or "host" not in headers or "content-length" not in headers or not _ODD.isdisjoint(headers):
            return None
        if "connection" in headers and not _CONNECTION.fullmatch(headers["connection"]):
            return None
        self._head_bytes, self._head = data[:size], head
        return head

    async def _body(self, data: bytes, start: int, length: int) -> tuple[bytes, bytes]:
        """The body and what came after it. Each piece has the read time-out."""
        end = start + length
        if len(data) >= end:
            return data[start:end], data[end:]
        body = bytearray(data[start:])
        while len(body) < length:
            self.deadline = self._lane.now + self._lane.settings.read_timeout_s
            more = await self._receive()
            if not more:
                if self.expired:
                    raise wire.HeadError(408, "the body did not arrive in time")
                raise _GoneError
            body += more
        self.deadline = math.inf
        return bytes(body[:length]), bytes(body[length:])

    # --- answering -------------------------------------------------------------------------------------------------

    async def _answer(self, request: Request) -> bool:
        """Have one request answered. Gives whether the connection goes on."""
        lane = self._lane
        self.started_tick = lane.tick
        lane.busy.add(self)
        try:
            answer = await self._ask(request)
            close = lane.draining or request.headers.get("connection", "").lower() == "close"
            if isinstance(answer, Stream):
                await self._send_stream(answer, close=close)
            else:
                await self._send(wire.encode_answer(answer, close=close))
        finally:
            lane.busy.discard(self)
            if self._watch_scope is not None:
                await self._stop_watching()
        lane.metrics.count_request("fast", answer.status)
        return not (close or self._overrun)

    async def _ask(self, request: Request) -> Answer | Stream:
        """The protocol's answer, fit to be sent."""
        try:
            answer = await self._lane.protocol.handle(request)
            wire.check_headers(answer.headers)
        except Exception:  # noqa: BLE001 - one request's fault must not end the gateway
            _log.exception("a request failed")
            return wire.error_answer(500, "INTERNAL", "internal error; the server's log has the details")
        return answer

    async def _send_stream(self, stream: Stream, *, close: bool) -> None:
        """Send a stream's frames as chunks. After the head an error can only cut the response short."""
        self.watch()
        try:
            await self._send(wire.encode_stream_head(stream.status, stream.headers, close=close))
            try:
                async for frame in stream.events:
                    if frame:
                        await self._send(wire.encode_chunk(frame))
            except (_GoneError, OSError):
                raise
            except Exception as error:
                _log.exception("a stream failed")
                raise _GoneError from error
            await self._send(b"0\r\n\r\n")
        finally:
            with trio.move_on_after(CLOSE_S, shield=True):
                await stream.events.aclose()

    async def _send(self, data: bytes) -> None:
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        if sent == len(data):
            return
        rest = memoryview(data)[sent:]
        while rest:
            with trio.move_on_after(self._lane.settings.write_timeout_s) as patience:
                await trio.lowlevel.wait_writable(self._sock)
            if patience.cancelled_caught:
                raise _GoneError
            with contextlib.suppress(BlockingIOError):
                rest = rest[self._sock.send(rest) :]

    async def _refuse(self, error: wire.HeadError) -> None:
        """Answer a request that is not worth a call, and end the connection so that the client reads the answer."""
        self._lane.metrics.count_request("fast", error.status)
        with contextlib.suppress(_GoneError, OSError), trio.move_on_after(LINGER_S):
            refusal = wire.refusal(error.status, str(error))
            await self._send(wire.encode_answer(refusal, close=True, to_head=error.to_head))
            self._sock.shutdown(socket.SHUT_WR)
            while not self.expired and await self._receive():
                pass

    # --- watching --------------------------------------------------------------------------------------------------

    def watch(self) -> None:
        """Read while the call runs, unless that is done already."""
        if self._watch_scope is None:
            self._watch_scope = trio.CancelScope()
            self._watch_done = trio.Event()
            self._lane.nursery.start_soon(self._watch, self._watch_scope, self._watch_done)

    async def _watch(self, scope: trio.CancelScope, done: trio.Event) -> None:
        try:
            with scope:
                while True:
                    if len(self._early) >= PIPELINE_BYTES and not self._overrun:
                        # Behind bytes that nobody reads, a client's leaving can't be seen.
                        await trio.sleep(self._lane.settings.read_timeout_s)
                        self._overrun = True
                    more = await self._receive()
                    if not more:
                        break
                    if not self._overrun:
                        self._early += more
                self._lane.metrics.clients_gone += 1
                self._scope.cancel()
        finally:
            done.set()

    async def _stop_watching(self) -> None:
        """End the watcher, so that the main task may read again."""
        scope, done = self._watch_scope, self._watch_done
        assert scope is not None
        assert done is not None
        scope.cancel()
        with trio.CancelScope(shield=True):  # it ends at its next step: nothing in it waits for others
            await done.wait()
        self._watch_scope = self._watch_done = None

    # --- handing over ----------------------------------------------------------------------------------------------

    async def _hand_over(self, data: bytes) -> None:
        """Give the connection, with what was read of it, to hypercorn."""
        lane = self._lane
        await lane.handover_ready.wait()
        lane.metrics.handovers += 1
        await lane.handover.take_over(self._sock, data)
