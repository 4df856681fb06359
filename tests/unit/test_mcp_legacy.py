# SPDX-License-Identifier: AGPL-3.0-or-later
"""The handshake revisions: initialize, sessions and their quirks, arrays, GET streams, cancellation."""

from __future__ import annotations

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from actors.settings import SessionsSettings, Settings
from actors.tool_messages import LogItem, Progress, ToolCall, ToolResult
from gateway.mcp.jsonrpc import MAX_BATCH
from gateway.mcp.testing import (
    CLIENT,
    OnItem,
    ScriptedBackend,
    descriptor,
    drain,
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

A, B, C, D = "2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"
CALL = {"name": "echo", "arguments": {"text": "hi"}}


def hello(version: object) -> dict[str, object]:
    return {"protocolVersion": version, "capabilities": {}, "clientInfo": CLIENT}


@pytest.mark.parametrize(
    ("wanted", "given"), [(A, A), (B, B), (C, C), (D, D), ("2026-07-28", D), ("2024-10-07", D), ("junk", D)]
)
async def test_initialize_takes_the_version_or_offers_the_newest(wanted: str, given: str) -> None:
    answer = await protocol().handle(legacy("initialize", hello(wanted), id="i"))
    assert answer.status == 200
    assert said(answer)["id"] == "i"
    assert said(answer)["result"] == {
        "protocolVersion": given,
        "capabilities": {
            "tools": {"listChanged": True},
            "resources": {"subscribe": True, "listChanged": True},
            "prompts": {"listChanged": True},
            "logging": {},
            **({} if given == "2024-11-05" else {"completions": {}}),
        },
        "serverInfo": {"name": "greenroom", "version": "1.2.3"},
    }
    session = dict(answer.headers)["mcp-session-id"]
    assert all(0x21 <= ord(letter) <= 0x7E for letter in session)


@pytest.mark.parametrize("params", [None, {}, hello(5), [1]])
async def test_initialize_without_a_version_is_invalid(params: object) -> None:
    answer = await protocol().handle(legacy("initialize", params))  # type: ignore[arg-type]
    assert (answer.status, said(answer)["error"]["code"]) == (200, -32602)


async def test_initialize_with_a_stale_session_opens_a_new_one() -> None:
    answer = await protocol().handle(legacy("initialize", hello(D), {"mcp-session-id": "stale"}))
    assert answer.status == 200
    assert dict(answer.headers)["mcp-session-id"] != "stale"


async def test_initialize_without_an_id_is_refused() -> None:
    assert (await protocol().handle(legacy("initialize", hello(D), id=None))).status == 400


@pytest.mark.parametrize("version", [A, B, C, D])
async def test_a_session_serves_its_methods(version: str) -> None:
    endpoint = protocol()
    async with endpoint.running():
        session = await open_session(endpoint, version)
        done = await endpoint.handle(legacy("notifications/initialized", headers=session, id=None))
        assert (done.status, done.body) == (202, b"")  # type: ignore[union-attr]
        assert said(await endpoint.handle(legacy("ping", headers=session)))["result"] == {}
        assert (
            said(await endpoint.handle(legacy("tools/list", headers=session)))["result"]["tools"][0]["name"] == "echo"
        )
        called = said(await endpoint.handle(legacy("tools/call", CALL, session)))["result"]
        assert called["content"] == [{"type": "text", "text": '{"text":"hi"}'}]
        assert "resultType" not in called
        level = await endpoint.handle(legacy("logging/setLevel", {"level": "debug"}, session))
        assert said(level)["result"] == {}


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("unknown/method", None, -32601),
        ("server/discover", None, -32601),
        ("tools/call", None, -32602),
        ("tools/call", {"name": "nope"}, -32602),
        ("tools/call", {"name": "echo", "arguments": "x"}, -32602),
        ("tools/list", {"cursor": "x"}, -32602),
        ("tools/list", [1], -32602),
        ("logging/setLevel", {"level": "loud"}, -32602),
        ("logging/setLevel", None, -32602),
    ],
)
async def test_errors_of_requests_travel_in_200(method: str, params: object, code: int) -> None:
    endpoint = protocol()
    session = await open_session(endpoint, D)
    answer = await endpoint.handle(legacy(method, params, session, id=9))  # type: ignore[arg-type]
    assert (answer.status, said(answer)["id"], said(answer)["error"]["code"]) == (200, 9, code)


@pytest.mark.parametrize(
    ("version_header", "status"),
    [
        (None, 200),
        (A, 200),
        (B, 200),
        (D, 200),
        ("2026-07-28", 200),
        (" 2025-11-25 ", 200),
        ("2030-01-01", 400),
        ("", 400),
    ],
)
async def test_the_session_decides_about_the_version(version_header: str | None, status: int) -> None:
    endpoint = protocol()
    session = await open_session(endpoint, C)
    answer = await endpoint.handle(legacy("ping", headers=session | {"mcp-protocol-version": version_header}))
    assert answer.status == status


async def test_a_live_session_serves_a_modern_body_under_a_legacy_header() -> None:
    endpoint = protocol()
    session = await open_session(endpoint, D)
    answer = await endpoint.handle(modern("tools/list", headers=session))
    assert "resultType" not in said(answer)["result"]


async def test_a_modern_request_ignores_the_session() -> None:
    endpoint = protocol()
    session = await open_session(endpoint, D)
    answer = await endpoint.handle(modern("tools/list", headers={"mcp-session-id": session["mcp-session-id"]}))
    assert said(answer)["result"]["resultType"] == "complete"


async def test_unknown_sessions_are_404_and_none_is_400() -> None:
    endpoint = protocol()
    assert (await endpoint.handle(legacy("ping", headers={"mcp-session-id": "x"}))).status == 404
    assert (await endpoint.handle(legacy("ping"))).status == 400
    assert (await endpoint.handle(legacy("ping", headers={"mcp-protocol-version": C}))).status == 400


async def test_another_gateway_serves_the_session() -> None:
    session = await open_session(protocol(), D)
    assert (await protocol().handle(legacy("ping", headers=session))).status == 200


async def test_a_session_belongs_to_who_opened_it() -> None:
    endpoint = protocol()
    session = await open_session(endpoint, D, principal="ada")
    assert (await endpoint.handle(legacy("ping", headers=session, principal="ada"))).status == 200
    assert (await endpoint.handle(legacy("ping", headers=session, principal="bob"))).status == 404


async def test_delete_ends_the_session() -> None:
    endpoint = protocol()
    session = await open_session(endpoint, D)
    delete = Request("DELETE", {**legacy("x").headers, "mcp-session-id": str(session["mcp-session-id"])})
    assert (await endpoint.handle(delete)).status == 200
    assert (await endpoint.handle(legacy("ping", headers=session))).status == 404
    assert (await endpoint.handle(delete)).status == 404


@pytest.mark.parametrize(
    ("verb", "headers", "status"),
    [
        ("GET", {}, 405),
        ("DELETE", {}, 405),
        ("GET", {"mcp-protocol-version": D}, 400),
        ("GET", {"mcp-session-id": "x"}, 404),
        ("DELETE", {"mcp-protocol-version": D}, 400),
        ("PUT", {"mcp-protocol-version": D}, 405),
        ("OPTIONS", {}, 405),
    ],
)
async def test_other_verbs_outside_of_a_session(verb: str, headers: dict[str, str], status: int) -> None:
    answer = await protocol().handle(Request(verb, {**legacy("x").headers, **headers}))
    assert answer.status == status
    assert ("allow" in dict(answer.headers)) == (status == 405)


async def test_responses_of_a_client_are_taken() -> None:
    endpoint = protocol()
    session = await open_session(endpoint, D)
    answer = await endpoint.handle(post({"jsonrpc": "2.0", "id": 1, "result": {}}, session))
    assert (answer.status, answer.body) == (202, b"")  # type: ignore[union-attr]


# --- arrays ----------------------------------------------------------------------------------------------------------


def ping(id_: object) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": id_, "method": "ping"}


async def test_an_array_is_answered_by_an_array() -> None:
    endpoint = protocol()
    session = await open_session(endpoint, B)
    batch = [
        ping(1),
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": "c", "method": "tools/call", "params": CALL},
        {"jsonrpc": "2.0", "id": 3, "method": "nope"},
        {"jsonrpc": "2.0", "id": 4, "method": "initialize", "params": hello(B)},
        {"jsonrpc": "2.0", "id": 5, "result": {}},
        7,
    ]
    answer = await endpoint.handle(post(batch, session))
    one, two, three, four, last = said(answer)
    assert (one["id"], one["result"]) == (1, {})
    assert (two["id"], two["result"]["content"][0]["text"]) == ("c", '{"text":"hi"}')
    assert (three["id"], three["error"]["code"]) == (3, -32601)
    assert four["error"]["code"] == last["error"]["code"] == -32600


async def test_an_array_without_requests_is_accepted() -> None:
    endpoint = protocol()
    session = await open_session(endpoint, B)
    answer = await endpoint.handle(post([{"jsonrpc": "2.0", "method": "notifications/initialized"}], session))
    assert (answer.status, answer.body) == (202, b"")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("version", "count"), [(A, 1), (C, 1), (D, 1), (B, 0), (B, MAX_BATCH + 1)], ids=lambda value: str(value)
)
async def test_arrays_that_are_refused(version: str, count: int) -> None:
    endpoint = protocol()
    session = await open_session(endpoint, version)
    answer = await endpoint.handle(post([ping(number) for number in range(count)], session))
    assert (answer.status, said(answer)["error"]["code"]) == (400, -32600)


async def test_the_requests_of_an_array_run_together_up_to_a_bound() -> None:
    running = most = 0

    async def tool(_call: ToolCall, _on_item: OnItem) -> ToolResult:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.lowlevel.checkpoint()
        running -= 1
        return result("x")

    endpoint = protocol(ScriptedBackend({"echo": tool}))
    session = await open_session(endpoint, B)
    batch = [{"jsonrpc": "2.0", "id": n, "method": "tools/call", "params": CALL} for n in range(MAX_BATCH)]
    assert [entry["id"] for entry in said(await endpoint.handle(post(batch, session)))] == list(range(MAX_BATCH))
    assert most == 8


# --- notifications of a call ---------------------------------------------------------------------------------------


async def chatty(_call: ToolCall, on_item: OnItem) -> ToolResult:
    if on_item is not None:
        on_item(Progress(progress=1.0, message="one"))
        on_item(LogItem(level="info", data=b'"hello"'))
    return result("done")


async def test_log_messages_follow_the_level_of_the_session() -> None:
    endpoint = protocol(ScriptedBackend({"echo": chatty}))
    async with endpoint.running():
        session = await open_session(endpoint, D)
        assert isinstance(await endpoint.handle(legacy("tools/call", CALL, session)), Answer)
        await endpoint.handle(legacy("logging/setLevel", {"level": "info"}, session))
        notice, last = await drain(await endpoint.handle(legacy("tools/call", CALL, session)))
        assert notice["params"] == {"level": "info", "data": "hello"}
        assert last["result"]["content"][0]["text"] == "done"
        await endpoint.handle(legacy("logging/setLevel", {"level": "error"}, session))
        assert isinstance(await endpoint.handle(legacy("tools/call", CALL, session)), Answer)


@pytest.mark.parametrize(("version", "message"), [(A, False), (B, True)])
async def test_progress_has_a_message_since_the_second_revision(version: str, message: bool) -> None:
    endpoint = protocol(ScriptedBackend({"echo": chatty}))
    async with endpoint.running():
        session = await open_session(endpoint, version)
        params = {**CALL, "_meta": {"progressToken": 7}}
        notice, _last = await drain(await endpoint.handle(legacy("tools/call", params, session)))
    assert notice["method"] == "notifications/progress"
    assert ("message" in notice["params"]) == message


# --- leaving and cancelling ------------------------------------------------------------------------------------------


class Gate:
    """A tool that waits to be let go, and tells how it ended."""

    def __init__(self) -> None:
        self.started = trio.Event()
        self.go = trio.Event()
        self.ended = ""

    async def tool(self, _call: ToolCall, on_item: OnItem) -> ToolResult:
        self.started.set()
        if on_item is not None:
            on_item(Progress(progress=1.0))
        try:
            await self.go.wait()
        except trio.Cancelled:
            self.ended = "cancelled"
            raise
        self.ended = "done"
        return result("x")


WAYS = pytest.mark.parametrize("timeout_s", [5.0, 60.0], ids=["direct", "live"])


@WAYS
async def test_a_client_that_leaves_does_not_cancel(timeout_s: float) -> None:
    gate = Gate()
    endpoint = protocol(ScriptedBackend({"echo": gate.tool}, [descriptor("echo", timeout_s=timeout_s)]))
    with trio.fail_after(1):
        async with endpoint.running():
            session = await open_session(endpoint, D)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(endpoint.handle, legacy("tools/call", CALL, session))
                await gate.started.wait()
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True):
                    await wait_all_tasks_blocked()
                    assert gate.ended == ""
                    gate.go.set()
            await wait_all_tasks_blocked()
    assert gate.ended == "done"


@WAYS
async def test_cancelled_by_its_id_a_call_is_not_answered(timeout_s: float) -> None:
    gate = Gate()
    endpoint = protocol(ScriptedBackend({"echo": gate.tool}, [descriptor("echo", timeout_s=timeout_s)]))
    answers: list[Answer | Stream] = []

    async def client() -> None:
        answers.append(await endpoint.handle(legacy("tools/call", CALL, session, id="7")))

    with trio.fail_after(1):
        async with endpoint.running(), trio.open_nursery() as nursery:
            session = await open_session(endpoint, D)
            nursery.start_soon(client)
            await gate.started.wait()
            other = await open_session(endpoint, D)
            for headers, id_ in ((session, 7), (session, [7]), (session, "8"), (other, "7")):
                await endpoint.handle(legacy("notifications/cancelled", {"requestId": id_}, headers, id=None))
            await wait_all_tasks_blocked()
            assert gate.ended == ""
            await endpoint.handle(legacy("notifications/cancelled", {"requestId": "7"}, session, id=None))
    assert gate.ended == "cancelled"
    assert (answers[0].status, answers[0].body) == (202, b"")  # type: ignore[union-attr]


async def test_a_cancelled_stream_ends_without_a_response() -> None:
    gate = Gate()
    endpoint = protocol(ScriptedBackend({"echo": gate.tool}))
    with trio.fail_after(1):
        async with endpoint.running():
            session = await open_session(endpoint, D)
            params = {**CALL, "_meta": {"progressToken": 1}}
            answer = await endpoint.handle(legacy("tools/call", params, session))
            await endpoint.handle(legacy("notifications/cancelled", {"requestId": 1}, session, id=None))
            assert [message["method"] for message in await drain(answer)] == ["notifications/progress"]


async def test_closing_the_stream_of_a_call_does_not_cancel_it() -> None:
    gate = Gate()
    endpoint = protocol(ScriptedBackend({"echo": gate.tool}))
    with trio.fail_after(1):
        async with endpoint.running():
            session = await open_session(endpoint, D)
            params = {**CALL, "_meta": {"progressToken": 1}}
            answer = await endpoint.handle(legacy("tools/call", params, session))
            assert isinstance(answer, Stream)
            await answer.events.aclose()
            gate.go.set()
            await wait_all_tasks_blocked()
    assert gate.ended == "done"


@WAYS
async def test_delete_cancels_the_calls_of_the_session(timeout_s: float) -> None:
    gate = Gate()
    endpoint = protocol(ScriptedBackend({"echo": gate.tool}, [descriptor("echo", timeout_s=timeout_s)]))
    with trio.fail_after(1):
        async with endpoint.running(), trio.open_nursery() as nursery:
            session = await open_session(endpoint, D)
            nursery.start_soon(endpoint.handle, legacy("tools/call", CALL, session))
            await gate.started.wait()
            await endpoint.handle(Request("DELETE", legacy("x", headers=session).headers))
    assert gate.ended == "cancelled"


@WAYS
@pytest.mark.parametrize("batch", [False, True])
async def test_stopping_ends_calls_that_no_disconnect_ends(timeout_s: float, batch: bool) -> None:
    gate = Gate()
    endpoint = protocol(ScriptedBackend({"echo": gate.tool}, [descriptor("echo", timeout_s=timeout_s)]))

    async def run() -> None:
        async with endpoint.running():
            await trio.sleep_forever()

    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await wait_all_tasks_blocked()
            session = await open_session(endpoint, B)
            request = legacy("tools/call", CALL, session)
            if batch:
                request = post(b"[" + request.body + b"]", session)
            nursery.start_soon(endpoint.handle, request)
            await gate.started.wait()
            nursery.cancel_scope.cancel()
    assert gate.ended == "cancelled"


# --- GET streams -----------------------------------------------------------------------------------------------------


async def get(endpoint: object, session: dict[str, str | None]) -> Stream:
    headers = {**legacy("x", headers=session).headers, "accept": "text/event-stream"}
    answer = await endpoint.handle(Request("GET", headers))  # type: ignore[attr-defined]
    assert isinstance(answer, Stream)
    return answer


async def test_the_newest_stream_of_a_session_hears_of_changes(autojump_clock: trio.testing.MockClock) -> None:
    endpoint = protocol()
    session = await open_session(endpoint, D)
    older, newer = await get(endpoint, session), await get(endpoint, session)
    endpoint.list_changed("tools")
    endpoint.list_changed("tools")
    (message,) = messages(await anext(aiter(newer.events)))
    assert message == {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
    assert await anext(aiter(older.events)) == b": \n\n"
    await newer.events.aclose()
    endpoint.list_changed("tools")
    assert len(messages(await anext(aiter(older.events)))) == 1


async def test_streams_per_session_are_bounded_and_end_with_it() -> None:
    endpoint = protocol(settings=Settings(sessions=SessionsSettings(max_streams=2)))
    session = await open_session(endpoint, D)
    streams = [await get(endpoint, session) for _ in range(3)]
    assert await drain(streams[0]) == []
    assert endpoint.statistics().listeners == 2
    await endpoint.handle(Request("DELETE", legacy("x", headers=session).headers))
    for stream in streams[1:]:
        assert await drain(stream) == []
    assert endpoint.statistics().listeners == 0


async def test_a_get_must_take_event_streams() -> None:
    endpoint = protocol()
    session = await open_session(endpoint, D)
    headers = {**legacy("x", headers=session).headers, "accept": "application/json"}
    assert (await endpoint.handle(Request("GET", headers))).status == 406


async def test_stopping_ends_the_streams() -> None:
    endpoint = protocol()
    with trio.fail_after(1):
        async with endpoint.running():
            session = await open_session(endpoint, D)
            stream = await get(endpoint, session)
        assert await drain(stream) == []


async def test_statistics_count_what_is_open() -> None:
    gate = Gate()
    endpoint = protocol(ScriptedBackend({"echo": gate.tool}, [descriptor("echo", timeout_s=5.0)]))
    with trio.fail_after(1):
        async with endpoint.running(), trio.open_nursery() as nursery:
            session = await open_session(endpoint, D)
            nursery.start_soon(endpoint.handle, legacy("tools/call", CALL, session))
            await gate.started.wait()
            assert msgspec.to_builtins(endpoint.statistics()) == {
                "sessions": 1,
                "revoked": 0,
                "live_calls": 0,
                "shielded_calls": 1,
                "listeners": 0,
                "subscriptions": 0,
                "questions": 0,
                "kept_streams": 0,
            }
            gate.go.set()


async def test_a_client_that_leaves_does_not_cancel_what_waits_in_its_array() -> None:
    gate = Gate()
    backend = ScriptedBackend({"echo": gate.tool})
    endpoint = protocol(backend)
    batch = [{"jsonrpc": "2.0", "id": n, "method": "tools/call", "params": CALL} for n in range(20)]
    with trio.fail_after(1):
        session = await open_session(endpoint, B)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(endpoint.handle, post(batch, session))
            await gate.started.wait()
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await wait_all_tasks_blocked()
                gate.go.set()
    assert len(backend.calls) == 20
