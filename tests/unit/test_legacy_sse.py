# SPDX-License-Identifier: AGPL-3.0-or-later
"""The transport of 2024-11-05: through the real application, as the fast lane hands it over, with the real protocol."""

from __future__ import annotations

import contextlib
import json
import re

import pytest
import trio

from actors.settings import ServerSettings
from actors.tool_messages import Progress
from gateway.app import create_app
from gateway.legacy_sse import LegacySse
from gateway.mcp.testing import ScriptedBackend, descriptor, echo, protocol, result
from gateway.metrics import Metrics
from gateway.sse import EventReader
from gateway.testing import RawClient, gateway, post

SETTINGS = ServerSettings(legacy_sse=True, legacy_sse_streams=2, max_body_bytes=100_000)
CALL = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "echo", "arguments": {"text": "hi"}}}


class Tools:
    """`echo`, `steps` (says its progress), and `wait` (which sets `cancelled` when it is)."""

    def __init__(self):
        self.waiting, self.cancelled = trio.Event(), trio.Event()
        self.backend = ScriptedBackend({"echo": echo, "steps": self.steps, "wait": self.wait})

    async def steps(self, _call, on_item):
        for number in (1.0, 2.0, 3.0):
            on_item(Progress(progress=number))
        return result("done")

    async def wait(self, _call, _on_item):
        self.waiting.set()
        try:
            await trio.sleep_forever()
        finally:
            self.cancelled.set()


class Client:
    """One stream, and POSTs on connections of their own."""

    def __init__(self, harness, stream: RawClient):
        self._harness = harness
        self._reader = EventReader(1_000_000)
        self._events = []
        self._stream = stream
        self.endpoint = ""

    async def event(self):
        while not self._events:
            size = int(await self._stream.read_until(b"\r\n"), 16)
            assert size, "the stream ended"
            chunk = await self._stream._read(size + 2)
            self._events += self._reader.feed(chunk[:-2])
        return self._events.pop(0)

    async def message(self) -> dict:
        event = await self.event()
        assert event.kind == "message"
        return json.loads(event.data)

    async def post(self, message, *headers, target: str = "") -> int:
        async with self._harness.connect() as raw:
            body = message if isinstance(message, bytes) else json.dumps(message).encode()
            headers = headers or ("Content-Type: application/json",)
            await raw.send(post(body, *headers, target=target or self.endpoint))
            return (await raw.response()).status

    async def initialize(self, version: str = "2024-11-05") -> dict:
        info = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        assert await self.post({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": info}) == 202
        answer = await self.message()
        assert await self.post({"jsonrpc": "2.0", "method": "notifications/initialized"}) == 202
        return answer["result"]


class Served:
    def __init__(self, harness, protocol_, tools, sse):
        self.harness, self.protocol, self.tools, self.sse = harness, protocol_, tools, sse

    @contextlib.asynccontextmanager
    async def client(self):
        async with self.harness.connect() as stream:
            await stream.send(b"GET /sse HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n")
            head = await stream.read_until(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            assert b"text/event-stream" in head
            client = Client(self.harness, stream)
            event = await client.event()
            assert event.kind == "endpoint"
            client.endpoint = event.data.decode()
            yield client


@pytest.fixture
async def served():
    tools = Tools()
    mcp = protocol(tools.backend)
    sse = LegacySse(mcp, SETTINGS)

    def app():
        return create_app(mcp, tools.backend, SETTINGS, Metrics(), lambda: (True, [], 1), legacy_sse=sse)

    with trio.fail_after(20):
        async with mcp.running(), sse.running(), gateway(mcp, app, SETTINGS) as harness:
            yield Served(harness, mcp, tools, sse)


async def raw(served, request: bytes) -> int:
    async with served.harness.connect() as client:
        await client.send(request)
        return (await client.response()).status


@pytest.mark.parametrize("version", ["2024-11-05", "2025-11-25"])
async def test_answers_come_on_the_stream_and_posts_are_accepted(served, version):
    async with served.client() as client:
        assert (await client.initialize(version))["protocolVersion"] == version
        assert await client.post(CALL) == 202
        answer = await client.message()
        assert answer["id"] == 2
        assert json.loads(answer["result"]["content"][0]["text"]) == {"text": "hi"}


async def test_progress_comes_before_the_answer(served):
    async with served.client() as client:
        await client.initialize()
        params = {"name": "steps", "arguments": {}, "_meta": {"progressToken": "p"}}
        await client.post({"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": params})
        said = [await client.message() for _ in range(4)]
        assert [one["params"]["progress"] for one in said[:3]] == [1, 2, 3]
        assert said[3]["id"] == 3


async def test_changed_tools_are_told_on_the_stream(served):
    async with served.client() as client:
        await client.initialize()
        while not served.protocol.statistics().listeners:
            await trio.sleep(0.01)
        served.protocol.list_changed("tools")
        assert (await client.message())["method"] == "notifications/tools/list_changed"


async def test_malformed_messages_are_answered_on_the_stream(served):
    async with served.client() as client:
        assert await client.post(b"nonsense") == 202
        assert (await client.message())["error"]["code"] == -32700
        assert await client.post(CALL) == 202
        assert "initialize" in (await client.message())["error"]["message"]


@pytest.mark.parametrize("timeout_s", [60.0, 5.0], ids=["in a task of its own", "directly"])
async def test_a_client_that_leaves_ends_its_calls_and_its_session(served, timeout_s):
    served.tools.backend.replace([descriptor("wait", timeout_s=timeout_s)])
    async with served.client() as client:
        await client.initialize()
        await client.post({"jsonrpc": "2.0", "id": 4, "method": "tools/call", "params": {"name": "wait"}})
        await served.tools.waiting.wait()
    await served.tools.cancelled.wait()
    while len(served.sse) or served.protocol.statistics().sessions:
        await trio.sleep(0.01)


async def test_the_posting_address_is_a_secret_of_each_stream(served):
    async with served.client() as one, served.client() as other:
        assert one.endpoint != other.endpoint
        assert re.fullmatch(r"/messages\?session_id=[\w-]{32}", one.endpoint)
        await one.initialize()
        assert await one.post(CALL, target="/messages?session_id=" + "x" * 32) == 404
        assert await one.post(CALL, target="/messages") == 404
        assert await one.post(CALL, target=one.endpoint + "&session_id=x") == 404


async def test_more_streams_than_the_bound_are_refused_until_one_ends(served):
    opening = b"GET /sse HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    async with served.client():
        async with served.client():
            assert await raw(served, opening) == 503
        while len(served.sse) > 1:
            await trio.sleep(0.01)
        async with served.client():
            pass


async def test_host_origin_and_size_are_checked_as_everywhere(served):
    assert await raw(served, b"GET /sse HTTP/1.1\r\nHost: evil.example.com\r\n\r\n") == 421
    assert await raw(served, b"GET /sse HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://evil.example.com\r\n\r\n") == 403
    async with served.client() as client:
        evil = ("Content-Type: application/json", "Origin: http://evil.example.com")
        assert await client.post(CALL, *evil) == 403
        assert await client.post(b"x" * 200_000) == 413


async def test_it_is_off_by_default():
    mcp = protocol(ScriptedBackend())

    def app():
        return create_app(mcp, ScriptedBackend(), ServerSettings(), Metrics(), lambda: (True, [], 1))

    with trio.fail_after(20):
        async with mcp.running(), gateway(mcp, app) as harness, harness.connect() as client:
            await client.send(b"GET /sse HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert (await client.response()).status == 404
