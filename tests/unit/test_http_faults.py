# SPDX-License-Identifier: AGPL-3.0-or-later
"""Faults of the HTTP stack below us, each shown on the stack as it comes and closed in ours."""

from __future__ import annotations

import contextlib
import logging
from functools import partial

import h11
import pytest
import trio
import trio.testing
from hpack import Encoder
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hyperframe.frame import HeadersFrame, SettingsFrame
from quart_trio import QuartTrio

from actors.settings import ServerSettings
from gateway import hardening, http_server
from gateway.app import create_app
from gateway.hardening import GuardedServer, HandedStream, HardenedH11, StrictConnection, withhold_disconnect
from gateway.http_server import StartupError, make_config
from gateway.mcp.calls import Outbox
from gateway.metrics import Metrics
from gateway.testing import EchoProtocol, RawClient, gateway, post
from gateway.types import Stream

HOST = b"Host: 127.0.0.1\r\n"
SETTINGS = ServerSettings(max_body_bytes=1_000_000)


class NoBackend:
    class catalogue:  # noqa: N801
        tools = ()
        get = staticmethod(lambda name: None)


def our_app(protocol):
    return create_app(protocol, NoBackend(), SETTINGS, Metrics(), lambda: (True, [], 1))


async def bare(scope, receive, send):
    """An ASGI application that never reads: it waits a moment, then answers."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await trio.sleep(1)
        return
    await trio.sleep(1)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok", "more_body": False})


def stock_config():
    config = Config()
    config.errorlog = logging.getLogger("test.hypercorn")
    return config


def stock(app, stream, config=None):
    """hypercorn as it comes."""
    return TCPServer(ASGIWrapper(app), config or stock_config(), WorkerContext(None), {}, stream)


def ours(app, stream, config=None):
    sock = stream.socket
    server = GuardedServer(
        ASGIWrapper(withhold_disconnect(app)), config or make_config(), WorkerContext(None), {}, None
    )
    server.stream = HandedStream(sock, b"", SETTINGS.write_timeout_s)
    server.settings = SETTINGS
    server.errors = 0

    def count():
        server.errors += 1

    server.on_error = count
    return server


async def pair():
    """Both ends of a TCP connection."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        client = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        return RawClient(client), await listener.accept()


async def survives(make, data, app=bare):
    """Whether the process would outlive a client that sends this and leaves."""
    client, stream = await pair()
    async with client.stream, stream:
        await client.send(data)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(make(app, stream).run)
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
        except ExceptionGroup:
            return False
    return True


def http2(path):
    fields = [(":method", "GET"), (":path", path), (":scheme", "http"), (":authority", "x")]
    headers = HeadersFrame(1, data=Encoder().encode(fields), flags=["END_HEADERS", "END_STREAM"])
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    return preface + SettingsFrame(0).serialize() + headers.serialize()


KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
DEADLY = {
    "a byte after the WebSocket upgrade": b"GET /x HTTP/1.1\r\n"
    + HOST
    + b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    + KEY
    + b"\r\nx",
    "h2c with broken settings": b"GET /x HTTP/1.1\r\n"
    + HOST
    + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: A\r\n\r\n",
    "an HTTP/2 path outside ASCII": http2(b"/\xff"),
}


@pytest.mark.parametrize("case", DEADLY)
async def test_one_connection_no_longer_ends_the_process(case):
    assert not await survives(stock, DEADLY[case]), "hypercorn has closed this fault: the remedy may go"
    assert await survives(ours, DEADLY[case])


@pytest.mark.parametrize("case", [*DEADLY, "CONNECT"])
async def test_the_gateway_serves_on_after_it(case):
    protocol = EchoProtocol()
    data = DEADLY.get(case, b"CONNECT example.org:443 HTTP/1.1\r\n" + HOST + b"\r\n")
    with trio.fail_after(5):
        async with gateway(protocol, partial(our_app, protocol)) as server:
            async with server.connect() as client:
                await client.send(data)
                assert (await client.response()).status >= 400
            async with server.connect() as client:
                await client.send(post(b"{}"))
                assert (await client.response()).status == 200
        assert server.metrics.connection_errors == 0


async def test_an_error_inside_a_connection_ends_that_connection_only(monkeypatch, caplog):
    async def broken(self, event):
        raise KeyError("as if")

    monkeypatch.setattr(HardenedH11, "handle", broken)
    client, stream = await pair()
    with trio.fail_after(2):
        async with client.stream:
            await client.send(b"x")
            server = ours(bare, stream)
            await server.run()
            assert await client.at_end()
    assert server.errors == 1
    assert "only that connection" in caplog.text


LENIENT = {
    "bare LF": b"GET / HTTP/1.1\nHost: x\n\n",
    "folded header": b"GET / HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n",
    "list of lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2, 2\r\n\r\n",
    "control character": b"GET / HTTP/1.1\r\nHost: x\r\nX: a\x01b\r\n\r\n",
    "header block over the limit, at once": b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 40_000 + b"\r\n\r\n",
    "body over the limit": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000001\r\n\r\n",
}


@pytest.mark.parametrize("case", LENIENT)
def test_what_h11_takes_is_refused(case):
    lenient = h11.Connection(h11.SERVER, max_incomplete_event_size=16 * 1024)
    lenient.receive_data(LENIENT[case])
    assert isinstance(lenient.next_event(), h11.Request)
    strict = StrictConnection(SETTINGS)
    strict.receive_data(LENIENT[case])
    with pytest.raises(h11.RemoteProtocolError):
        strict.next_event()


async def _answered_then_idle(make, app):
    """Seconds until an idle connection is closed after an answer; None for never."""
    client, stream = await pair()
    async with client.stream, stream, trio.open_nursery() as nursery:
        nursery.start_soon(make(app, stream).run)
        await client.send(b"GET /x HTTP/1.1\r\n" + HOST + b"\r\n")
        await client.response()
        began = trio.current_time()
        with trio.move_on_after(600):
            await client.at_end()
            return trio.current_time() - began
        nursery.cancel_scope.cancel()
    return None


def quart_app():
    app = QuartTrio("test")

    @app.get("/x")
    async def x():
        return "x"

    return app


async def test_an_idle_connection_is_closed_after_a_quart_answer(autojump_clock):
    assert await _answered_then_idle(stock, quart_app()) is None, "the fault is gone: the remedy may go"
    assert await _answered_then_idle(stock, withhold_disconnect(quart_app())) == pytest.approx(5, abs=0.5)
    assert await _answered_then_idle(ours, quart_app()) == pytest.approx(75, abs=0.5)


async def _unread_body(make, config=None):
    """Whether a connection ends when the application answers without reading a body of many pieces."""
    client, stream = await pair()
    ended = trio.Event()

    async def run():
        await make(bare, stream, config).run()
        ended.set()

    async with client.stream, stream, trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await client.send(b"POST /x HTTP/1.1\r\n" + HOST + b"Content-Length: 1000\r\n\r\n")
        for _ in range(20):
            await client.send(b"x" * 10)
            await trio.testing.wait_all_tasks_blocked()
        await client.response()
        with trio.move_on_after(600):
            await ended.wait()
        nursery.cancel_scope.cancel()
    return ended.is_set()


async def test_an_answer_without_reading_the_body_leaks_nothing(autojump_clock):
    assert not await _unread_body(stock), "the fault is gone: the remedy may go"
    assert await _unread_body(ours)


@pytest.mark.parametrize("left_at", ["http.response.start", "http.response.body"])
async def test_a_stream_is_closed_when_its_client_leaves_before_its_first_frame(left_at):
    left = trio.Event()
    outbox = Outbox()

    class Endless:
        def check_host_origin(self, _request):
            return None

        async def handle(self, _request):
            return Stream(200, [("content-type", "text/event-stream")], outbox)

    async def receive():
        if not read.is_set():
            read.set()
            return {"type": "http.request", "body": b"", "more_body": False}
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        if message["type"] == left_at:
            left.set()
            await trio.sleep_forever()

    read = trio.Event()
    outbox.put(b"data: {}\n\n")
    scope = {
        "type": "http", "asgi": {}, "http_version": "1.1", "method": "GET", "scheme": "http", "path": "/mcp",
        "raw_path": b"/mcp", "query_string": b"", "root_path": "", "headers": [(b"host", b"127.0.0.1")],
    }  # fmt: skip
    with trio.fail_after(5):
        await our_app(Endless())(scope, receive, send)
    outbox.put(b"more")
    assert outbox.empty


async def test_a_client_that_never_reads_does_not_hold_a_send(autojump_clock):
    client, stream = await pair()
    async with client.stream, stream:
        with trio.move_on_after(600) as patience:
            await stream.send_all(b"x" * 2**25)
        assert patience.cancelled_caught
    client, stream = await pair()
    async with client.stream, stream:
        began = trio.current_time()
        with pytest.raises(trio.BrokenResourceError):
            await HandedStream(stream.socket, b"", 5).send_all(b"x" * 2**25)
        assert trio.current_time() - began < 10


async def test_a_stream_outlives_quarts_response_timeout(autojump_clock):
    protocol = EchoProtocol()
    async with gateway(protocol, partial(our_app, protocol)) as server, server.connect() as client:
        await client.send(post(b'"endless"', "X-A: 1", "X-A: 2"))
        await client.read_until(b"data: 0")
        await trio.sleep(200)
        assert not protocol.closed.is_set()


async def test_a_handed_call_is_cancelled_when_the_gateway_ends(autojump_clock):
    protocol = EchoProtocol()
    async with contextlib.AsyncExitStack() as stack:
        async with gateway(protocol, partial(our_app, protocol)) as server:
            client = await stack.enter_async_context(server.connect())
            await client.send(post(b'"flood"', "X-A: 1", "X-A: 2"))
            await client.read_until(b"\r\n\r\n")
            await trio.testing.wait_all_tasks_blocked(0.01)  # the server is in a shielded send of the body
            began = trio.current_time()
        assert trio.current_time() - began < 1


async def _failing_lifespan(scope, receive, send):
    raise RuntimeError("no start")


def _failing_factory():
    raise RuntimeError("no application")


def _failing_start():
    app = quart_app()

    @app.before_serving
    async def fail():
        raise RuntimeError("no start")

    return app


def _failing_nursery():
    app = quart_app()

    async def fail():
        raise RuntimeError("a task failed")

    @app.before_serving
    async def start():
        app.nursery.start_soon(fail)

    return app


def _leaves(error):
    """The exceptions in a group, at any depth."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for part in error.exceptions for leaf in _leaves(part)]
    return [error]


UNFIT = {
    "the lifespan fails": (lambda: _failing_lifespan, StartupError, "failed to start"),
    "it can't be built": (_failing_factory, RuntimeError, "no application"),
    "its start fails": (_failing_start, StartupError, "failed to start"),
    "its nursery fails": (_failing_nursery, StartupError, "lifespan ended"),
}


@pytest.mark.parametrize("case", UNFIT)
async def test_an_application_that_can_not_serve_is_an_error(case):
    make_app, kind, message = UNFIT[case]
    with pytest.raises(ExceptionGroup) as caught, trio.fail_after(2):
        async with gateway(EchoProtocol(), make_app, wait_ready=False):
            await trio.sleep_forever()
    assert any(isinstance(error, kind) and message in str(error) for error in _leaves(caught.value))


def test_another_hypercorn_is_refused(monkeypatch):
    monkeypatch.setattr(http_server, "HYPERCORN", "0.17.0")
    with pytest.raises(StartupError, match=r"0\.17\.0 is needed"):
        make_config()


def test_every_remedy_is_named_in_the_contract():
    for name in ("run", "_read_data"):
        assert f"GuardedServer.{name}" in hardening.__doc__
