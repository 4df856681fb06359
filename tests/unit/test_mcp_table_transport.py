# SPDX-License-Identifier: AGPL-3.0-or-later
"""The rules of HTTP by revision, as a table: one function per topic, one row per revision."""

from __future__ import annotations

import pytest
import trio

from actors.tool_messages import Progress, ToolCall, ToolResult
from gateway.mcp.eras import MODERN_VERSION
from gateway.mcp.protocol import Protocol
from gateway.mcp.testing import (
    OnItem,
    ScriptedBackend,
    legacy,
    messages,
    modern,
    open_session,
    post,
    protocol,
    result,
    said,
)
from gateway.types import Answer, Request, Stream
from gateway.wire import STREAM_HEADERS

A, B, C, D, E = "2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", MODERN_VERSION
LEGACY = (A, B, C, D)
EACH = pytest.mark.parametrize("version", [*LEGACY, E])
EACH_LEGACY = pytest.mark.parametrize("version", LEGACY)
CALL = {"name": "echo", "arguments": {"text": "hi"}}
ROUTED: dict[str, str | None] = {"mcp-protocol-version": E, "mcp-method": "tools/list"}
Headers = dict[str, str | None]


async def chatty(_call: ToolCall, on_item: OnItem) -> ToolResult:
    if on_item is not None:
        on_item(Progress(progress=1.0))
    await trio.lowlevel.checkpoint()
    return result("done")


async def talk(endpoint: Protocol, version: str) -> Headers:
    """The headers of a conversation at this revision."""
    return ROUTED if version == E else await open_session(endpoint, version)


def request(version: str, headers: Headers, method: str, params: dict[str, object] | None = None) -> Request:
    return modern(method, params) if version == E else legacy(method, params, headers)


def verb(name: str, headers: Headers) -> Request:
    return Request(name, {key: value for key, value in {**legacy("x").headers, **headers}.items() if value is not None})


@EACH
async def test_get_and_delete(version: str) -> None:
    endpoint = protocol()
    headers = await talk(endpoint, version)
    get, delete = await endpoint.handle(verb("GET", headers)), await endpoint.handle(verb("DELETE", headers))
    assert (get.status, delete.status) == ((405, 405) if version == E else (200, 200))
    assert isinstance(get, Answer if version == E else Stream)
    assert dict(get.headers).get("allow") == ("POST" if version == E else None)
    if version != E:
        assert (await endpoint.handle(legacy("ping", headers=headers))).status == 404


@EACH
async def test_other_verbs(version: str) -> None:
    endpoint = protocol()
    answer = await endpoint.handle(verb("PUT", await talk(endpoint, version)))
    assert (answer.status, dict(answer.headers)["allow"]) == (405, "POST" if version == E else "POST, GET, DELETE")


@EACH
async def test_arrays_exist_in_one_revision(version: str) -> None:
    endpoint = protocol()
    headers = await talk(endpoint, version)
    answer = await endpoint.handle(post([{"jsonrpc": "2.0", "id": 1, "method": "ping"}], headers))
    if version == B:
        assert (answer.status, said(answer)[0]["result"]) == (200, {})
    else:
        assert (answer.status, said(answer)["error"]["code"]) == (400, -32600)


@EACH
async def test_an_array_of_responses_or_notifications_is_accepted_without_a_body(version: str) -> None:
    endpoint = protocol()
    headers = await talk(endpoint, version)
    for message in ({"id": 1, "result": {}}, {"method": "notifications/initialized"}):
        answer = await endpoint.handle(post([{"jsonrpc": "2.0", **message}], headers))
        assert answer.status == (202 if version == B else 400)


@EACH
async def test_notifications_are_accepted_without_a_body(version: str) -> None:
    endpoint = protocol()
    headers = await talk(endpoint, version)
    for method in ("notifications/initialized", "notifications/roots/list_changed", "notifications/made/up"):
        answer = await endpoint.handle(post({"jsonrpc": "2.0", "method": method}, headers))
        assert isinstance(answer, Answer)
        assert (answer.status, answer.body) == (202, b"")


@EACH
async def test_responses_are_for_sessions(version: str) -> None:
    endpoint = protocol()
    headers = await talk(endpoint, version)
    answer = await endpoint.handle(post({"jsonrpc": "2.0", "id": 1, "result": {}}, headers))
    assert answer.status == (400 if version == E else 202)


@EACH
async def test_how_a_stream_looks(version: str) -> None:
    """D alone begins with an empty event; E has no ids, since nothing can be resumed."""
    endpoint = protocol(ScriptedBackend({"echo": chatty}))
    async with endpoint.running():
        headers = await talk(endpoint, version)
        call = request(version, headers, "tools/call", {**CALL, "_meta": {"progressToken": 1}})
        if version == E:
            call = modern("tools/call", CALL, meta={"progressToken": 1})
        answer = await endpoint.handle(call)
        assert isinstance(answer, Stream)
        text = b"".join([piece async for piece in answer.events])
    events = text.removesuffix(b"\n\n").split(b"\n\n")
    primed = events[0].endswith(b"\ndata:")
    assert primed == (version == D)
    if primed:
        assert b"\nretry: 500\n" in events.pop(0)
    ids = [line for event in events for line in event.split(b"\n") if line.startswith(b"id: ")]
    assert len(ids) == (0 if version == E else len(events))
    assert len(set(ids)) == len(ids)
    assert [message.get("method", message.get("id")) for message in messages(text)] == ["notifications/progress", 1]


def test_streams_are_not_held_back_on_the_way() -> None:
    assert ("x-accel-buffering", "no") in STREAM_HEADERS


@EACH
async def test_session_ids_are_never_made_nor_echoed_without_a_handshake(version: str) -> None:
    endpoint = protocol()
    headers = await talk(endpoint, version)
    answer = await endpoint.handle(request(version, headers | {"mcp-session-id": "x"}, "tools/list"))
    assert "mcp-session-id" not in dict(answer.headers)
    made = modern("initialize") if version == E else legacy("initialize", {"protocolVersion": version})
    assert ("mcp-session-id" in dict((await endpoint.handle(made)).headers)) == (version != E)


@EACH_LEGACY
async def test_the_session_id_is_needed(version: str) -> None:
    endpoint = protocol()
    headers = await open_session(endpoint, version)
    for id_, status in ((None, 400), ("gone", 404)):
        assert (await endpoint.handle(legacy("ping", headers=headers | {"mcp-session-id": id_}))).status == status


@pytest.mark.parametrize(
    ("version", "header", "status", "code"),
    [(version, header, status, -32600) for version in LEGACY for header, status in ((None, 200), ("v9", 400))]
    + [(E, None, 400, -32020), (E, D, 400, -32020), (E, "v9", 400, -32020)],
)
async def test_the_version_header(version: str, header: str | None, status: int, code: int) -> None:
    endpoint = protocol()
    if version == E:
        # A legacy header over a modern body is a quirk, with a table of its own.
        of_body = "v8" if header == D else E
        meta = {"io.modelcontextprotocol/protocolVersion": of_body}
        answer = await endpoint.handle(modern("tools/list", headers={"mcp-protocol-version": header}, meta=meta))
    else:
        headers = await open_session(endpoint, version) | {"mcp-protocol-version": header}
        answer = await endpoint.handle(legacy("ping", headers=headers))
    assert answer.status == status
    assert status == 200 or said(answer)["error"]["code"] == code


@EACH
async def test_foreign_origins_are_refused(version: str) -> None:
    endpoint = protocol()
    headers = await talk(endpoint, version)
    call = request(version, headers, "tools/list")
    call.headers["origin"] = "http://evil.example.com"  # type: ignore[index]
    assert (await endpoint.handle(call)).status == 403


@EACH
async def test_the_status_of_an_unknown_method(version: str) -> None:
    endpoint = protocol()
    answer = await endpoint.handle(request(version, await talk(endpoint, version), "unknown/method"))
    assert (answer.status, said(answer)["error"]["code"]) == (404 if version == E else 200, -32601)


@EACH
async def test_the_status_of_invalid_params(version: str) -> None:
    endpoint = protocol()
    async with endpoint.running():
        call = request(version, await talk(endpoint, version), "tools/call", {"name": "nope"})
        answer = await endpoint.handle(call)
    assert (answer.status, said(answer)["error"]["code"]) == (400 if version == E else 200, -32602)


ALL = frozenset(range(5))
SESSIONS = frozenset(range(4))
MODERN = frozenset({4})


@pytest.mark.parametrize(
    ("method", "served"),
    [
        ("server/discover", MODERN),
        ("ping", SESSIONS),
        ("tools/list", ALL),
        ("tools/call", ALL),
        ("resources/list", ALL),
        ("resources/templates/list", ALL),
        ("resources/read", ALL),
        ("resources/subscribe", SESSIONS),
        ("resources/unsubscribe", SESSIONS),
        ("subscriptions/listen", MODERN),
        ("prompts/list", ALL),
        ("prompts/get", ALL),
        ("completion/complete", ALL),
        ("logging/setLevel", SESSIONS),
        # Requests of servers; nobody may send them here.
        ("sampling/createMessage", frozenset()),
        ("elicitation/create", frozenset()),
        ("roots/list", frozenset()),
        # Tasks are optional in both eras, and not offered.
        ("tasks/get", frozenset()),
        ("tasks/list", frozenset()),
    ],
)
async def test_which_revision_has_a_method(method: str, served: frozenset[int]) -> None:
    endpoint = protocol()
    found = set()
    async with endpoint.running():
        for number, version in enumerate((A, B, C, D, E)):
            params: dict[str, object] = {"name": "x", "uri": "x:y", "notifications": {}}
            answer = await endpoint.handle(request(version, await talk(endpoint, version), method, params))
            if isinstance(answer, Stream) or said(answer).get("error", {}).get("code") != -32601:
                found.add(number)
    assert found == served
