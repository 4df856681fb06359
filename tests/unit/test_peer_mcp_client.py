# SPDX-License-Identifier: AGPL-3.0-or-later
"""The client of MCP between nodes: against our server in both bindings, and against servers as deployed nodes are."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from functools import partial

import peer_streams
import pytest
import trio
from peer_mcp import HERE, LONGEST_S, META, PEER, descriptor, gives, only_token, open_rig
from peer_old_servers import OldServer, accelerate, datasets, initialized
from trio.testing import wait_all_tasks_blocked

from actors.errors import (
    BusyError,
    DeadlineExceededError,
    ForbiddenError,
    InvalidArgumentsError,
    MCPServerError,
    OutcomeUnknownError,
    RuntimeUnavailableError,
    ToolExecutionError,
    UnavailableError,
    UnknownToolError,
    code_of,
)
from actors.p2p.peer_registry.mcp.asking import AskedStream
from actors.p2p.peer_registry.mcp.client import open_client
from actors.p2p.peer_registry.mcp.opening import ClientFace

FACE = ClientFace(name="greenroom", version="1.2.3", profiles={"mcp++/p2p-transport": {}}, most_bytes=1 << 20)
LEGACY = "mcp-binding/legacy-2024-11-05"
CURRENT = "mcp-binding/2026-07-28"


@asynccontextmanager
async def ours(token=None, face=FACE, **settings):
    """Our server, and a client of it."""
    async with open_rig(**settings) as rig:
        opened = []

        async def open_stream(timeout_s):
            opened.append(timeout_s)
            return rig.stream()

        async with open_client(open_stream, face, token=token) as client:
            client.opened = opened
            yield client, rig


@asynccontextmanager
async def old(handle, **more):
    """A server of another make, and a client of it."""
    with trio.fail_after(LONGEST_S):
        async with trio.open_nursery() as nursery:
            server = OldServer(nursery, handle)
            async with open_client(server.open, FACE, **more) as client:
                yield client, server
            nursery.cancel_scope.cancel()


async def call(client, name="echo", timeout_s=10.0, **arguments):
    return (await client.call_tool(name, json.dumps(arguments).encode(), timeout_s)).value


# --- our server ----------------------------------------------------------------------------------------------------


async def test_it_finds_the_current_binding_and_calls():
    async with ours() as (client, rig):
        server = await client.connect(5)
        assert (server.binding, server.name, server.version) == (CURRENT, "greenroom", "1.2.3")
        assert (server.profiles, server.most_bytes, server.most_frames) == (["mcp++/p2p-transport"], 1 << 20, None)
        assert await call(client, a=1) == {"a": 1}
        assert rig.tools.calls == [(PEER, "echo", {"a": 1})]
        assert len(client.opened) == 1


async def test_only_profiles_that_both_sides_have_are_usable():
    face = ClientFace(name="n", version="1", profiles={"mcp++/ucan": {}, "mcp++/mcp-idl": {}}, most_bytes=1 << 20)
    async with ours(face=face, profiles={"profiles": {"mcp++/p2p-transport": {}, "mcp++/mcp-idl": {}}}) as (client, _):
        assert (await client.connect(5)).profiles == ["mcp++/mcp-idl"]


async def test_many_calls_share_a_stream_and_end_in_any_order():
    async with ours() as (client, rig):
        ends = []

        async def one(name, **arguments):
            ends.append((name, await call(client, name, **arguments)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one, "wait")
            await wait_all_tasks_blocked()
            for _ in range(20):
                nursery.start_soon(one, "echo")
            await wait_all_tasks_blocked()
            assert ends == [("echo", {})] * 20
            rig.tools.go.set()
        assert ends[-1] == ("wait", "done")
        assert len(client.opened) == 1


async def test_calls_that_come_together_at_first_open_one_stream():
    async with ours() as (client, _):
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(call, client)
        assert len(client.opened) == 1


async def test_lists_of_many_pages_are_read_to_their_end():
    async with ours() as (client, rig):
        text = b'{"type":"object","title":"%s"}' % (b"x" * 50_000)
        rig.tools.shown = [descriptor(f"t{n:02}", input_schema=text) for n in range(15)]
        tools = await client.list_tools(5)
        assert [tool.name for tool in tools] == [f"t{n:02}" for n in range(15)]
        assert tools[0].description == "It does t00."
        assert tools[0].input_schema["type"] == "object"


@pytest.mark.parametrize(
    ("given", "value"),
    [
        (gives("hi", "text"), "hi"),
        (gives([1], "wrapped"), {"result": [1]}),
        (gives({"a": 1}), {"a": 1}),
        (gives([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "content"),
         [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]),
    ],
)  # fmt: skip
async def test_each_shape_of_a_result(given, value):
    async with ours() as (client, rig):
        rig.tools.results["it"] = given
        result = await client.call_tool("it", b"{}", 5)
        assert result.value == value
        assert result.meta["greenroom/runtime"] == "general"


@pytest.mark.parametrize(
    "failure",
    [
        ForbiddenError("not you"),
        InvalidArgumentsError("a is missing"),
        UnavailableError("no printer"),
        BusyError("later"),
        UnknownToolError("no such tool"),
        DeadlineExceededError("too late"),
        OutcomeUnknownError("who knows"),
    ],
)
async def test_an_error_arrives_as_what_it_was(failure):
    async with ours() as (client, rig):
        rig.tools.failure = failure
        with pytest.raises(type(failure), match=str(failure)) as caught:
            await call(client, "fail")
        assert code_of(caught.value) == code_of(failure)
        assert caught.value.retryable is failure.retryable


async def test_a_tool_that_fails_says_which_and_why():
    async with ours() as (client, rig):
        rig.tools.failure = ToolExecutionError("fail", "general", "no paper")
        with pytest.raises(ToolExecutionError, match="no paper") as caught:
            await call(client, "fail")
        assert caught.value.tool_name == "fail"


async def test_whoever_does_not_wait_any_longer_ends_the_call_there():
    async with ours() as (client, rig):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, client, "wait")
            await wait_all_tasks_blocked(0.005)
            assert rig.tools.running == 1
            nursery.cancel_scope.cancel()
        await wait_all_tasks_blocked(0.005)
        assert (rig.tools.running, rig.tools.cancelled) == (0, 1)
        assert await call(client, a=1) == {"a": 1}


async def test_a_call_has_its_time_and_is_ended_there(autojump_clock):
    async with ours() as (client, rig):
        with pytest.raises(DeadlineExceededError, match="within 3 seconds"):
            await call(client, "wait", timeout_s=3)
        await wait_all_tasks_blocked()
        assert rig.tools.cancelled == 1


async def test_an_end_before_the_answer_leaves_the_outcome_open_and_is_not_tried_again():
    async with ours() as (client, rig):
        streams = []
        open_stream = client._open_stream

        async def remembered(timeout_s):
            streams.append(await open_stream(timeout_s))
            return streams[-1]

        client._open_stream = remembered
        async with trio.open_nursery() as nursery:

            async def fails():
                with pytest.raises(OutcomeUnknownError):
                    await call(client, "wait")

            nursery.start_soon(fails)
            await wait_all_tasks_blocked()
            streams[0].break_now()
        assert [name for _, name, _ in rig.tools.calls] == ["wait"]
        assert await call(client, a=1) == {"a": 1}
        assert len(streams) == 2


async def test_a_stream_that_was_not_used_for_long_is_not_used_again(autojump_clock):
    async with ours(idle_timeout_s=60) as (client, _):
        await call(client)
        await trio.sleep(30)
        await call(client)
        assert len(client.opened) == 1
        await trio.sleep(45)
        await call(client)
        assert len(client.opened) == 2
        await trio.sleep(500)
        await call(client)
        assert len(client.opened) == 3


async def test_a_token_is_made_for_each_request():
    made = []

    def token():
        made.append("good")
        return "good"

    async with ours(token=token, check_token=only_token("good")) as (client, _):
        await client.list_tools(5)
        await call(client)
        await call(client)
    assert len(made) == 3


async def test_without_a_good_token_there_is_nothing():
    for token in (None, lambda: "bad"):
        async with ours(token=token, check_token=only_token("good")) as (client, rig):
            assert (await client.connect(5)).binding == CURRENT
            with pytest.raises(MCPServerError) as caught:
                await call(client)
            assert code_of(caught.value) == "UNAUTHORIZED"
            assert not rig.tools.calls


async def test_no_more_is_sent_than_the_other_side_takes():
    async with ours(max_frame_bytes=4000) as (client, rig):
        with pytest.raises(MCPServerError, match="the peer takes 4000") as caught:
            await call(client, text="x" * 4000)
        assert code_of(caught.value) == "LIMIT_EXCEEDED"
        assert await call(client, a=1) == {"a": 1}
        assert [arguments for *_, arguments in rig.tools.calls] == [{"a": 1}]


async def test_an_answer_that_is_too_large_is_refused_there():
    face = ClientFace(name="n", version="1", profiles={}, most_bytes=3000)
    async with ours(face=face) as (client, rig):
        rig.tools.results["big"] = gives("x" * 5000, "text")
        with pytest.raises(MCPServerError) as caught:
            await call(client, "big")
        assert code_of(caught.value) == "LIMIT_EXCEEDED"


async def test_what_opening_raises_is_passed_on():
    async def refuse(timeout_s):
        raise RuntimeUnavailableError("no route")

    async with open_client(refuse, FACE) as client:
        with pytest.raises(RuntimeUnavailableError, match="no route"):
            await call(client)


async def test_a_peer_that_can_not_be_opened_in_time_was_asked_nothing(autojump_clock):
    async def never(timeout_s):
        await trio.sleep_forever()

    async with open_client(never, FACE) as client:
        with pytest.raises(DeadlineExceededError, match="nothing was asked"):
            await call(client, timeout_s=4)


async def test_nothing_can_be_sent_on_a_stream_that_has_ended():
    here, there = peer_streams.pair(HERE, PEER)
    asked = AskedStream(here, 1 << 20)
    there.break_now()
    await asked.run()
    with pytest.raises(RuntimeUnavailableError, match="was not sent: broken"):
        await asked.ask("tools/list", {}, 5)
    assert not asked.usable


async def test_a_stream_whose_writing_breaks_ends():
    here, there = peer_streams.pair(HERE, PEER)
    asked = AskedStream(here, 1 << 20)
    await here.finish()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(asked.run)
        with pytest.raises(OutcomeUnknownError, match="after the end"):
            await asked.ask("tools/list", {}, 5)
    assert there.broken


# --- servers of other makes ----------------------------------------------------------------------------------------


async def test_a_deployed_queue_node_is_spoken_to_in_the_legacy_binding():
    async with old(accelerate) as (client, server):
        assert await call(client, "task_queue.rpc", op="status") == {"ok": True, "echo": {"op": "status"}}
        assert server.methods == ["server/discover", "initialize", "notifications/initialized", "tools/call"]
        assert server.streams == 2
        assert client.server.binding == LEGACY
        assert (client.server.most_bytes, client.server.most_frames) == (1 << 20, 128)
        assert [tool.name for tool in await client.list_tools(5)] == ["task_queue.rpc"]
        first, *_ = server.seen
        assert first["params"]["_meta"][META + "protocolVersion"] == "2026-07-28"


async def test_the_binding_is_found_out_once():
    async with old(accelerate) as (client, server):
        await call(client)
        client.close()
        await call(client)
        assert server.methods.count("server/discover") == 1
        assert server.methods.count("initialize") == 2


async def test_a_token_goes_along_in_the_legacy_binding_too():
    async with old(accelerate, token=lambda: "t") as (client, server):
        await call(client)
        assert server.seen[-1]["params"]["_meta"] == {"io.greenroom/callToken": "t"}


async def test_a_node_that_speaks_the_current_binding_no_more_is_spoken_to_in_the_legacy_one():
    async with ours() as (client, _), old(accelerate) as (_, server):
        await call(client)
        client.close()
        client._open_stream = server.open
        assert (await call(client, a=1))["echo"] == {"a": 1}
        assert client.server.binding == LEGACY


async def test_whoever_refuses_the_handshake_is_asked_from_the_beginning_the_next_time():
    async def handle(one, message):
        await one.error(message, -32010 if message["method"] == "initialize" else -32000, "rate_limited")

    async with old(handle) as (client, server):
        for _ in range(2):
            with pytest.raises(MCPServerError) as caught:
                await call(client)
            assert code_of(caught.value) == "RATE_LIMITED"
        assert server.methods == ["server/discover", "initialize"] * 2


async def test_streams_are_changed_before_an_old_server_ends_them():
    async with old(accelerate) as (client, server):
        for number in range(300):
            assert (await call(client, n=number))["echo"] == {"n": number}
        assert server.streams == 4
        assert server.methods.count("tools/call") == 300


async def test_its_limit_for_a_message_is_kept():
    handle = partial(accelerate, limits={"max_frame_bytes": 500})
    async with old(handle) as (client, _):
        with pytest.raises(MCPServerError, match="the peer takes 500"):
            await call(client, text="x" * 600)


async def test_its_tool_errors_are_tool_errors():
    async with old(accelerate) as (client, _):
        with pytest.raises(ToolExecutionError, match="unknown_tool"):
            await call(client, "bad")


async def test_profiles_are_read_in_each_form():
    face = ClientFace(name="n", version="1", profiles={"mcp++/mcp-idl": {}, "mcp++/ucan": {}}, most_bytes=1 << 20)
    for said, found in (
        ({}, ["mcp++/mcp-idl"]),
        ({"capabilities": {"mcpPlusPlusProfiles": ["mcp++/profile-c-ucan"]}}, ["mcp++/mcp-idl", "mcp++/ucan"]),
        ({"profile_negotiation": 5}, []),
    ):
        async with trio.open_nursery() as nursery:
            server = OldServer(nursery, partial(accelerate, **said))
            async with open_client(server.open, face) as client:
                assert (await client.connect(5)).profiles == found
            nursery.cancel_scope.cancel()


async def test_a_datasets_node_has_nothing_to_call():
    async with old(datasets) as (client, _):
        assert await client.list_tools(5) == []
        with pytest.raises(UnavailableError):
            await call(client)


@pytest.mark.parametrize("number", [-32000, -32022, -32600, -32601])
async def test_each_answer_of_a_node_without_the_current_binding_leads_to_the_legacy_one(number):
    async def handle(one, message):
        if message["method"] == "server/discover":
            await one.error(message, number, "no")
        else:
            await datasets(one, message)

    async with old(handle) as (client, _):
        assert (await client.connect(5)).binding == LEGACY


async def test_a_node_that_ends_the_stream_without_a_word_is_asked_in_the_legacy_binding():
    async def handle(one, message):
        if message["method"] == "server/discover":
            await one.stream.reset()
        else:
            await datasets(one, message)

    async with old(handle) as (client, _):
        assert (await client.connect(5)).binding == LEGACY


async def test_a_current_node_of_other_versions_is_asked_in_the_legacy_binding():
    async def handle(one, message):
        if message["method"] == "server/discover":
            await one.result(message, {"supportedVersions": ["2030-01-01"], "capabilities": {}})
        else:
            await datasets(one, message)

    async with old(handle) as (client, _):
        assert (await client.connect(5)).binding == LEGACY


async def test_a_refusal_is_no_reason_for_another_binding():
    async def handle(one, message):
        await one.say({"jsonrpc": "2.0", "id": message["id"],
                       "error": {"code": 401, "message": "who?", "data": {"code": "UNAUTHORIZED"}}})  # fmt: skip

    async with old(handle) as (client, server):
        with pytest.raises(MCPServerError) as caught:
            await call(client)
        assert code_of(caught.value) == "UNAUTHORIZED"
        assert server.methods == ["server/discover"]


@pytest.mark.parametrize(
    "said",
    [
        {"protocolVersion": "2025-11-25"},
        {"capabilities": {"mcp++": {"bindingId": CURRENT, "profiles": []}}},
        {"capabilities": {"experimental": {"mcp++/bindingId": 5}}},
    ],
)
async def test_another_binding_than_the_spoken_one_is_not_used(said):
    async with old(partial(accelerate, **said)) as (client, _):
        with pytest.raises(UnavailableError):
            await call(client)


async def test_a_node_that_speaks_nothing_of_it_is_unavailable():
    async def handle(one, message):
        await one.close()

    async with old(handle) as (client, _):
        with pytest.raises(UnavailableError, match="no binding of MCP"):
            await call(client)


async def test_a_node_that_says_nothing_is_given_up(autojump_clock):
    async def handle(one, message):
        pass

    async with old(handle) as (client, server):
        with pytest.raises(DeadlineExceededError):
            await call(client, timeout_s=100)
        assert server.methods[0] == "server/discover"


@pytest.mark.parametrize("first", ["5", '"x"', "[]", "{}", '{"supportedVersions":3}'])
async def test_a_first_answer_that_is_none_is_an_error(first):
    async def handle(one, message):
        await one.result(message, json.loads(first))

    async with old(handle) as (client, _):
        with pytest.raises(MCPServerError):
            await client.list_tools(0.05)


async def test_an_error_without_an_id_is_that_of_all_open_requests():
    async def handle(one, message):
        if message["method"] != "tools/call":
            await datasets(one, message)
        elif message["params"]["name"] == "second":
            await one.error({}, -32003, "frame_too_large")

    async with old(handle) as (client, _):

        async def fails(name):
            with pytest.raises(MCPServerError, match="frame_too_large"):
                await call(client, name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails, "first")
            await wait_all_tasks_blocked()
            nursery.start_soon(fails, "second")


async def test_what_a_server_asks_of_us_is_a_ping_or_nothing():
    got = []

    async def handle(one, message):
        if "method" not in message:
            got.append(message)
        elif message["method"] == "tools/call":
            await one.say({"jsonrpc": "2.0", "id": "p", "method": "ping"})
            await one.say({"jsonrpc": "2.0", "id": "q", "method": "sampling/createMessage", "params": {}})
            await one.say({"jsonrpc": "2.0", "method": "notifications/message", "params": {}})
            await one.say({"jsonrpc": "2.0", "id": 999, "result": {}})
            await one.result(message, {"content": 5})
        else:
            await datasets(one, message)

    async with old(handle) as (client, _):
        assert await call(client) == 5
        await wait_all_tasks_blocked()
        assert got[0] == {"jsonrpc": "2.0", "id": "p", "result": {}}
        assert got[1]["error"]["code"] == -32601


@pytest.mark.parametrize(
    ("result", "value"),
    [
        ({"content": {"a": 1}}, {"a": 1}),
        ({"content": None}, None),
        ({"content": [1, 2]}, [1, 2]),
        ({"content": [{"type": "text", "text": "t"}]}, "t"),
        ({"content": [{"type": "text", "text": 5}]}, [{"type": "text", "text": 5}]),
        ({"content": [{"type": "image"}]}, [{"type": "image"}]),
        ({"content": [], "structuredContent": 7}, 7),
        ({}, None),
    ],
)
async def test_content_may_be_any_json(result, value):
    async def handle(one, message):
        if message["method"] == "tools/call":
            await one.result(message, result)
        else:
            await datasets(one, message)

    async with old(handle) as (client, _):
        assert await call(client) == value


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"result": 5}, UnavailableError),
        ({"result": {"resultType": "input_required"}}, UnavailableError),
        ({"result": {"isError": True, "content": {"why": "rain"}}}, ToolExecutionError),
        ({"result": {"isError": True, "_meta": {"greenroom/code": 5}}}, ToolExecutionError),
        ({"result": {"isError": True, "_meta": {"greenroom/code": "BUSY"}}}, BusyError),
        ({"error": "odd"}, MCPServerError),
        ({"error": {"code": "x"}}, MCPServerError),
        ({"error": {"code": 7, "message": 5, "data": 5}}, MCPServerError),
        ({}, MCPServerError),
    ],
)
async def test_odd_answers_are_errors(answer, kind):
    async def handle(one, message):
        if message["method"] == "tools/call":
            await one.say({"jsonrpc": "2.0", "id": message["id"], **answer})
        else:
            await datasets(one, message)

    async with old(handle) as (client, _):
        with pytest.raises(kind):
            await call(client)


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", b"\0\0\0\1{", b"\0\0\0\2[]", b"\0\0\0\5abc"])
async def test_what_is_no_message_ends_the_stream_and_leaves_the_outcome_open(data):
    async def handle(one, message):
        if message["method"] == "tools/call":
            await one.stream.write(data)
            await one.close()
        else:
            await datasets(one, message)

    async with old(handle) as (client, server):
        with pytest.raises(OutcomeUnknownError):
            await call(client)
        assert server.methods.count("tools/call") == 1


async def test_lists_that_never_end_are_ended():
    async def handle(one, message):
        if message["method"] == "tools/list":
            tools = [{"name": f"t{n}"} for n in range(50)] + [5, {"name": 5}, {"name": ""}, {"name": "x" * 300}]
            await one.result(message, {"tools": tools, "nextCursor": "again"})
        else:
            await accelerate(one, message)

    async with old(handle) as (client, _):
        assert len(await client.list_tools(5)) == 5000


def test_the_pair_of_the_tests_names_the_two_sides():
    theirs, here = peer_streams.pair(PEER, HERE)
    assert (theirs.peer_id, here.peer_id) == (HERE, PEER)
    assert initialized()["ok"]
