# SPDX-License-Identifier: AGPL-3.0-or-later
"""The current binding between nodes: each rule and each error."""

from __future__ import annotations

import base64

import msgspec
import pytest
from peer_mcp import CURRENT, HERE, META, OTHER, PEER, code, descriptor, gives, only_token, open_rig

from actors.errors import (
    BusyError,
    DeadlineExceededError,
    ForbiddenError,
    InvalidArgumentsError,
    ToolExecutionError,
    UnavailableError,
    from_info,
)
from actors.messages import ErrorInfo
from actors.tool_messages import ToolAnnotations


@pytest.fixture
async def rig():
    async with open_rig() as rig:
        yield rig


# --- who is there --------------------------------------------------------------------------------------------------


async def test_discovery_names_version_limits_and_profiles(rig):
    answer = (await rig.peer().current("server/discover"))["result"]
    assert answer["resultType"] == "complete"
    assert answer["supportedVersions"] == ["2026-07-28"]
    assert (answer["ttlMs"], answer["cacheScope"]) == (60_000, "private")
    assert answer["_meta"][META + "serverInfo"] == {"name": "greenroom", "version": "1.2.3"}
    capabilities = answer["capabilities"]
    assert capabilities["tools"] == {}
    assert capabilities["extensions"]["io.mcplusplus/profiles"] == {"mcp++/p2p-transport": {}}
    ours = capabilities["mcp++"]
    assert (ours["bindingId"], ours["profiles"]) == ("mcp-binding/2026-07-28", ["mcp++/p2p-transport"])
    assert ours["limits"] == {
        "max_frame_bytes": 1 << 20, "max_streams": 32, "max_requests": 64, "rate_capacity": 100,
        "rate_refill_per_sec": 50.0,
    }  # fmt: skip


async def test_what_a_peer_says_it_has_is_not_echoed(rig):
    theirs = {META + "clientCapabilities": {"mcp++": {"profiles": ["mcp++/ucan"]}, "sampling": {}}}
    answer = await rig.peer().current("server/discover", meta=theirs)
    assert answer["result"]["capabilities"]["mcp++"]["profiles"] == ["mcp++/p2p-transport"]
    assert "sampling" not in answer["result"]["capabilities"]


# --- what each request has to say ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("meta", "number"),
    [
        ({META + "protocolVersion": "2026-07-28"}, -32602),
        ({META + "protocolVersion": "2026-07-28", META + "clientCapabilities": None}, -32602),
        ({META + "protocolVersion": 3, META + "clientCapabilities": {}}, -32602),
        ({META + "protocolVersion": "2030-01-01", META + "clientCapabilities": {}}, -32022),
        (CURRENT | {"io.mcplusplus/bindingId": "mcp-binding/legacy-2024-11-05"}, -32602),
        (CURRENT | {"io.mcplusplus/bindingId": 7}, -32602),
        (CURRENT | {META + "clientCapabilities": {"mcp++": {"bindingId": "mcp-binding/other"}}}, -32602),
    ],
)
async def test_a_request_says_its_version_and_capabilities(rig, meta, number):
    answer = await rig.peer().ask("tools/list", {"_meta": meta})
    assert answer["error"]["code"] == number


async def test_an_unknown_version_is_answered_with_those_that_are_known(rig):
    peer = rig.peer()
    answer = await peer.current("tools/list", meta={META + "protocolVersion": "2030-01-01"})
    assert answer["error"]["data"] == {"supported": ["2026-07-28"], "requested": "2030-01-01"}
    assert "result" in await peer.current("tools/list", 2)


async def test_later_requests_have_to_say_it_as_well(rig):
    peer = rig.peer()
    await peer.current("server/discover")
    assert (await peer.ask("tools/list", {}, 2))["error"]["code"] == -32602
    assert (await peer.ask("tools/list", [], 3))["error"]["code"] == -32602
    assert "result" in await peer.current("tools/list", 4)


async def test_the_binding_may_be_named(rig):
    answer = await rig.peer().current("tools/list", meta={"io.mcplusplus/bindingId": "mcp-binding/2026-07-28"})
    assert "result" in answer


@pytest.mark.parametrize("method", ["initialize", "notifications/initialized"])
async def test_the_handshake_of_the_other_binding_is_rejected(rig, method):
    answer = await rig.peer().current(method)
    assert answer["error"]["code"] == -32601
    assert answer["error"]["data"] == {
        "bindingId": "mcp-binding/2026-07-28",
        "supportedVersions": ["2026-07-28"],
        "reason": "initialize_as_current_rejected",
    }


@pytest.mark.parametrize("method", ["tools.list", "ping", "resources/list", "mcp++/execute", ""])
async def test_an_unknown_method_is_one(rig, method):
    assert (await rig.peer().current(method))["error"]["code"] == -32601


# --- tools ---------------------------------------------------------------------------------------------------------


async def test_tools_are_listed_by_name_with_their_schemas(rig):
    rig.tools.shown = [descriptor("zeta"), descriptor("alpha", output_schema=b'{"type":"object"}')]
    result = (await rig.peer().current("tools/list"))["result"]
    assert [tool["name"] for tool in result["tools"]] == ["alpha", "zeta"]
    assert result["tools"][0]["inputSchema"] == {"type": "object"}
    assert "nextCursor" not in result


async def test_a_long_list_comes_in_pages_that_fit(rig):
    text = "x" * 40_000
    rig.tools.shown = [descriptor(f"t{n:02}", input_schema=b'{"type":"object","title":"%s"}' % text.encode())
                       for n in range(20)]  # fmt: skip
    peer, names, cursor, pages = rig.peer(), [], {}, 0
    while cursor is not None:
        result = (await peer.current("tools/list", f"page {pages}", **cursor))["result"]
        names += [tool["name"] for tool in result["tools"]]
        cursor, pages = ({"cursor": result["nextCursor"]} if "nextCursor" in result else None), pages + 1
    assert names == [f"t{n:02}" for n in range(20)]
    assert pages == 4


async def test_a_tool_has_its_title_and_hints(rig):
    rig.tools.shown = [descriptor("a", annotations=ToolAnnotations(read_only_hint=True))]
    rig.tools.shown[0] = msgspec.structs.replace(rig.tools.shown[0], title="A tool")
    [tool] = (await rig.peer().current("tools/list"))["result"]["tools"]
    assert (tool["title"], tool["annotations"]) == ("A tool", {"readOnlyHint": True})


async def test_a_tool_that_fits_on_no_page_is_left_out(rig):
    large = b'{"type":"object","title":"%s"}' % (b"x" * 300_000)
    rig.tools.shown = [descriptor("a"), descriptor("b", input_schema=large), descriptor("c")]
    result = (await rig.peer().current("tools/list"))["result"]
    assert [tool["name"] for tool in result["tools"]] == ["a", "c"]
    assert "nextCursor" not in result


async def test_a_cursor_is_text(rig):
    assert (await rig.peer().current("tools/list", cursor=5))["error"]["code"] == -32602


async def test_a_call_gives_structured_content_and_its_text(rig):
    result = (await rig.peer().current("tools/call", name="echo", arguments={"a": [1]}))["result"]
    assert result["structuredContent"] == {"a": [1]}
    assert result["content"] == [{"type": "text", "text": '{"a": [1]}'}]
    assert "isError" not in result
    assert result["_meta"]["greenroom/runtime"] == "general"
    assert result["_meta"]["greenroom/duration_ms"] == 2.0
    assert rig.tools.calls == [(PEER, "echo", {"a": [1]})]


@pytest.mark.parametrize(
    ("given", "structured", "content"),
    [
        (gives("hi", "text"), None, [{"type": "text", "text": "hi"}]),
        (gives([1, 2], "wrapped"), {"result": [1, 2]}, [{"type": "text", "text": "[1, 2]"}]),
        (gives([{"type": "text", "text": "a"}], "content"), None, [{"type": "text", "text": "a"}]),
        (gives({"a": 1}, "object"), {"a": 1}, [{"type": "text", "text": '{"a": 1}'}]),
    ],
)
async def test_each_shape_of_a_result(rig, given, structured, content):
    rig.tools.results["it"] = given
    result = (await rig.peer().current("tools/call", name="it"))["result"]
    assert (result.get("structuredContent"), result["content"]) == (structured, content)


async def test_a_tool_may_say_that_it_failed(rig):
    rig.tools.results["it"] = gives({"success": False}, is_error=True)
    assert (await rig.peer().current("tools/call", name="it"))["result"]["isError"] is True


@pytest.mark.parametrize("arguments", [None, {}])
async def test_arguments_may_be_left_out(rig, arguments):
    assert "result" in await rig.peer().current("tools/call", name="echo", arguments=arguments)
    assert rig.tools.calls == [(PEER, "echo", {})]


@pytest.mark.parametrize(
    "params", [{}, {"name": ""}, {"name": 5}, {"name": "echo", "arguments": [1]}, {"name": "echo", "arguments": "x"}]
)
async def test_a_call_names_a_tool_and_has_an_object(rig, params):
    assert (await rig.peer().current("tools/call", **params))["error"]["code"] == -32602
    assert not rig.tools.calls


async def test_an_unknown_tool_is_an_error_of_the_request(rig):
    assert code(await rig.peer().current("tools/call", name="none")) == (-32602, "UNKNOWN_TOOL")


@pytest.mark.parametrize(
    ("failure", "word"),
    [
        (ToolExecutionError("fail", "general", "no paper"), "TOOL_FAILED"),
        (InvalidArgumentsError("a is missing"), "INVALID_ARGUMENTS"),
        (UnavailableError("no printer"), "UNAVAILABLE"),
        (BusyError("later"), "BUSY"),
    ],
)
async def test_a_call_that_fails_as_a_call_is_a_result(rig, failure, word):
    rig.tools.failure = failure
    result = (await rig.peer().current("tools/call", name="fail"))["result"]
    assert result["isError"] is True
    assert result["content"] == [{"type": "text", "text": str(failure)}]
    assert result["_meta"]["greenroom/code"] == word
    assert result["_meta"]["greenroom/retryable"] is failure.retryable


@pytest.mark.parametrize(
    ("failure", "number", "word"),
    [
        (ForbiddenError("no"), 403, "FORBIDDEN"),
        (from_info(ErrorInfo(code="RATE_LIMITED", message="slower", retryable=True)), 429, "RATE_LIMITED"),
        (from_info(ErrorInfo(code="UNAUTHORIZED", message="who?")), 401, "UNAUTHORIZED"),
        (from_info(ErrorInfo(code="LIMIT_EXCEEDED", message="too much")), 413, "LIMIT_EXCEEDED"),
        (DeadlineExceededError("late"), 408, "TIMEOUT"),
    ],
)
async def test_a_call_that_is_refused_is_an_error_outside_of_the_reserved_numbers(rig, failure, number, word):
    rig.tools.failure = failure
    answer = await rig.peer().current("tools/call", name="fail")
    assert code(answer) == (number, word)
    assert answer["error"]["data"]["retryable"] is failure.retryable


async def test_a_fault_of_ours_is_told_without_its_text(rig):
    rig.tools.failure = ValueError("secret")
    peer = rig.peer()
    answer = await peer.current("tools/call", name="fail")
    assert answer["error"] == {"code": -32603, "message": "internal error (ValueError)"}
    assert "result" in await peer.current("tools/call", 2, name="echo")


async def test_a_call_that_takes_too_long_is_ended(autojump_clock):
    async with open_rig(request_timeout_s=5) as rig:
        assert code(await rig.peer().current("tools/call", name="wait")) == (408, "TIMEOUT")
        assert rig.tools.cancelled == 1


# --- sizes ---------------------------------------------------------------------------------------------------------


async def test_a_result_that_is_too_large_for_a_message_is_an_error(rig):
    rig.tools.results["big"] = gives("x" * (1 << 20), "text")
    peer = rig.peer()
    assert code(await peer.current("tools/call", name="big")) == (413, "LIMIT_EXCEEDED")
    assert "result" in await peer.current("tools/call", 2, name="echo")


async def test_no_more_is_sent_than_the_peer_takes(rig):
    rig.tools.results["big"] = gives("x" * 3000, "text")
    small = {META + "clientCapabilities": {"mcp++": {"limits": {"max_frame_bytes": 2000}}}}
    peer = rig.peer()
    assert code(await peer.current("tools/call", meta=small, name="big")) == (413, "LIMIT_EXCEEDED")
    assert "result" in await peer.current("tools/call", 2, name="big")


# --- tokens --------------------------------------------------------------------------------------------------------


async def test_where_a_secret_is_configured_each_request_shows_a_token():
    async with open_rig(check_token=only_token("good")) as rig:
        peer = rig.peer()
        assert "result" in await peer.current("server/discover", 0)
        assert code(await peer.current("tools/list", 1)) == (401, "UNAUTHORIZED")
        for number, bad in enumerate(("bad", 5, "x" * 2000), 2):
            said = {"io.greenroom/callToken": bad}
            assert code(await peer.current("tools/call", number, said, name="echo")) == (401, "UNAUTHORIZED")
        assert not rig.tools.calls
        said = {"io.greenroom/callToken": "good"}
        assert "result" in await peer.current("tools/list", 6, said)
        assert "result" in await peer.current("tools/call", 7, said, name="echo")


@pytest.mark.parametrize(
    ("failure", "number", "word"),
    [(ForbiddenError("too old", retryable=True), 401, "UNAUTHORIZED"),
     (from_info(ErrorInfo(code="RATE_LIMITED", message="later", retryable=True)), 429, "RATE_LIMITED")],
)  # fmt: skip
async def test_why_a_token_is_no_good_is_told(failure, number, word):
    def check(token, peer_id):
        raise failure

    async with open_rig(check_token=check) as rig:
        answer = await rig.peer().current("tools/list", meta={"io.greenroom/callToken": "t"})
        assert (code(answer), answer["error"]["data"]["retryable"]) == ((number, word), True)
        assert answer["error"]["message"] == str(failure)


async def test_the_peer_that_a_token_is_held_against_is_the_proven_one():
    seen = []
    async with open_rig(check_token=lambda token, peer_id: seen.append((token, peer_id))) as rig:
        token = base64.b64encode(b"t").decode()
        await rig.peer(OTHER).current("tools/list", meta={"io.greenroom/callToken": token}, sender=HERE)
    assert seen == [(token, OTHER)]
