# SPDX-License-Identifier: AGPL-3.0-or-later
"""Revision 2026-07-28: the order of checks, the routing headers, calls, and answers that turn into streams."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from actors.errors import BusyError, InvalidArgumentsError, OutcomeUnknownError, RuntimeUnavailableError
from actors.settings import ServerSettings, Settings
from actors.tool_messages import LogItem, Progress, ToolCall, ToolResult
from gateway.mcp import tools_methods
from gateway.mcp.testing import (
    META,
    OnItem,
    ScriptedBackend,
    descriptor,
    drain,
    echo,
    legacy,
    messages,
    modern,
    post,
    protocol,
    result,
    said,
)
from gateway.types import Answer, Request, Stream

PREFIX = "io.modelcontextprotocol/"
CALL = {"name": "echo", "arguments": {"text": "hi"}}


def without(request: Request, *headers: str) -> Request:
    kept = {name: value for name, value in request.headers.items() if name not in headers}
    return Request(request.method, kept, request.body)


def body(**members: object) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": META}, **members}


def with_meta(method: str = "tools/list", **meta: object) -> dict[str, object]:
    return body(method=method, params={"_meta": {name.replace("_", "/", 1): value for name, value in meta.items()}})


ROUTED = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/list"}
ONLY_VERSION = {"_meta": {PREFIX + "protocolVersion": "2026-07-28"}}
ONLY_CAPABILITIES = {"_meta": {PREFIX + "clientCapabilities": {}}}
NEW = {**META, PREFIX + "protocolVersion": "v999.0.0"}

# Each row breaks one rule, and most rows also one of a later step: the earlier step must answer.
REFUSALS: list[tuple[str, Request, int, int]] = [
    ("bad JSON", post(b"{", ROUTED), 400, -32700),
    ("array", post([body()], ROUTED), 400, -32600),
    ("response", post({"jsonrpc": "2.0", "id": 1, "result": {}}, ROUTED), 400, -32600),
    ("not an object", post(b"3", ROUTED), 400, -32600),
    ("no jsonrpc, no _meta", post(body(jsonrpc="1.0", params={}), ROUTED), 400, -32600),
    ("id null", post(body(id=None), ROUTED), 400, -32600),
    ("id a fraction", post(body(id=1.5), ROUTED), 400, -32600),
    ("id too long", post(body(id="x" * 257), ROUTED), 400, -32600),
    ("method a number", post(body(method=7), ROUTED), 400, -32600),
    ("header twice, no _meta", post(body(params={}), ROUTED, repeated=frozenset({"mcp-method"})), 400, -32020),
    ("param header twice", post(body(), ROUTED, repeated=frozenset({"mcp-param-x"})), 400, -32020),
    ("no params, no Mcp-Method", post(body(params=None), {"mcp-protocol-version": "2026-07-28"}), 400, -32602),
    ("params an array", post(body(params=[1]), ROUTED), 400, -32602),
    ("_meta a number", post(body(params={"_meta": 5}), ROUTED), 400, -32602),
    ("no capabilities", post(body(params=ONLY_VERSION), ROUTED), 400, -32602),
    ("no version in _meta", post(body(params=ONLY_CAPABILITIES), ROUTED), 400, -32602),
    ("version a number", modern("tools/list", meta={PREFIX + "protocolVersion": 5}), 400, -32602),
    ("capabilities a list", modern("tools/list", meta={PREFIX + "clientCapabilities": []}), 400, -32602),
    ("no version header", without(modern("tools/list"), "mcp-protocol-version"), 400, -32020),
    ("header E, body newer", modern("tools/list", meta=NEW), 400, -32020),
    ("no Mcp-Method", without(modern("tools/list"), "mcp-method"), 400, -32020),
    ("wrong Mcp-Method", modern("tools/list", headers={"mcp-method": "prompts/list"}), 400, -32020),
    ("Mcp-Method in capitals", modern("tools/list", headers={"mcp-method": "TOOLS/LIST"}), 400, -32020),
    ("no Mcp-Name", without(modern("tools/call", CALL), "mcp-name"), 400, -32020),
    ("wrong Mcp-Name", modern("tools/call", CALL, {"mcp-name": "other"}), 400, -32020),
    ("broken Mcp-Name", modern("tools/call", CALL, {"mcp-name": "=?base64?!!?="}), 400, -32020),
    (
        "wrong Mcp-Name, newer version",
        modern("tools/call", CALL, {"mcp-name": "x", "mcp-protocol-version": "v999.0.0"}, meta=NEW),
        400,
        -32020,
    ),
    ("newer everywhere", modern("nope", headers={"mcp-protocol-version": "v999.0.0"}, meta=NEW), 400, -32022),
    ("unknown method", modern("unknown/method"), 404, -32601),
    ("no name", modern("tools/call", {}, {"mcp-name": "echo"}), 400, -32020),
    ("unknown tool", modern("tools/call", {"name": "nope"}), 400, -32602),
    ("arguments a list", modern("tools/call", {"name": "echo", "arguments": [1]}), 400, -32602),
    ("bad cursor", modern("tools/list", {"cursor": "x"}), 400, -32602),
    ("cursor a number", modern("tools/list", {"cursor": 5}), 400, -32602),
    ("unknown log level", modern("tools/call", CALL, meta={PREFIX + "logLevel": "loud"}), 400, -32602),
    ("progress token a list", modern("tools/call", CALL, meta={"progressToken": []}), 400, -32602),
]


@pytest.mark.parametrize(
    ("request_", "status", "code"), [row[1:] for row in REFUSALS], ids=[row[0].replace(" ", "-") for row in REFUSALS]
)
async def test_refuses(request_: Request, status: int, code: int) -> None:
    endpoint = protocol()
    async with endpoint.running():
        answer = await endpoint.handle(request_)
    assert (answer.status, said(answer)["error"]["code"]) == (status, code)


@pytest.mark.parametrize(
    "method", ["initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"]
)
async def test_methods_of_the_handshake_revisions_are_gone(method: str) -> None:
    answer = await protocol().handle(modern(method))
    assert (answer.status, said(answer)["error"]["code"]) == (404, -32601)


@pytest.mark.parametrize("id_", [0, -1, 2**80, "", "a\nb", "ü", "0"])
async def test_the_id_is_echoed_with_its_type(id_: object) -> None:
    endpoint = protocol()
    for method in ("server/discover", "unknown/method"):
        answer = await endpoint.handle(modern(method, id=id_))
        assert isinstance(answer, Answer)
        assert said(answer)["id"] == id_
        assert type(said(answer)["id"]) is type(id_)
        assert b"\n" not in answer.body


async def test_an_error_without_a_readable_id_has_no_id() -> None:
    assert "id" not in said(await protocol().handle(post(b"{", ROUTED)))


async def test_an_unsupported_version_is_told_which_ones_are() -> None:
    request = modern("server/discover", headers={"mcp-protocol-version": "v999.0.0"}, meta=NEW)
    error = said(await protocol().handle(request))["error"]
    assert error["data"] == {"supported": ["2026-07-28"], "requested": "v999.0.0"}


async def test_notifications_are_taken_and_dropped() -> None:
    message = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
    answer = await protocol().handle(post(message, ROUTED))
    assert (answer.status, answer.body) == (202, b"")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "headers",
    [
        {"mcp-name": "  echo "},
        {"mcp-name": "=?base64?ZWNobw==?="},
        {"mcp-method": " tools/call"},
        {"mcp-session-id": "anything", "last-event-id": "7"},
        {"mcp-param-unknown": "x"},
        {"content-type": "application/json; charset=utf-8"},
        {"content-type": None},
        {"accept": None},
        {"accept": "*/*"},
        {"accept": "application/json"},
    ],
)
async def test_tolerates(headers: dict[str, str | None]) -> None:
    endpoint = protocol()
    async with endpoint.running():
        answer = await endpoint.handle(modern("tools/call", CALL, headers))
    assert answer.status == 200
    assert "mcp-session-id" not in dict(answer.headers)
    assert said(answer)["result"]["content"] == [{"type": "text", "text": '{"text":"hi"}'}]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "text/plain"}, 400),
        ({"accept": "text/html"}, 406),
        ({"accept": "application/json;q=0"}, 406),
        ({"host": "evil.example.com"}, 421),
        ({"origin": "http://evil.example.com"}, 403),
    ],
)
async def test_http_conditions(headers: dict[str, str], status: int) -> None:
    assert (await protocol().handle(modern("server/discover", headers=headers))).status == status


async def test_a_body_over_the_limit_is_413() -> None:
    endpoint = protocol(settings=Settings(server=ServerSettings(max_body_bytes=10)))
    assert (await endpoint.handle(modern("server/discover"))).status == 413


async def test_strict_wants_both_types_and_a_content_type() -> None:
    endpoint = protocol(settings=Settings(server=ServerSettings(strict=True)))
    assert (await endpoint.handle(modern("server/discover"))).status == 200
    assert (await endpoint.handle(modern("server/discover", headers={"accept": "*/*"}))).status == 406
    assert (await endpoint.handle(modern("server/discover", headers={"content-type": None}))).status == 400


@pytest.mark.parametrize("verb", ["GET", "DELETE"])
async def test_other_verbs_are_405(verb: str) -> None:
    request = modern("server/discover")
    answer = await protocol().handle(Request(verb, request.headers, b""))
    assert (answer.status, dict(answer.headers)["allow"]) == (405, "POST")


async def test_an_event_stream_only_client_gets_one() -> None:
    answer = await protocol().handle(modern("server/discover", headers={"accept": "text/event-stream"}))
    assert isinstance(answer, Answer)
    assert dict(answer.headers)["content-type"] == "text/event-stream"
    assert messages(answer.body)[0]["result"]["supportedVersions"] == ["2026-07-28"]


async def test_discover_needs_no_client_info() -> None:
    request = modern("server/discover")
    message = msgspec.json.decode(request.body)
    del message["params"]["_meta"][PREFIX + "clientInfo"]
    found = said(await protocol().handle(post(message, dict(request.headers))))["result"]
    assert found["capabilities"]["tools"] == {"listChanged": True}
    assert found["_meta"] == {PREFIX + "serverInfo": {"name": "greenroom", "version": "1.2.3"}}
    assert (found["resultType"], found["cacheScope"], found["ttlMs"] >= 0) == ("complete", "private", True)


# --- the version header names a legacy revision ----------------------------------------------------------------------


async def test_a_legacy_header_over_a_modern_body_is_served_by_the_body() -> None:
    endpoint = protocol()
    async with endpoint.running():
        request = modern("tools/call", CALL, {"mcp-protocol-version": "2025-11-25"})
        assert said(await endpoint.handle(request))["result"]["resultType"] == "complete"
        assert (await endpoint.handle(without(request, "mcp-method", "mcp-name"))).status == 200
        wrong = modern("tools/call", CALL, {"mcp-protocol-version": "2025-11-25", "mcp-name": "x"})
        assert (await endpoint.handle(wrong)).status == 400


async def test_strict_refuses_a_legacy_header_over_a_modern_body() -> None:
    endpoint = protocol(settings=Settings(server=ServerSettings(strict=True)))
    answer = await endpoint.handle(modern("tools/list", headers={"mcp-protocol-version": "2025-11-25"}))
    assert (answer.status, said(answer)["error"]["code"]) == (400, -32020)


async def test_a_legacy_version_in_header_and_meta_is_unsupported() -> None:
    request = modern(
        "tools/list",
        headers={"mcp-protocol-version": "2025-11-25"},
        meta={PREFIX + "protocolVersion": "2025-11-25"},
    )
    assert said(await protocol().handle(request))["error"]["code"] == -32022


# --- tools/list ----------------------------------------------------------------------------------------------------


async def test_pages_follow_each_other_and_survive_a_change_of_the_list() -> None:
    backend = ScriptedBackend(descriptors=[descriptor(name) for name in ("a", "b", "c", "d", "e")])
    endpoint = protocol(backend, page_size=2)
    first = said(await endpoint.handle(modern("tools/list")))["result"]
    assert [tool["name"] for tool in first["tools"]] == ["a", "b"]
    backend.replace([descriptor(name) for name in ("a", "bb", "c", "d")])
    second = said(await endpoint.handle(modern("tools/list", {"cursor": first["nextCursor"]})))["result"]
    assert [tool["name"] for tool in second["tools"]] == ["bb", "c"]
    third = said(await endpoint.handle(modern("tools/list", {"cursor": second["nextCursor"]})))["result"]
    assert [tool["name"] for tool in third["tools"]] == ["d"]
    assert "nextCursor" not in third
    again = said(await endpoint.handle(modern("tools/list", {"cursor": ""})))["result"]
    assert [tool["name"] for tool in again["tools"]] == ["a", "bb"]


async def test_broken_tools_are_not_listed() -> None:
    backend = ScriptedBackend(descriptors=[descriptor("a"), descriptor("b", broken="no module x")])
    found = said(await protocol(backend).handle(modern("tools/list")))["result"]
    assert [tool["name"] for tool in found["tools"]] == ["a"]


async def test_an_empty_list_is_a_list() -> None:
    backend = ScriptedBackend()
    backend.replace([])
    assert said(await protocol(backend).handle(modern("tools/list")))["result"]["tools"] == []


# --- tools/call ----------------------------------------------------------------------------------------------------


async def call(tool: Any, params: dict[str, object] | None = None, **fields: object) -> Any:
    endpoint = protocol(ScriptedBackend({"echo": tool}))
    async with endpoint.running():
        return said(await endpoint.handle(modern("tools/call", params or CALL, **fields)))  # type: ignore[arg-type]


async def test_the_arguments_reach_the_tool_as_they_were_sent() -> None:
    backend = ScriptedBackend()
    endpoint = protocol(backend)
    raw = b'{"a": 95.5, "b": 30, "big": 123456789012345678901234567890, "c": "\\u00e4"}'
    request = modern("tools/call", {"name": "echo", "arguments": msgspec.Raw(raw)}, principal="ada")
    async with endpoint.running():
        await endpoint.handle(request)
        await endpoint.handle(modern("tools/call", {"name": "echo"}))
        await endpoint.handle(modern("tools/call", {"name": "echo", "arguments": None}))
    assert [bytes(call.arguments) for call in backend.calls] == [raw, b"{}", b"{}"]
    assert [call.call_id for call in backend.calls] == ["call-1", "call-2", "call-3"]
    assert backend.calls[0].principal == "ada"


@pytest.mark.parametrize(
    ("error", "code", "retryable"),
    [
        (InvalidArgumentsError("text: must be a string"), "INVALID_ARGUMENTS", False),
        (BusyError("too many calls"), "BUSY", True),
        (RuntimeUnavailableError("p2p is off"), "RUNTIME_UNAVAILABLE", True),
        (OutcomeUnknownError("it may have taken effect"), "OUTCOME_UNKNOWN", False),
    ],
)
async def test_a_failed_call_is_a_result_that_says_why(error: Exception, code: str, retryable: bool) -> None:
    async def tool(_call: ToolCall, _on_item: OnItem) -> ToolResult:
        raise error

    found = (await call(tool))["result"]
    assert found["isError"] is True
    assert found["content"] == [{"type": "text", "text": str(error)}]
    assert (found["_meta"]["greenroom/code"], found["_meta"]["greenroom/retryable"]) == (code, retryable)
    assert found["_meta"]["greenroom/runtime"] == "general"
    assert found["resultType"] == "complete"


async def test_a_bug_shows_nothing_of_itself(caplog: pytest.LogCaptureFixture) -> None:
    async def tool(_call: ToolCall, _on_item: OnItem) -> ToolResult:
        raise ValueError("secret")

    error = (await call(tool))["error"]
    assert error["code"] == -32603
    assert "secret" not in error["message"]
    assert "secret" in caplog.text


async def test_a_tool_that_is_off_is_a_result_and_not_an_unknown_tool() -> None:
    async def tool(_call: ToolCall, _on_item: OnItem) -> ToolResult:
        raise RuntimeUnavailableError("p2p is off")

    endpoint = protocol(ScriptedBackend({"off": tool}, [descriptor("echo")]))
    found = said(await endpoint.handle(modern("tools/call", {"name": "off"})))["result"]
    assert found["_meta"]["greenroom/code"] == "RUNTIME_UNAVAILABLE"
    assert "greenroom/runtime" not in found["_meta"]


HEADER_SCHEMA = b'{"type":"object","properties":{"region":{"type":"string","x-mcp-header":"Region"}}}'


@pytest.mark.parametrize(
    ("arguments", "headers", "status"),
    [
        ({"region": "eu"}, {"mcp-param-region": "eu"}, 200),
        ({"region": "eu"}, {"mcp-param-region": "us"}, 400),
        ({"region": "eu"}, {}, 400),
        ({}, {"mcp-param-region": "eu"}, 400),
        ({"region": None}, {}, 200),
        ({"region": "ü"}, {"mcp-param-region": "=?base64?w7w=?="}, 200),
    ],
)
async def test_annotated_arguments_are_repeated_in_headers(
    arguments: dict[str, object], headers: dict[str, str], status: int
) -> None:
    endpoint = protocol(ScriptedBackend({"echo": echo}, [descriptor("echo", input_schema=HEADER_SCHEMA)]))
    async with endpoint.running():
        answer = await endpoint.handle(modern("tools/call", {"name": "echo", "arguments": arguments}, headers))
    assert answer.status == status
    if status == 400:
        assert said(answer)["error"]["code"] == -32020


# --- answers that turn into streams ----------------------------------------------------------------------------------


async def chatty(_call: ToolCall, on_item: OnItem) -> ToolResult:
    if on_item is not None:
        for done in (0.0, 50.0, 50.0, 99.5):
            on_item(Progress(progress=done, total=100.0, message="working"))
        on_item(LogItem(level="debug", data=b'"quiet"'))
        on_item(LogItem(level="warning", data=b'{\n"a": 1}', logger="tool"))
    await trio.lowlevel.checkpoint()
    return result("done")


async def test_progress_makes_the_answer_a_stream() -> None:
    endpoint = protocol(ScriptedBackend({"echo": chatty}))
    async with endpoint.running():
        answer = await endpoint.handle(modern("tools/call", CALL, id="r", meta={"progressToken": "t"}))
        assert dict(answer.headers)["content-type"] == "text/event-stream"
        *notices, last = await drain(answer)
    assert [(notice["params"]["progressToken"], notice["params"]["progress"]) for notice in notices] == [
        ("t", 0),
        ("t", 50),
        ("t", 99.5),
    ]
    assert (last["id"], last["result"]["content"][0]["text"]) == ("r", "done")


async def test_log_messages_come_at_the_wanted_level_only() -> None:
    endpoint = protocol(ScriptedBackend({"echo": chatty}))
    async with endpoint.running():
        request = modern("tools/call", CALL, meta={PREFIX + "logLevel": "info"})
        notice, _last = await drain(await endpoint.handle(request))
    assert notice["method"] == "notifications/message"
    assert notice["params"] == {"level": "warning", "data": {"a": 1}, "logger": "tool"}


async def test_nothing_is_sent_that_was_not_asked_for() -> None:
    assert (await call(chatty))["result"]["content"][0]["text"] == "done"


async def test_a_client_that_takes_json_only_gets_json() -> None:
    backend = ScriptedBackend({"echo": chatty})
    endpoint = protocol(backend)
    request = modern("tools/call", CALL, {"accept": "application/json"}, meta={"progressToken": 1})
    assert said(await endpoint.handle(request))["result"]["content"][0]["text"] == "done"
    assert backend.calls[0].progress is False


async def test_an_error_before_the_first_notification_keeps_its_status() -> None:
    endpoint = protocol()
    async with endpoint.running():
        answer = await endpoint.handle(modern("tools/call", {"name": "nope"}, meta={"progressToken": 1}))
    assert answer.status == 400


async def test_a_slow_call_becomes_a_stream_with_comments(autojump_clock: trio.testing.MockClock) -> None:
    async def tool(_call: ToolCall, _on_item: OnItem) -> ToolResult:
        await trio.sleep(40)
        return result("late")

    endpoint = protocol(ScriptedBackend({"echo": tool}))
    async with endpoint.running():
        answer = await endpoint.handle(modern("tools/call", CALL))
        assert trio.current_time() == pytest.approx(15)
        assert isinstance(answer, Stream)
        pieces = [piece async for piece in answer.events]
    assert pieces[0] == b": \n\n"
    assert messages(pieces[-1])[0]["result"]["content"][0]["text"] == "late"


async def test_a_tool_known_to_be_quick_runs_in_the_task_of_its_request(
    autojump_clock: trio.testing.MockClock,
) -> None:
    seconds = 0.0
    tasks: list[object] = []

    async def tool(_call: ToolCall, _on_item: OnItem) -> ToolResult:
        tasks.append(trio.lowlevel.current_task())
        await trio.sleep(seconds)
        return result("x")

    endpoint = protocol(ScriptedBackend({"echo": tool}))
    async with endpoint.running():
        for _ in range(tools_methods.QUICK_CALLS):
            await endpoint.handle(modern("tools/call", CALL))
        here = trio.lowlevel.current_task()
        assert here not in tasks
        seconds = 2.0
        await endpoint.handle(modern("tools/call", CALL))
        assert tasks[-1] is here
        await endpoint.handle(modern("tools/call", CALL))
        assert tasks[-1] is not here


# --- cancellation ----------------------------------------------------------------------------------------------------


class Waiter:
    def __init__(self) -> None:
        self.started = trio.Event()
        self.cancelled = trio.Event()

    async def tool(self, _call: ToolCall, on_item: OnItem) -> ToolResult:
        self.started.set()
        if on_item is not None:
            on_item(Progress(progress=1.0))
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            self.cancelled.set()
            raise
        raise AssertionError


@pytest.mark.parametrize("timeout_s", [5.0, 60.0], ids=["direct", "live"])
async def test_cancelling_the_request_cancels_the_call(timeout_s: float) -> None:
    waiter = Waiter()
    endpoint = protocol(ScriptedBackend({"echo": waiter.tool}, [descriptor("echo", timeout_s=timeout_s)]))
    with trio.fail_after(1):
        async with endpoint.running(), trio.open_nursery() as nursery:
            nursery.start_soon(endpoint.handle, modern("tools/call", CALL))
            await waiter.started.wait()
            nursery.cancel_scope.cancel()
        await waiter.cancelled.wait()
    assert endpoint.statistics().live_calls == 0


async def test_closing_the_stream_cancels_the_call() -> None:
    waiter = Waiter()
    endpoint = protocol(ScriptedBackend({"echo": waiter.tool}))
    with trio.fail_after(1):
        async with endpoint.running():
            answer = await endpoint.handle(modern("tools/call", CALL, meta={"progressToken": 1}))
            assert isinstance(answer, Stream)
            await answer.events.aclose()
            await waiter.cancelled.wait()
            await wait_all_tasks_blocked()
            assert endpoint.statistics().live_calls == 0


async def test_stopping_ends_open_calls_with_an_error() -> None:
    waiter = Waiter()
    endpoint = protocol(ScriptedBackend({"echo": waiter.tool}))
    answers: list[Answer | Stream] = []

    async def client() -> None:
        answers.append(await endpoint.handle(modern("tools/call", CALL)))

    with trio.fail_after(1):
        async with trio.open_nursery() as nursery, endpoint.running():
            nursery.start_soon(client)
            await waiter.started.wait()
    assert answers[0].status == 503
    assert said(answers[0])["id"] == 1


# --- subscriptions/listen --------------------------------------------------------------------------------------------


async def test_a_listen_is_acknowledged_then_told_then_ended() -> None:
    endpoint = protocol()
    async with endpoint.running():
        wanted = {"notifications": {"toolsListChanged": True, "promptsListChanged": True}}
        answer = await endpoint.handle(modern("subscriptions/listen", wanted, id="sub"))
        assert isinstance(answer, Stream)
        endpoint.list_changed("tools")
        endpoint.list_changed("tools")
        first, second = messages(await anext(aiter(answer.events)))
        tag = {PREFIX + "subscriptionId": "sub"}
        assert first["params"] == {
            "_meta": tag,
            "notifications": {"toolsListChanged": True, "promptsListChanged": True},
        }
        assert second["method"] == "notifications/tools/list_changed"
        assert second["params"]["_meta"] == tag
        assert endpoint.statistics().listeners == 1
    (end,) = await drain(answer)
    assert (end["id"], end["result"]["resultType"], end["result"]["_meta"][PREFIX + "subscriptionId"]) == (
        "sub",
        "complete",
        "sub",
    )
    assert endpoint.statistics().listeners == 0


async def test_a_listen_hears_only_what_it_asked_for(autojump_clock: trio.testing.MockClock) -> None:
    endpoint = protocol()
    async with endpoint.running():
        answer = await endpoint.handle(modern("subscriptions/listen", {"notifications": {"promptsListChanged": True}}))
        assert isinstance(answer, Stream)
        events = aiter(answer.events)
        assert messages(await anext(events))[0]["params"]["notifications"] == {"promptsListChanged": True}
        endpoint.list_changed("tools")
        assert await anext(events) == b": \n\n"
        await answer.events.aclose()
    assert endpoint.statistics().listeners == 0


async def test_a_listen_must_be_a_stream_and_name_notifications() -> None:
    endpoint = protocol()
    wanted = {"notifications": {}}
    json_only = await endpoint.handle(modern("subscriptions/listen", wanted, {"accept": "application/json"}))
    assert json_only.status == 406
    assert (await endpoint.handle(modern("subscriptions/listen"))).status == 400


async def test_legacy_requests_without_a_session_are_told_to_begin() -> None:
    answer = await protocol().handle(legacy("tools/list"))
    assert (answer.status, said(answer)["error"]["code"], said(answer)["id"]) == (400, -32600, 1)


async def test_a_cursor_that_was_not_given_out_is_refused() -> None:
    names = [descriptor(name) for name in ("a", "b", "c")]
    endpoint = protocol(ScriptedBackend(descriptors=names), page_size=1)
    cursor = said(await endpoint.handle(modern("tools/list")))["result"]["nextCursor"]
    forged = base64.urlsafe_b64encode(base64.urlsafe_b64decode(cursor)[:-1] + b"b").decode()
    for wrong in (forged, cursor[:-1], "ü", "===="):
        answer = await endpoint.handle(modern("tools/list", {"cursor": wrong}))
        assert (answer.status, said(answer)["error"]["code"]) == (400, -32602)
    assert (await endpoint.handle(modern("tools/list", {"cursor": cursor}))).status == 200
