# SPDX-License-Identifier: AGPL-3.0-or-later
"""One table of bad and odd input, run against both ways into the gateway: they give the same answers.

The way `handed` forces the hand-over to hypercorn with a first request that is not plain; the input under test comes on
the same connection.
"""

from __future__ import annotations

import json

import pytest
import trio
import trio.testing

from actors.settings import ServerSettings
from gateway.app import create_app
from gateway.metrics import Metrics
from gateway.testing import EchoProtocol, Harness, RawClient, gateway, post

HOST = b"Host: 127.0.0.1\r\n"
LINE = b"POST /mcp HTTP/1.1\r\n"
SETTINGS = ServerSettings(max_body_bytes=100_000)


class NoTools:
    tools = ()

    def get(self, name):
        return None


class NoBackend:
    catalogue = NoTools()


def app_for(protocol, settings=SETTINGS):
    return lambda: create_app(protocol, NoBackend(), settings, Metrics(), lambda: (True, [], 1))


@pytest.fixture
def protocol():
    return EchoProtocol()


@pytest.fixture(params=["fast", "handed"])
def way(request):
    return request.param


@pytest.fixture
async def server(protocol):
    with trio.fail_after(10):
        async with gateway(protocol, app_for(protocol), SETTINGS) as harness:
            yield harness


async def take_way(client: RawClient, way: str) -> None:
    if way == "handed":
        await client.send(b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n")
        assert (await client.response()).status == 200


REFUSED = {
    "not HTTP at all": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "bare LF": (b"POST /mcp HTTP/1.1\nHost: 127.0.0.1\nContent-Length: 2\n\n{}", 400),
    "bare LF in one header": (LINE + b"Host: 127.0.0.1\nContent-Length: 2\r\n\r\n{}", 400),
    "bare CR": (LINE + b"Host: 127.0.0.1\rX: y\r\nContent-Length: 2\r\n\r\n{}", 400),
    "folded header": (LINE + HOST + b"X: a\r\n b\r\nContent-Length: 2\r\n\r\n{}", 400),
    "blank before the colon": (LINE + HOST + b"X : a\r\nContent-Length: 2\r\n\r\n{}", 400),
    "empty header name": (LINE + HOST + b": a\r\nContent-Length: 2\r\n\r\n{}", 400),
    "header without colon": (LINE + HOST + b"nonsense\r\nContent-Length: 2\r\n\r\n{}", 400),
    "non-ASCII header name": (LINE + HOST + b"X\xff: a\r\nContent-Length: 2\r\n\r\n{}", 400),
    "non-ASCII header value": (LINE + HOST + b"X: \xff\r\nContent-Length: 2\r\n\r\n{}", 400),
    "control character in a value": (LINE + HOST + b"X: a\x01b\r\nContent-Length: 2\r\n\r\n{}", 400),
    "NUL in a value": (LINE + HOST + b"X: a\x00b\r\nContent-Length: 2\r\n\r\n{}", 400),
    "two Content-Lengths": (LINE + HOST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
    "the same Content-Length twice": (LINE + HOST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}", 400),
    "a list of Content-Lengths": (LINE + HOST + b"Content-Length: 2, 2\r\n\r\n{}", 400),
    "signed Content-Length": (LINE + HOST + b"Content-Length: +2\r\n\r\n{}", 400),
    "negative Content-Length": (LINE + HOST + b"Content-Length: -2\r\n\r\n{}", 400),
    "huge Content-Length": (LINE + HOST + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n{}", 400),
    "length and chunks": (LINE + HOST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "no Host": (LINE + b"Content-Length: 2\r\n\r\n{}", 400),
    "two Hosts": (LINE + HOST + b"Host: localhost\r\nContent-Length: 2\r\n\r\n{}", 400),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "future version": (b"POST /mcp HTTP/3.0\r\n" + HOST + b"\r\n", 505),
    "unknown method": (b"BREW /mcp HTTP/1.1\r\n" + HOST + b"\r\n", 501),
    "large header": (LINE + HOST + b"X: " + b"a" * 40_000 + b"\r\nContent-Length: 2\r\n\r\n{}", 431),
    "many headers": (LINE + HOST + b"".join(b"X-%d: a\r\n" % n for n in range(2000)) + b"\r\n", 431),
    "endless request line": (b"POST /" + b"a" * 40_000, 431),
    "body too large by its length": (post(b"x" * 5_000_000), 413),
    "body too large in chunks": (
        LINE
        + HOST
        + b"Transfer-Encoding: chunked\r\n\r\n"
        + (b"8000\r\n" + b"x" * 0x8000 + b"\r\n") * 10
        + b"0\r\n\r\n",
        413,
    ),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_refused_with_a_reason_and_the_connection_ends(server: Harness, protocol, way, case):
    data, status = REFUSED[case]
    async with server.connect() as client, trio.open_nursery() as nursery:
        await take_way(client, way)
        nursery.start_soon(client.send, data)
        response = await client.response()
        assert response.status == status
        assert response.headers["connection"] == "close"
        assert b'"status":"error"' in response.body
        assert await client.at_end()
    assert protocol.requests == []


ANSWERED = {
    "plain": (post(b"{}"), 200),
    "empty body": (post(b""), 200),
    "body at the limit": (post(b"x" * 100_000), 200),
    "chunked body": (LINE + HOST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 200),
    "header twice": (post(b"{}", "X-A: 1", "x-a: 2"), 200),
    "upgrade to h2c": (post(b"{}", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: ***"), 200),
    "bad Host": (LINE + b"Host: evil.example\r\nContent-Length: 2\r\n\r\n{}", 421),
    "bad Origin": (post(b"{}", "Origin: http://evil.example"), 403),
    "GET": (b"GET /mcp HTTP/1.1\r\n" + HOST + b"\r\n", 405),
    "DELETE": (b"DELETE /mcp HTTP/1.1\r\n" + HOST + b"\r\n", 405),
    "PUT": (b"PUT /mcp HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\n{}", 405),
    "the protocol fails": (post(b'"fail"'), 500),
    "a header that may not be sent": (post(b'"header"'), 500),
}


@pytest.mark.parametrize("case", ANSWERED)
async def test_answered_and_the_connection_goes_on(server: Harness, way, case):
    data, status = ANSWERED[case]
    async with server.connect() as client:
        await take_way(client, way)
        for _ in range(2):
            await client.send(data)
            response = await client.response()
            assert response.status == status
            assert "date" in response.headers
            assert response.headers["content-type"] == "application/json"


async def test_pipelined_requests_are_answered_in_order(server: Harness, way):
    async with server.connect() as client:
        await take_way(client, way)
        await client.send(b"".join(post(b"x" * n) for n in range(20)))
        bodies = [(await client.response()).body for _ in range(20)]
    assert bodies == [b'{"method":"POST","length":%d,"repeated":[]}' % n for n in range(20)]


@pytest.mark.parametrize(
    ("start", "status"),
    [
        (b"HEAD /tools HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 40_000 + b"\r\n\r\n", 431),
        (b"HEAD /tools HTTP/1.1\r\n" + HOST + b"nonsense\r\n\r\n", 400),
        (b"HEAD /tools HTTP/1.1\r\n" + HOST + b"Content-Length: 9999999\r\n\r\n", 413),
        (b"HEAD /tools HTTP/9.1\r\n" + HOST + b"\r\n", 505),
        (b"HEAD /tools HTTP/1.1\r\n\r\n", 400),
    ],
    ids=["too large", "malformed", "a body too large", "another version", "no Host"],
)
async def test_a_refused_head_request_has_no_body(server: Harness, way, start, status):
    async with server.connect() as client:
        await take_way(client, way)
        await client.send(start)
        head = await client.read_until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert b"connection: close" in head
        assert await client.at_end()


async def test_what_is_refused_after_a_head_request_has_its_body(server: Harness):
    async with server.connect() as client:
        await client.send(b"HEAD /healthz HTTP/1.1\r\n" + HOST + b"\r\n")
        assert (await client.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        await client.send(LINE + HOST + b"nonsense\r\n\r\n")
        refused = await client.response()
        assert (refused.status, json.loads(refused.body)["error"]["code"]) == (400, "BAD_REQUEST")


@pytest.mark.parametrize(
    ("start", "header", "status"),
    [
        (LINE, b"Origin: http://evil.example\r\n", 403),
        (b"POST /no HTTP/1.1\r\n", b"", 404),
        (b"POST /healthz HTTP/1.1\r\n", b"", 405),
    ],
    ids=["a foreign Origin", "no such path", "no such method there"],
)
async def test_what_is_refused_without_its_body_does_not_cost_the_connection(server: Harness, start, header, status):
    async with server.connect() as client:
        await client.send(start + HOST + header + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n")
        await trio.testing.wait_all_tasks_blocked(0.005)
        await client.send(b"1\r\n}\r\n0\r\n\r\n" + post(b"{}"))
        assert (await client.response()).status == status
        assert (await client.response()).status == 200


async def test_a_request_in_single_bytes_is_understood(server: Harness, way):
    async with server.connect() as client:
        await take_way(client, way)
        await client.send(*(bytes([byte]) for byte in post(b"{}")))
        assert (await client.response()).status == 200


async def test_a_truncated_body_never_reaches_the_protocol(server: Harness, protocol, way):
    async with server.connect() as client:
        await take_way(client, way)
        await client.send(post(b"x" * 1000)[:-1])
        await client.stream.send_eof()
        assert await client.at_end()
    assert protocol.requests == []


async def test_connection_close_is_obeyed(server: Harness, way):
    async with server.connect() as client:
        await take_way(client, way)
        await client.send(post(b"{}", "Connection: close"))
        response = await client.response()
        assert (response.status, response.headers["connection"]) == (200, "close")
        assert await client.at_end()


async def test_expect_continue_is_served(server: Harness, way):
    async with server.connect() as client:
        await take_way(client, way)
        head, _, _ = post(b"{}", "Expect: 100-continue").partition(b"{}")
        await client.send(head)
        assert (await client.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        await client.send(b"{}")
        assert (await client.response()).status == 200


async def test_expect_continue_for_too_large_a_body_is_refused_at_once(server: Harness, way):
    async with server.connect() as client:
        await take_way(client, way)
        await client.send(LINE + HOST + b"Expect: 100-continue\r\nContent-Length: 100001\r\n\r\n")
        assert (await client.response()).status == 413


async def test_events_are_streamed_and_the_connection_goes_on(server: Harness, protocol, way):
    async with server.connect() as client:
        await take_way(client, way)
        await client.send(post(b'"stream"'))
        response = await client.response()
        assert response.body == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"
        assert response.headers["cache-control"] == "no-cache"
        assert response.headers["x-accel-buffering"] == "no"
        assert response.headers["content-type"] == "text/event-stream"
        assert protocol.closed.is_set()
        await client.send(post(b"{}"))
        assert (await client.response()).status == 200


@pytest.mark.parametrize("deed", ["wait", "endless"])
async def test_a_client_that_leaves_cancels_its_call(server: Harness, protocol, way, deed):
    async with server.connect() as client:
        await take_way(client, way)
        await client.send(post(b'"%s"' % deed.encode()))
        await protocol.started.wait()
    await (protocol.cancelled if deed == "wait" else protocol.closed).wait()


async def test_a_client_that_pipelines_and_leaves_cancels_its_call(server: Harness, protocol, way):
    async with server.connect() as client:
        await take_way(client, way)
        await client.send(post(b'"wait"'), post(b"{}"))
        await protocol.started.wait()
    await protocol.cancelled.wait()


@pytest.mark.parametrize("deed", ["wait", "endless"])
async def test_a_client_that_pipelines_without_end_and_leaves_cancels_its_call(protocol, way, deed, autojump_clock):
    async with gateway(protocol, app_for(protocol)) as server:
        async with server.connect() as client:
            await take_way(client, way)
            await client.send(post(b'"%s"' % deed.encode()))
            await protocol.started.wait()
            with trio.move_on_after(5):
                await client.send(post(b"{}") * 500_000)
        with trio.fail_after(10):
            await (protocol.cancelled if deed == "wait" else protocol.closed).wait()
            while server.metrics.connections_closed < server.metrics.connections_opened:
                await trio.sleep(0.1)


async def test_what_was_kept_of_a_client_that_pipelines_without_end_is_answered(protocol, way, autojump_clock):
    async with gateway(protocol, app_for(protocol)) as server, server.connect() as client:
        await take_way(client, way)
        await client.send(post(b'"wait"'), post(b"{}"))
        await protocol.started.wait()
        with trio.move_on_after(20):
            await client.send(post(b"x" * 20_000) * 500)
        protocol.release.set()
        assert (await client.response()).status == 200
        while not await _ended_within(client, 1):
            pass


# Time-outs, on a clock that jumps as soon as everybody waits.

SLOW = {
    "no byte": (b"", None),
    "part of a head": (LINE, None),
    "part of a body": (post(b"x" * 100)[:-1], 408),
    "part of a chunked body": (LINE + HOST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", 408),
}


@pytest.mark.parametrize("case", SLOW)
async def test_a_slow_request_is_ended_by_the_read_timeout(protocol, way, case, autojump_clock):
    data, status = SLOW[case]
    settings = ServerSettings(read_timeout_s=5, idle_timeout_s=75)
    async with gateway(protocol, app_for(protocol), settings) as server, server.connect() as client:
        await take_way(client, way)
        began = trio.current_time()
        if data:
            await client.send(data)
        if status is not None:
            assert (await client.response()).status == status
        assert await client.at_end()
        patience = 75 if not data and way == "handed" else 5
        assert patience - 0.1 <= trio.current_time() - began <= patience + 1.5
    assert protocol.requests == []


async def test_a_head_that_drips_has_one_timeout(protocol, way, autojump_clock):
    async with gateway(protocol, app_for(protocol)) as server, server.connect() as client:
        await take_way(client, way)
        began = trio.current_time()
        with trio.move_on_after(60) as drip:
            for byte in post(b"{}", "X: " + "a" * 300):
                await client.send(bytes([byte]))
                if await _ended_within(client, 1):
                    break
        assert not drip.cancelled_caught
        assert trio.current_time() - began < 8


async def _ended_within(client: RawClient, seconds: float) -> bool:
    with trio.move_on_after(seconds):
        return await client.at_end()
    return False


async def test_an_idle_connection_is_closed(protocol, way, autojump_clock):
    settings = ServerSettings(idle_timeout_s=30)
    async with gateway(protocol, app_for(protocol), settings) as server, server.connect() as client:
        await take_way(client, way)
        await client.send(post(b"{}"))
        await client.response()
        began = trio.current_time()
        assert await client.at_end()
        assert 29 <= trio.current_time() - began <= 31.5


async def test_a_client_that_takes_nothing_is_dropped(protocol, way, autojump_clock):
    async with gateway(protocol, app_for(protocol)) as server, server.connect() as client:
        await take_way(client, way)
        await client.send(post(b'"flood"'))
        with trio.fail_after(20):
            while server.metrics.connections_closed == 0:
                await trio.sleep(0.5)


async def test_a_long_call_outlives_every_timeout(protocol, way, autojump_clock):
    async with gateway(protocol, app_for(protocol)) as server, server.connect() as client:
        await take_way(client, way)
        await client.send(post(b'"wait"'))
        await protocol.started.wait()
        await trio.sleep(200)
        assert not protocol.cancelled.is_set()


async def test_drain_finishes_idle_connections_at_once(protocol, way, autojump_clock):
    async with gateway(protocol, app_for(protocol)) as server, server.connect() as client:
        await take_way(client, way)
        await client.send(post(b"{}"))
        await client.response()
        await trio.sleep(1)  # the connection is idle by now
        began = trio.current_time()
        await server.lane.drain(10)
        assert trio.current_time() - began < 1
        assert await client.at_end()


async def test_drain_is_bounded_by_its_grace(protocol, way, autojump_clock):
    async with gateway(protocol, app_for(protocol)) as server, server.connect() as client:
        await take_way(client, way)
        await client.send(post(b'"wait"'))
        await protocol.started.wait()
        began = trio.current_time()
        await server.lane.drain(3)
        await protocol.cancelled.wait()
        assert 2.9 <= trio.current_time() - began <= 3.5
