# SPDX-License-Identifier: AGPL-3.0-or-later
"""The bridge on pipes of this process, before a real gateway's HTTP: with the real protocol, or with one that plays
what a gateway does seldom."""

from __future__ import annotations

import contextlib
import json
import os

import pytest
import trio

from actors.errors import RuntimeUnavailableError
from actors.settings import Settings, StdioSettings
from gateway.mcp.calls import Outbox
from gateway.mcp.testing import META, ScriptedBackend, descriptor, echo, protocol
from gateway.stdio import run
from gateway.testing import JSON, gateway
from gateway.types import Answer, Stream

SETTINGS = Settings(stdio=StdioSettings(patience_s=2.0, end_s=2.0))
SSE = ("content-type", "text/event-stream")
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}


class Tree:
    """The way to a gateway, and what is known of its tools."""

    def __init__(self, port: int, tools=()):
        self.url = f"http://127.0.0.1:{port}"
        self.tools = {tool.name: tool for tool in tools}
        self.found = 0

    async def find(self):
        self.found += 1
        if not self.url:
            raise RuntimeUnavailableError("nobody is there")
        return self.url

    async def tool(self, name):
        return self.tools.get(name)


class Client:
    """The other side of the bridge's pipes."""

    def __init__(self, stdin: int, stdout: int):
        self._in = trio.lowlevel.FdStream(stdin)
        self._out = trio.lowlevel.FdStream(stdout)
        self._data = b""

    async def send(self, *messages):
        for message in messages:
            await self._in.send_all(json.dumps(message).encode() + b"\n")

    async def message(self) -> dict:
        while b"\n" not in self._data:
            piece = await self._out.receive_some(65536)
            assert piece, "the bridge ended"
            self._data += piece
        line, _, self._data = self._data.partition(b"\n")
        return json.loads(line)

    async def ask(self, message) -> dict:
        await self.send(message)
        return await self.message()

    async def end(self):
        await self._in.aclose()


@contextlib.asynccontextmanager
async def bridge(tree, settings=SETTINGS):
    stdin, to_bridge = os.pipe()
    from_bridge, stdout = os.pipe()
    client = Client(to_bridge, from_bridge)

    async def serve():
        try:
            await run(tree, settings, stdin=stdin, stdout=stdout)
        finally:
            os.close(stdin)
            os.close(stdout)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        yield client
        await client.end()
    await client._out.aclose()


@contextlib.asynccontextmanager
async def served(mcp, tools=()):
    """A gateway with the real application for what the fast lane hands over."""
    from actors.settings import ServerSettings
    from gateway.app import create_app
    from gateway.metrics import Metrics

    def app():
        return create_app(mcp, ScriptedBackend(), ServerSettings(), Metrics(), lambda: (True, [], 1))

    with trio.fail_after(20):
        async with gateway(mcp, app) as harness:
            yield Tree(harness.port, tools)


def call(id_, name="echo", meta=None, **arguments):
    params = {"name": name, "arguments": arguments} | ({"_meta": meta} if meta else {})
    return {"jsonrpc": "2.0", "id": id_, "method": "tools/call", "params": params}


async def test_a_session_hears_of_changed_tools():
    mcp = protocol()
    async with mcp.running(), served(mcp) as tree, bridge(tree) as client:
        assert (await client.ask(INITIALIZE))["result"]["protocolVersion"] == "2025-11-25"
        await client.send(INITIALIZED)
        while not mcp.statistics().listeners:
            await trio.sleep(0.01)
        mcp.list_changed("tools")
        assert await client.message() == {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}


async def test_arguments_that_headers_must_repeat_are_learned_from_the_refusal():
    schema = b'{"type":"object","properties":{"where":{"type":"string","x-mcp-header":"Where"}}}'
    tool = descriptor("echo", input_schema=schema)
    mcp = protocol(ScriptedBackend({"echo": echo}, [tool]))
    async with mcp.running(), served(mcp, [tool]) as tree, bridge(tree) as client:
        answer = await client.ask(call(1, meta=META, where="Zürich"))
        assert json.loads(answer["result"]["content"][0]["text"]) == {"where": "Zürich"}


async def test_what_follows_a_handshake_at_once_waits_for_it_and_keeps_its_order():
    mcp = protocol()
    async with mcp.running(), served(mcp) as tree, bridge(tree) as client:
        await client.send(INITIALIZE, INITIALIZED, call(1, text="a"))
        assert [(await client.message())["id"] for _ in range(2)] == [0, 1]


async def test_a_request_that_finds_no_gateway_waits_and_in_the_end_says_that_it_was_not_sent():
    mcp = protocol()
    impatient = Settings(stdio=StdioSettings(patience_s=0.2))
    async with mcp.running(), served(mcp) as tree:
        real = tree.url
        tree.url = "http://127.0.0.1:1"  # nobody listens there
        async with bridge(tree, impatient) as client:
            while not tree.found:
                await trio.sleep(0.01)
            tree.url = ""
            answer = await client.ask(call("too late", meta=META))
            assert answer["id"] == "too late"
            assert answer["error"]["data"] == {"code": "RUNTIME_UNAVAILABLE", "retryable": True}
            await client.send(call("in time", meta=META))
            tree.url = real
            assert "result" in await client.message()


async def test_without_a_system_to_begin_with_it_ends_with_the_reason():
    tree = Tree(1)
    tree.url = ""
    with pytest.raises(RuntimeUnavailableError):
        await run(tree, SETTINGS, stdin=0, stdout=1)


class Played:
    """A protocol whose answers to POST and GET are played from lists; `seen` has the requests."""

    def __init__(self, *posts, gets=()):
        self.posts, self.gets, self.seen = list(posts), list(gets), []

    def check_host_origin(self, _request):
        return None

    async def handle(self, request):
        self.seen.append(request)
        if request.method == "POST" and b'"method":"notifications/' in request.body.replace(b": ", b":"):
            return Answer(202, [], b"")
        if request.method == "GET" and "last-event-id" not in request.headers:
            return Answer(405, [JSON], b"{}")
        if request.method == "DELETE":
            return Answer(200, [], b"")
        return (self.posts if request.method == "POST" else self.gets).pop(0)


def opened(token: str) -> Answer:
    result = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "s", "version": "1"}}
    body = json.dumps({"jsonrpc": "2.0", "id": 0, "result": result}).encode()
    return Answer(200, [JSON, ("mcp-session-id", token)], body)


def stream(*frames: bytes) -> Stream:
    outbox = Outbox()
    for frame in frames:
        outbox.put(frame)
    outbox.finish()
    return Stream(200, [SSE], outbox)


def result_of(id_) -> bytes:
    return b'data: {"jsonrpc":"2.0","id":%d,"result":{}}\n\n' % id_


PROGRESS = (
    b'id: s-1\ndata: {"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1}}\n\n'
)


async def test_a_stream_that_the_server_closes_is_read_on_elsewhere():
    played = Played(
        opened("one"),
        stream(b"id: s-0\nretry: 10\ndata:\n\n", PROGRESS),
        gets=[stream(b"id: s-2\ndata:\n\n"), stream(result_of(1))],
    )
    async with served(played) as tree, bridge(tree) as client:
        await client.ask(INITIALIZE)
        await client.send(call(1))
        assert (await client.message())["method"] == "notifications/progress"
        assert await client.message() == {"jsonrpc": "2.0", "id": 1, "result": {}}
    named = [request.headers["last-event-id"] for request in played.seen if "last-event-id" in request.headers]
    assert named == ["s-1", "s-2"]


async def test_a_stream_that_cannot_be_read_on_leaves_the_outcome_unknown():
    played = Played(opened("one"), stream(PROGRESS), gets=[Answer(400, [JSON], b"{}")])
    async with served(played) as tree, bridge(tree) as client:
        await client.ask(INITIALIZE)
        await client.send(call(1))
        assert (await client.message())["method"] == "notifications/progress"
        answer = await client.message()
        assert answer["id"] == 1
        assert answer["error"]["data"]["code"] == "OUTCOME_UNKNOWN"


async def test_a_request_in_an_unknown_session_is_sent_again_in_a_new_one():
    ended = Answer(404, [JSON], b'{"jsonrpc":"2.0","error":{"code":-32600,"message":"unknown"}}')
    done = Answer(200, [JSON], b'{"jsonrpc":"2.0","id":1,"result":{"done":true}}')
    played = Played(opened("one"), ended, opened("two"), done)
    async with served(played) as tree, bridge(tree) as client:
        await client.ask(INITIALIZE)
        await client.send(INITIALIZED)
        assert (await client.ask(call(1)))["result"] == {"done": True}
    tokens = [r.headers.get("mcp-session-id") for r in played.seen if b"tools/call" in r.body]
    assert tokens == ["one", "two"]
    assert sum(b"notifications/initialized" in r.body for r in played.seen) == 2


async def test_errors_below_the_protocol_become_errors_of_the_request():
    played = Played(
        Answer(503, [JSON], b'{"status":"error","error":{"code":"BUSY","message":"too much"}}'),
        Answer(400, [JSON], b'{"jsonrpc":"2.0","error":{"code":-32600,"message":"no id"}}'),
        Answer(500, [("content-type", "text/plain")], b"broken"),
        Answer(200, [JSON], b'{"jsonrpc":"2.0","id":99,"result":{}}'),
    )
    async with served(played) as tree, bridge(tree) as client:
        said = [await client.ask(call(number, meta=META)) for number in range(4)]
    assert [one["id"] for one in said] == [0, 1, 2, 3]
    assert [one["error"]["code"] for one in said] == [-32603, -32600, -32603, -32603]
    assert said[0]["error"]["data"] == {"code": "BUSY"}
    assert "500" in said[2]["error"]["message"]


async def test_questions_of_the_server_go_to_the_client_and_its_answers_back():
    question = b'data: {"jsonrpc":"2.0","id":1,"method":"roots/list"}\n\n'
    outbox = Outbox()
    outbox.put(question)
    played = Played(opened("one"), Stream(200, [SSE], outbox), Answer(202, [], b""))
    async with served(played) as tree, bridge(tree) as client:
        await client.ask(INITIALIZE)
        # The server's ids are its own: the same number as the request's means nothing.
        assert (await client.ask(call(1)))["method"] == "roots/list"
        await client.send({"jsonrpc": "2.0", "id": 1, "result": {"roots": []}})
        while b'"roots": []' not in played.seen[-1].body:
            await trio.sleep(0.01)
        assert played.seen[-1].headers["mcp-session-id"] == "one"
        outbox.finish(result_of(1))
        assert await client.message() == {"jsonrpc": "2.0", "id": 1, "result": {}}
