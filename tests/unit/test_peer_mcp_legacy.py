# SPDX-License-Identifier: AGPL-3.0-or-later
"""The legacy binding between nodes, as deployed nodes speak it: each rule and each error."""

from __future__ import annotations

import json

import pytest
from peer_mcp import HERE, PEER, code, descriptor, gives, only_token, open_rig

from actors.errors import BusyError, DeadlineExceededError, ForbiddenError, ToolExecutionError, from_info
from actors.messages import ErrorInfo


@pytest.fixture
async def rig():
    async with open_rig() as rig:
        yield rig


@pytest.fixture
async def peer(rig):
    peer = rig.peer()
    await peer.initialize()
    return peer


async def test_initialize_answers_what_mcp_and_what_deployed_nodes_want(rig):
    result = (await rig.peer().initialize())["result"]
    assert result == {
        "protocolVersion": "2024-11-05",
        "serverInfo": {"name": "greenroom", "version": "1.2.3"},
        "capabilities": {
            "tools": {},
            "mcp++": {"bindingId": "mcp-binding/legacy-2024-11-05", "profiles": ["mcp++/p2p-transport"]},
            "mcpPlusPlusProfiles": ["mcp++/p2p-transport"],
        },
        "ok": True,
        "transport": "/mcp+p2p/1.0.0",
        "server": {"peer_id": HERE},
        "profile_negotiation": {
            "supports_profile_negotiation": True, "mode": "optional_additive", "profiles": ["mcp++/p2p-transport"],
        },
        "active_profile": "mcp++/p2p-transport",
        "limits": {
            "max_frame_bytes": 1 << 20, "max_streams": 32, "max_requests": 64, "rate_capacity": 100,
            "rate_refill_per_sec": 50.0, "max_frames": 128,
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    "wanted",
    [
        {"profile": "mcp++/ucan"},
        {"profiles": ["mcp++/event-dag", "mcp++/profile-c-ucan"]},
        {"capabilities": {"mcpPlusPlusProfiles": ["mcp++/ucan"]}},
        {"capabilities": {"mcp++": {"bindingId": "mcp-binding/legacy-2024-11-05", "profiles": ["mcp++/ucan"]}}},
        {"capabilities": {"experimental": {"mcp++/bindingId": "mcp-binding/legacy-2024-11-05", "mcp++/ucan": {}}}},
    ],
)
async def test_the_active_profile_is_the_first_wanted_one_that_is_offered(wanted):
    async with open_rig(profiles={"profiles": {"mcp++/p2p-transport": {}, "mcp++/ucan": {}}}) as rig:
        assert (await rig.peer().initialize(**wanted))["result"]["active_profile"] == "mcp++/ucan"


async def test_profiles_do_not_count_without_the_binding(rig):
    async with open_rig(profiles={"profiles": {"mcp++/p2p-transport": {}, "mcp++/ucan": {}}}) as rig:
        wanted = {"capabilities": {"mcp++": {"profiles": ["mcp++/ucan"]}, "experimental": {"mcp++/ucan": {}}}}
        assert (await rig.peer().initialize(**wanted))["result"]["active_profile"] == "mcp++/p2p-transport"


@pytest.mark.parametrize("where", [{"mcp++": {"bindingId": "mcp-binding/2026-07-28"}},
                                   {"experimental": {"mcp++/bindingId": "mcp-binding/2026-07-28"}}])  # fmt: skip
async def test_another_binding_is_not_taken_for_this_one(rig, where):
    assert (await rig.peer().initialize(capabilities=where))["error"]["code"] == -32602


@pytest.mark.parametrize("params", [{}, {"protocolVersion": "2025-11-25"}, {"protocolVersion": None, "x": 1}])
async def test_whatever_version_is_wanted_the_answer_is_the_one_that_is_spoken(rig, params):
    peer = rig.peer()
    assert (await peer.ask("initialize", params))["result"]["protocolVersion"] == "2024-11-05"


async def test_a_stream_is_initialized_once(peer):
    assert (await peer.ask("initialize", {}, 2))["error"]["code"] == -32600


async def test_requests_are_answered_without_waiting_for_the_notification(peer):
    assert "result" in await peer.ask("tools/list", {}, 1)
    await peer.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
    assert "result" in await peer.ask("tools/list", {}, 2)


async def test_an_id_may_come_again_once_it_is_answered(peer):
    """Deployed clients count from 1 again after `initialize`."""
    assert "result" in await peer.ask("tools/list", {}, 1)
    assert "result" in await peer.ask("tools/list", {}, 1)


@pytest.mark.parametrize("method", ["tools/list", "tools.list"])
async def test_tools_are_listed(rig, peer, method):
    rig.tools.shown = [descriptor("a")]
    peer.version = ""
    await peer.send({"jsonrpc": "2.0", "id": 1, "method": method})
    assert (await peer.read())["result"] == {
        "tools": [{"name": "a", "description": "It does a.", "inputSchema": {"type": "object"}}]
    }


@pytest.mark.parametrize("method", ["tools/call", "tools.call"])
async def test_a_call_gives_content_blocks(rig, peer, method):
    await peer.send({"jsonrpc": "2.0", "id": 1, "method": method, "params": {"name": "echo", "arguments": {"a": 1}}})
    result = (await peer.read())["result"]
    assert result["content"] == [{"type": "text", "text": '{"a": 1}'}]
    assert "structuredContent" not in result
    assert rig.tools.calls == [(PEER, "echo", {"a": 1})]


async def test_kinds_of_content_that_the_version_lacks_become_text(rig, peer):
    blocks = [
        {"type": "text", "text": "a", "_meta": {"x": 1}},
        {"type": "audio", "data": "", "mimeType": "audio/wav"},
        {"type": "resource_link", "uri": "file:///a", "name": "n"},
    ]
    rig.tools.results["it"] = gives(blocks, "content")
    content = (await peer.ask("tools/call", {"name": "it"}))["result"]["content"]
    assert content[0] == {"type": "text", "text": "a"}
    assert [block["type"] for block in content] == ["text"] * 3
    assert "audio/wav" in content[1]["text"]
    assert "file:///a" in content[2]["text"]


async def test_a_ping_is_answered(peer):
    assert (await peer.ask("ping", {}, 9))["result"] == {}


@pytest.mark.parametrize("method", ["resources/list", "server/discover", "mcp++/nothing"])
async def test_an_unknown_method_is_one(peer, method):
    peer.version = ""
    assert (await peer.ask(method, {}, 3))["error"]["code"] == -32601


@pytest.mark.parametrize(
    ("failure", "number", "word", "begins"),
    [
        (ForbiddenError("no"), -32001, "FORBIDDEN", "unauthorized"),
        (from_info(ErrorInfo(code="UNAUTHORIZED", message="who?")), -32001, "UNAUTHORIZED", "unauthorized"),
        (from_info(ErrorInfo(code="RATE_LIMITED", message="slow", retryable=True)), -32010, "RATE_LIMITED",
         "rate_limited"),
        (ToolExecutionError("fail", "general", "no paper"), -32002, "TOOL_FAILED", "Tool fail failed"),
        (BusyError("later"), -32002, "BUSY", "later"),
        (DeadlineExceededError("late"), -32002, "TIMEOUT", "late"),
    ],
)  # fmt: skip
async def test_failures_have_the_numbers_of_deployed_nodes(rig, peer, failure, number, word, begins):
    rig.tools.failure = failure
    answer = await peer.ask("tools/call", {"name": "fail"}, 2)
    assert code(answer) == (number, word)
    assert answer["error"]["message"].startswith(begins)


async def test_an_unknown_tool_and_odd_params_are_invalid(peer):
    assert code(await peer.ask("tools/call", {"name": "none"}, 1)) == (-32602, "UNKNOWN_TOOL")
    assert (await peer.ask("tools/call", {"arguments": {}}, 2))["error"]["code"] == -32602
    await peer.send({"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": [1]})
    assert (await peer.read())["error"]["code"] == -32602


async def test_a_fault_of_ours_is_internal(rig, peer):
    rig.tools.failure = KeyError("secret")
    answer = await peer.ask("tools/call", {"name": "fail"}, 2)
    assert answer["error"] == {"code": -32603, "message": "internal error (KeyError)"}


async def test_a_message_that_is_too_large_ends_the_stream(rig, peer):
    await peer.send_bytes(b"\x00\x20\x00\x00")
    assert (await peer.read())["error"]["code"] == -32003
    assert await peer.gone()
    assert rig.violations == [(PEER, "a message of 2097152 bytes was announced; at most 1048576 are taken")]


async def test_a_stream_takes_so_many_messages_and_then_ends(autojump_clock):
    async with open_rig(burst=1000) as rig:
        peer = rig.peer()
        await peer.initialize()
        for number in range(127):
            assert "result" in await peer.ask("ping", {}, number)
        answer = await peer.ask("ping", {}, 128)
        assert answer["error"]["code"] == -32010
        assert await peer.gone()


async def test_where_a_secret_is_configured_each_request_shows_a_token():
    async with open_rig(check_token=only_token("good")) as rig:
        peer = rig.peer()
        assert "result" in await peer.initialize()
        assert (await peer.ask("tools/list", {}, 1))["error"]["code"] == -32001
        assert (await peer.ask("tools/call", {"name": "echo"}, 2))["error"]["code"] == -32001
        said = {"_meta": {"io.greenroom/callToken": "good"}}
        assert "result" in await peer.ask("tools/call", {"name": "echo", **said}, 3)
        assert "result" in await peer.ask("ping", {}, 4)


# --- the queue -----------------------------------------------------------------------------------------------------


async def test_the_queue_is_a_tool_of_its_own_whose_token_is_in_its_arguments():
    asked = []

    async def queue(peer_id, request, timeout_s):
        asked.append((peer_id, json.loads(request), timeout_s))
        return {"ok": True, "peer_id": HERE, "task_id": "t"}

    async with open_rig(check_token=only_token("good"), queue=queue) as rig:
        peer = rig.peer()
        await peer.initialize()
        said = {"name": "task_queue.rpc", "arguments": {"op": "get", "token": "s", "task_id": "t"}}
        result = (await peer.ask("tools/call", said))["result"]
        assert json.loads(result["content"][0]["text"]) == {"ok": True, "peer_id": HERE, "task_id": "t"}
        assert asked == [(PEER, {"op": "get", "token": "s", "task_id": "t"}, 75.0)]
        meta = {"_meta": {"io.greenroom/callToken": "good"}}
        tools = (await peer.ask("tools/list", meta, 2))["result"]["tools"]
        assert [tool["name"] for tool in tools] == ["echo", "fail", "task_queue.rpc", "wait"]
        assert (await peer.ask("tools/call", {"name": "task_queue.rpc", "arguments": 5}, 3))["error"]["code"] == -32602


async def test_without_a_queue_there_is_no_such_tool(peer):
    assert (await peer.ask("tools/call", {"name": "task_queue.rpc"}, 2))["error"]["code"] == -32602


async def test_the_current_binding_has_no_such_tool():
    async def queue(*_):
        raise AssertionError

    async with open_rig(queue=queue) as rig:
        answer = await rig.peer().current("tools/call", name="task_queue.rpc")
        assert code(answer) == (-32602, "UNKNOWN_TOOL")
