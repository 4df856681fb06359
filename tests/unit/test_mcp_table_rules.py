# SPDX-License-Identifier: AGPL-3.0-or-later
"""Error codes, listens, and the rules that cut across methods, as tables."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest
import trio

from actors.errors import InvalidArgumentsError, NotFoundError
from actors.tool_messages import LogItem, Progress, ToolCall, ToolResult
from gateway.mcp.eras import VERSIONS, A, B, C, D, E
from gateway.mcp.shaping import LOG_LEVELS
from gateway.mcp.testing import (
    OnItem,
    ScriptedBackend,
    descriptor,
    drain,
    legacy,
    messages,
    modern,
    open_session,
    prompt,
    protocol,
    resource,
    result,
    said,
)
from gateway.types import Answer, Stream

EACH = pytest.mark.parametrize("revision", [A, B, C, D, E], ids=VERSIONS)
PREFIX = "io.modelcontextprotocol/"


async def ask(backend: ScriptedBackend, revision: int, method: str, params: dict[str, object]) -> Any:
    """The error or result of one request."""
    endpoint = protocol(backend)
    async with endpoint.running():
        if revision == E:
            return said(await endpoint.handle(modern(method, params)))
        session = await open_session(endpoint, VERSIONS[revision])
        return said(await endpoint.handle(legacy(method, params, session)))


# --- error codes -----------------------------------------------------------------------------------------------------


async def bad_arguments(_call: ToolCall, _on_item: OnItem) -> ToolResult:
    raise InvalidArgumentsError("text: must be a string")


async def not_there(_call: ToolCall, _on_item: OnItem) -> ToolResult:
    raise NotFoundError("no such row")


async def broken(_call: ToolCall, _on_item: OnItem) -> ToolResult:
    raise RuntimeError("bug")


def offering() -> ScriptedBackend:
    backend = ScriptedBackend({"strict": bad_arguments, "buggy": broken, "resources/read": not_there})
    backend.replace([descriptor("strict"), descriptor("buggy")], [resource("a:{b}")], [prompt("p")])
    return backend


@pytest.mark.parametrize(
    ("method", "params", "before_e", "at_e", "data"),
    [
        ("unknown/method", {}, -32601, -32601, None),
        ("tools/call", {"name": "nope"}, -32602, -32602, None),
        # Without a name there is nothing that Mcp-Name could repeat, and headers are checked before params.
        ("tools/call", {"name": 5}, -32602, -32020, None),
        ("tools/call", {"name": "strict", "arguments": 5}, -32602, -32602, None),
        ("tools/call", {"name": "buggy"}, -32603, -32603, None),
        ("prompts/get", {"name": "nope"}, -32602, -32602, None),
        ("prompts/get", {"name": "p", "arguments": []}, -32602, -32602, None),
        ("resources/read", {}, -32602, -32020, None),
        ("resources/read", {"uri": "x:y"}, -32002, -32602, {"uri": "x:y"}),
        ("resources/read", {"uri": "a:gone"}, -32002, -32602, {"uri": "a:gone"}),
        ("completion/complete", {"ref": {"type": "ref/prompt", "name": "nope"}}, -32602, -32602, None),
        ("tools/list", {"cursor": "made up"}, -32602, -32602, None),
        ("prompts/list", {"cursor": "made up"}, -32602, -32602, None),
        ("resources/list", {"cursor": "made up"}, -32602, -32602, None),
        ("resources/templates/list", {"cursor": "made up"}, -32602, -32602, None),
    ],
)
@EACH
async def test_the_code_of_an_error(
    revision: int, method: str, params: dict[str, object], before_e: int, at_e: int, data: object
) -> None:
    error = (await ask(offering(), revision, method, params))["error"]
    assert (error["code"], error.get("data")) == (at_e if revision == E else before_e, data)


@EACH
async def test_arguments_that_do_not_fit_are_the_result_of_the_tool(revision: int) -> None:
    """The specification asks for it from D on, and leaves the choice before."""
    found = (await ask(offering(), revision, "tools/call", {"name": "strict"}))["result"]
    assert found["isError"] is True


async def test_a_missing_capability_is_told_as_an_object_of_capabilities() -> None:
    backend = ScriptedBackend({"t": broken}, [descriptor("t", requires=("sampling.tools", "elicitation.url"))])
    error = (await ask(backend, E, "tools/call", {"name": "t"}))["error"]
    assert error["code"] == -32021
    assert error["data"] == {"requiredCapabilities": {"sampling": {"tools": {}}, "elicitation": {"url": {}}}}


# --- subscriptions/listen --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "accepted"),
    [
        ({}, {}),
        ({"toolsListChanged": True}, {"toolsListChanged": True}),
        ({"promptsListChanged": True}, {"promptsListChanged": True}),
        ({"resourcesListChanged": True}, {"resourcesListChanged": True}),
        ({"toolsListChanged": False, "promptsListChanged": True}, {"promptsListChanged": True}),
        ({"resourceSubscriptions": ["a:b", "x:y", "a:b"]}, {"resourceSubscriptions": ["a:b"]}),
        ({"resourceSubscriptions": []}, {}),
        ({"toolsListChanged": True, "moonPhaseChanged": True}, {"toolsListChanged": True}),
        # Tasks are not offered, so that their notifications are a kind that is not supported: left out, no -32021.
        ({"taskIds": ["1"]}, {}),
    ],
)
@pytest.mark.parametrize("id_", [7, "7"])
async def test_a_listen_says_first_what_it_accepts(wanted: object, accepted: object, id_: object) -> None:
    backend = ScriptedBackend()
    backend.replace([], [resource("a:b")])
    endpoint = protocol(backend)
    async with endpoint.running():
        answer = await endpoint.handle(modern("subscriptions/listen", {"notifications": wanted}, id=id_))
        assert isinstance(answer, Stream)
        for kind in ("tools", "prompts", "resources"):
            endpoint.list_changed(kind)  # type: ignore[arg-type]
    first, *changes, end = await drain(answer)
    assert first["method"] == "notifications/subscriptions/acknowledged"
    assert first["params"]["notifications"] == accepted
    told = {change["method"].split("/")[1] + "ListChanged" for change in changes}
    assert told == {name for name in accepted if name != "resourceSubscriptions"}  # type: ignore[attr-defined]
    # Each message names the listen by its id, with the id's type. The end is the result alone, without a notice.
    for tagged in (first["params"], *(change["params"] for change in changes), end["result"]):
        assert tagged["_meta"][PREFIX + "subscriptionId"] == id_
    assert (end["id"], end["result"]["resultType"]) == (id_, "complete")


@pytest.mark.parametrize("wanted", [None, [], "x", {"toolsListChanged": 5}, {"resourceSubscriptions": "a:b"}])
async def test_a_listen_that_can_not_be_read_is_invalid(wanted: object) -> None:
    answer = await protocol().handle(modern("subscriptions/listen", {"notifications": wanted}))
    assert (answer.status, said(answer)["error"]["code"]) == (400, -32602)


async def test_a_silent_listen_is_kept_alive_and_several_run_at_once(autojump_clock: trio.testing.MockClock) -> None:
    endpoint = protocol()
    async with endpoint.running():
        wanted = {"notifications": {"toolsListChanged": True}}
        streams = [await endpoint.handle(modern("subscriptions/listen", wanted, id=number)) for number in (1, 2)]
        readers = [aiter(stream.events) for stream in streams if isinstance(stream, Stream)]
        for reader in readers:
            assert len(messages(await anext(reader))) == 1
            assert (await anext(reader)).startswith(b":")
        endpoint.list_changed("tools")
        tags = [messages(await anext(reader))[0]["params"]["_meta"] for reader in readers]
        assert tags == [{PREFIX + "subscriptionId": 1}, {PREFIX + "subscriptionId": 2}]


# --- progress and log ------------------------------------------------------------------------------------------------


async def reported(items: list[Any], meta: dict[str, object]) -> list[Any]:
    async def tool(_call: ToolCall, on_item: OnItem) -> ToolResult:
        for item in items if on_item is not None else ():
            on_item(item)  # type: ignore[misc]
        await trio.lowlevel.checkpoint()
        return result("done")

    endpoint = protocol(ScriptedBackend({"echo": tool}))
    async with endpoint.running():
        answer = await endpoint.handle(modern("tools/call", {"name": "echo"}, meta=meta))
        return [] if isinstance(answer, Answer) else (await drain(answer))[:-1]


@pytest.mark.parametrize(
    ("steps", "sent"),
    [
        ([0.0, 1.0, 2.0], [0, 1, 2]),
        ([-1.0, -0.5], [-1, -0.5]),
        ([1.0, 1.0, 0.5, 1.5], [1, 1.5]),
        ([1.0, nan, 2.0], [1, 2]),
        ([1.0, inf, 2.0], [1, 2]),
        ([-inf, 1.0], [1]),
    ],
)
async def test_progress_grows_and_is_a_number(steps: list[float], sent: list[float]) -> None:
    found = await reported([Progress(progress=step, total=inf) for step in steps], {"progressToken": "t"})
    assert [notice["params"] for notice in found] == [{"progressToken": "t", "progress": step} for step in sent]


@pytest.mark.parametrize("token", ["", "t", 0, -5, 2**70])
async def test_progress_goes_to_its_token_with_the_tokens_type(token: object) -> None:
    (notice,) = await reported([Progress(progress=1.0)], {"progressToken": token})
    assert notice["params"]["progressToken"] == token
    assert type(notice["params"]["progressToken"]) is type(token)


async def test_nothing_is_sent_that_was_not_asked_for() -> None:
    assert await reported([Progress(progress=1.0), LogItem(level="emergency", data=b"1")], {}) == []


@pytest.mark.parametrize("wanted", LOG_LEVELS)
async def test_log_messages_come_at_the_level_and_above(wanted: str) -> None:
    items = [LogItem(level=level, data=b"1") for level in LOG_LEVELS]  # type: ignore[arg-type]
    found = await reported(items, {PREFIX + "logLevel": wanted})
    assert [notice["params"]["level"] for notice in found] == list(LOG_LEVELS)[list(LOG_LEVELS).index(wanted) :]


def test_the_levels_are_those_of_the_protocol_in_their_order() -> None:
    assert list(LOG_LEVELS) == ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"]


# --- pages -----------------------------------------------------------------------------------------------------------


@EACH
@pytest.mark.parametrize("cursor", [None, ""])
async def test_the_first_page_is_the_only_one_that_needs_no_cursor(revision: int, cursor: str | None) -> None:
    params: dict[str, object] = {} if cursor is None else {"cursor": cursor}
    found = (await ask(offering(), revision, "tools/list", params))["result"]
    assert [tool["name"] for tool in found["tools"]] == ["buggy", "strict"]
    assert "nextCursor" not in found
