# SPDX-License-Identifier: AGPL-3.0-or-later
"""The fast lane itself: what it takes, when it starts, how it watches, how it stops."""

from __future__ import annotations

import socket
import threading
from functools import partial

import pytest
import trio
import trio.testing

from actors.settings import ServerSettings
from gateway import wire
from gateway.connection import PIPELINE_BYTES, RECV_BYTES
from gateway.testing import JSON, EchoProtocol, gateway, post
from gateway.types import Answer


async def ok_app(scope, receive, send):
    """An ASGI application that says which way it was reached."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
    body = b"handed"
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


@pytest.fixture
def protocol():
    return EchoProtocol()


@pytest.fixture
async def server(protocol):
    with trio.fail_after(5):
        async with gateway(protocol, lambda: ok_app) as harness:
            yield harness


PLAIN = {
    "as the official client sends it": post(b"{}", "Accept: application/json", "Content-Type: application/json"),
    "keep-alive said": post(b"{}", "Connection: keep-alive"),
    "names in odd case": post(b"{}").replace(b"Content-Length", b"cOnTeNt-LeNgTh"),
    "tabs around a value": post(b"{}", "X:\t a \t"),
}
ODD = {
    "GET": b"GET /mcp HTTP/1.1\r\nHost: x\r\n\r\n",
    "another path": post(b"{}", target="/mcp/"),
    "a query": post(b"{}", target="/mcp?a=b"),
    "absolute form": post(b"{}", target="http://127.0.0.1/mcp"),
    "HTTP/1.0": b"POST /mcp HTTP/1.0\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
    "chunked": b"POST /mcp HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "no length": b"POST /mcp HTTP/1.1\r\nHost: x\r\n\r\n",
    "upgrade": post(b"{}", "Upgrade: h2c", "Connection: upgrade"),
    "expect": post(b"{}", "Expect: 200-maybe"),
    "a header twice": post(b"{}", "X: 1", "x: 1"),
    "odd connection option": post(b"{}", "Connection: X-Hop"),
}


@pytest.mark.parametrize("case", PLAIN)
async def test_plain_requests_stay_in_the_lane(server, protocol, case):
    async with server.connect() as client:
        await client.send(PLAIN[case])
        assert (await client.response()).status == 200
    assert len(protocol.requests) == 1
    assert server.metrics.handovers == 0


@pytest.mark.parametrize("case", ODD)
async def test_all_else_is_handed_over_with_its_bytes(server, protocol, case):
    async with server.connect() as client:
        await client.send(post(b"{}") + ODD[case])
        assert b"POST" in (await client.response()).body
        assert (await client.response()).body == b"handed"
    assert len(protocol.requests) == 1
    assert server.metrics.handovers == 1


async def test_a_handed_connection_stays_with_hypercorn(server, protocol):
    async with server.connect() as client:
        await client.send(ODD["GET"] + post(b"{}"))
        assert [(await client.response()).body for _ in range(2)] == [b"handed", b"handed"]
    assert protocol.requests == []


async def test_the_request_is_what_was_sent(server, protocol):
    async with server.connect() as client:
        await client.send(post(b'{"a":1}', "Mcp-Name:  a b ", "Empty:"))
        await client.response()
    (request,) = protocol.requests
    assert request.method == "POST"
    assert request.body == b'{"a":1}'
    assert request.headers == {"host": "127.0.0.1", "mcp-name": "a b", "empty": "", "content-length": "7"}
    assert request.peer == "127.0.0.1"
    assert request.repeated == frozenset()


async def test_plain_requests_are_served_while_the_application_still_loads(protocol):
    loaded = threading.Event()

    def slow():
        assert loaded.wait(5)
        return ok_app

    with trio.fail_after(5):
        async with gateway(protocol, slow, wait_ready=False) as server, server.connect() as early:
            await early.send(ODD["GET"])
            async with server.connect() as client:
                await client.send(post(b"{}"))
                assert (await client.response()).status == 200
            assert not server.lane.handover_ready.is_set()
            loaded.set()
            assert (await early.response()).body == b"handed"


async def test_short_calls_get_no_watcher_and_long_ones_do(protocol, autojump_clock):
    async with gateway(protocol, lambda: ok_app) as server, server.connect() as client:
        await client.send(post(b'"wait"'))
        await protocol.started.wait()
        before = len(server.lane.nursery.child_tasks)
        await trio.sleep(0.2)
        assert len(server.lane.nursery.child_tasks) == before + 1


async def test_pipelined_bytes_read_by_the_watcher_are_not_lost(autojump_clock):
    class Slow(EchoProtocol):
        async def handle(self, request):
            await trio.sleep(0.3)
            return Answer(200, [JSON], request.body)

    protocol = Slow()
    async with gateway(protocol, lambda: ok_app) as server, server.connect() as client:
        await client.send(post(b"1"))
        for part in (post(b"2"), post(b"3")[:20], post(b"3")[20:]):
            await trio.sleep(0.1)
            await client.send(part)
        assert [(await client.response()).body for _ in range(3)] == [b"1", b"2", b"3"]


async def test_of_a_client_that_pipelines_without_end_little_is_kept(protocol, autojump_clock):
    async with gateway(protocol, lambda: ok_app) as server, server.connect() as client:
        await client.send(post(b'"wait"'))
        with trio.move_on_after(4) as patience:
            await client.send(b"x" * 2**25)
        assert patience.cancelled_caught, "it waits for a while"
        with trio.fail_after(20):
            await client.send(b"x" * 2**25)
        (connection,) = server.lane.connections
        assert len(connection._early) < PIPELINE_BYTES + RECV_BYTES


async def test_more_connections_than_allowed_wait_in_the_backlog(protocol, autojump_clock):
    async with (
        gateway(protocol, lambda: ok_app, ServerSettings(max_connections=1)) as server,
        server.connect() as first,
    ):
        await first.send(post(b"{}"))
        await first.response()
        async with server.connect() as second:
            await second.send(post(b"{}"))
            with trio.move_on_after(1) as waiting:
                await second.response()
            assert waiting.cancelled_caught
            await first.stream.aclose()
            assert (await second.response()).status == 200


async def test_drain_lets_a_running_call_finish_and_then_closes(autojump_clock):
    class Slow(EchoProtocol):
        async def handle(self, request):
            await trio.sleep(1)
            return Answer(200, [JSON], b"done")

    async with gateway(Slow(), lambda: ok_app) as server, server.connect() as client, trio.open_nursery() as nursery:
        await client.send(post(b"{}"))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(server.lane.drain, 10)
        response = await client.response()
        assert (response.body, response.headers["connection"]) == (b"done", "close")
        assert await client.at_end()


async def test_a_listener_can_be_given_as_a_file_descriptor(protocol):
    from gateway.fast_lane import serve
    from gateway.metrics import Metrics

    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    async with trio.open_nursery() as nursery:
        run = partial(serve, listener.detach(), protocol, lambda: ok_app, ServerSettings(), metrics=Metrics())
        await nursery.start(run)
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(post(b"{}"))
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 OK\r\n")
        nursery.cancel_scope.cancel()


async def test_counts_of_requests_and_connections(server):
    async with server.connect() as client:
        await client.send(post(b"{}") * 2)
        await client.response()
        await client.response()
    text = server.metrics.text().decode()
    assert 'mcp_http_requests_total{status="200",way="fast"} 2.0' in text
    assert "mcp_http_connections_total 1.0" in text


@pytest.mark.parametrize("value", ["a\r\nb", "a\nb", "é", "a\x00b", "a\tb"])
def test_a_header_value_that_would_split_an_answer_is_refused(value):
    with pytest.raises(ValueError, match="may not be sent"):
        wire.encode_answer(Answer(200, [("x", value)], b""))


@pytest.mark.parametrize("name", ["", "a b", "a:", "é", "a\r\n"])
def test_a_header_name_that_is_no_token_is_refused(name):
    with pytest.raises(ValueError, match="may not be sent"):
        wire.check_headers([(name, "x")])


def test_an_answer_is_one_piece_with_length_and_date():
    data = wire.encode_answer(Answer(202, [], b""), close=True)
    assert data.startswith(b"HTTP/1.1 202 Accepted\r\ndate: ")
    assert data.endswith(b" GMT\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
