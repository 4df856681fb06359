# SPDX-License-Identifier: AGPL-3.0-or-later
"""Helpers for tests of HTTP: a protocol that says what it was asked, a gateway in this process, and a raw client."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

import msgspec
import trio

from actors.settings import ServerSettings
from gateway.fast_lane import AppFactory, FastLane, serve
from gateway.metrics import Metrics
from gateway.types import Answer, Request, Stream

JSON = ("content-type", "application/json")


class EchoProtocol:
    """Answers with what it was asked: `{"method", "length", "repeated"}`. A body that names a deed does that instead.

    `"wait"` waits for `release`, or until it is cancelled (`cancelled` is set then), `"stream"` streams three events,
    `"endless"` streams one event and waits, `"fail"` raises, `"flood"` answers with 32 MiB, `"header"` sends a header
    that may not be sent.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.started = trio.Event()
        self.release = trio.Event()
        self.cancelled = trio.Event()
        self.closed = trio.Event()

    def check_host_origin(self, request: Request) -> Answer | None:
        """Only loopback names."""
        host = request.headers.get("host", "").rsplit(":", 1)[0]
        if host not in {"127.0.0.1", "localhost"}:
            return Answer(421, [JSON], b'{"refused":"host"}')
        if "evil" in request.headers.get("origin", ""):
            return Answer(403, [JSON], b'{"refused":"origin"}')
        return None

    async def handle(self, request: Request) -> Answer | Stream:
        """Answer one request."""
        refusal = self.check_host_origin(request)
        if refusal is not None:
            return refusal
        self.requests.append(request)
        if request.method != "POST":
            return Answer(405, [JSON, ("allow", "POST")], b"{}")
        deed = request.body.strip(b'"').decode("latin1")
        if deed == "wait":
            self.started.set()
            try:
                await self.release.wait()
            except trio.Cancelled:
                self.cancelled.set()
                raise
        if deed in {"stream", "endless"}:
            return Stream(200, [("content-type", "text/event-stream")], self._events(endless=deed == "endless"))
        if deed == "fail":
            raise RuntimeError("as asked")
        if deed == "flood":
            return Answer(200, [JSON], b"x" * 2**25)
        if deed == "header":
            return Answer(200, [JSON, ("x-bad", "a\r\nb: c")], b"")
        about = {"method": request.method, "length": len(request.body), "repeated": sorted(request.repeated)}
        return Answer(200, [JSON], msgspec.json.encode(about))

    async def _events(self, *, endless: bool) -> AsyncGenerator[bytes, None]:
        try:
            for number in range(1 if endless else 3):
                yield b"data: %d\n\n" % number
            if endless:
                self.started.set()
                await trio.sleep_forever()
        finally:
            self.closed.set()


class Response(msgspec.Struct, frozen=True):
    """What a server sent."""

    status: int
    headers: dict[str, str]
    body: bytes


class RawClient:
    """One connection, to send any bytes on and read responses from."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._data = b""

    async def send(self, *parts: bytes) -> None:
        """Send each part in a segment of its own."""
        for part in parts:
            await self.stream.send_all(part)

    async def read_until(self, mark: bytes) -> bytes:
        """What comes up to and with `mark`. Raises EOFError at the end."""
        while mark not in self._data:
            data = await self.stream.receive_some()
            if not data:
                raise EOFError(self._data)
            self._data += bytes(data)
        found, _, self._data = self._data.partition(mark)
        return found + mark

    async def _read(self, count: int) -> bytes:
        while len(self._data) < count:
            data = await self.stream.receive_some()
            if not data:
                raise EOFError(self._data)
            self._data += bytes(data)
        found, self._data = self._data[:count], self._data[count:]
        return found

    async def response(self) -> Response:
        """The next response, complete."""
        lines = (await self.read_until(b"\r\n\r\n")).decode("ascii").split("\r\n")
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)
        }
        if headers.get("transfer-encoding") == "chunked":
            body = b"".join([chunk async for chunk in self.chunks()])
        else:
            body = await self._read(int(headers.get("content-length", "0")))
        return Response(int(lines[0].split(" ")[1]), headers, body)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The chunks of a chunked body, to its end."""
        while True:
            size = int(await self.read_until(b"\r\n"), 16)
            chunk = await self._read(size + 2)
            if size == 0:
                return
            yield chunk[:-2]

    async def at_end(self) -> bool:
        """Wait for the server's end of the connection. Gives False when it sends something instead."""
        try:
            return not self._data and not await self.stream.receive_some()
        except trio.BrokenResourceError:
            return True


def post(body: bytes, *headers: str, target: str = "/mcp") -> bytes:
    """A `POST` request with a Host, a Content-Length and further headers."""
    lines = "".join(f"{line}\r\n" for line in headers)
    head = f"POST {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}Content-Length: {len(body)}\r\n\r\n"
    return head.encode("latin1") + body


class Harness:
    """A gateway on a loopback socket of this process."""

    def __init__(self, lane: FastLane, port: int, metrics: Metrics) -> None:
        self.lane = lane
        self.port = port
        self.metrics = metrics

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[RawClient]:
        """A client of it."""
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        async with stream:
            yield RawClient(stream)


@contextlib.asynccontextmanager
async def gateway(
    protocol: EchoProtocol,
    make_app: AppFactory,
    settings: ServerSettings | None = None,
    *,
    run: Callable[..., Awaitable[None]] = serve,
    wait_ready: bool = True,
    limit_s: float = 1000.0,
) -> AsyncIterator[Harness]:
    """Run a gateway; with `wait_ready` also its way through hypercorn is up. Raises TooSlowError after `limit_s`."""
    listener = socket.create_server(("127.0.0.1", 0))
    metrics = Metrics()
    with trio.fail_after(limit_s):
        async with trio.open_nursery() as nursery:
            lane: FastLane = await nursery.start(_start, run, listener, protocol, make_app, settings, metrics)
            while wait_ready and not lane.handover_ready.is_set():
                # It is loaded in a thread: a clock that jumps when all tasks wait would not wait for that.
                await trio.lowlevel.checkpoint()
            yield Harness(lane, listener.getsockname()[1], metrics)
            nursery.cancel_scope.cancel()


async def _start(
    run: Callable[..., Awaitable[None]],
    listener: socket.socket,
    protocol: EchoProtocol,
    make_app: AppFactory,
    settings: ServerSettings | None,
    metrics: Metrics,
    task_status: trio.TaskStatus[FastLane],
) -> None:
    await run(listener, protocol, make_app, settings or ServerSettings(), metrics=metrics, task_status=task_status)
