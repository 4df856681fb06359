# SPDX-License-Identifier: AGPL-3.0-or-later
"""Frames: whatever bytes come in, an answer in JSON-RPC comes out."""

from __future__ import annotations

import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from actors.jsonrpc import INVALID_REQUEST, PARSE_ERROR, is_id
from gateway.mcp.calls import MAX_QUEUED, Outbox
from gateway.mcp.http import accepts
from gateway.mcp.jsonrpc import MALFORMED, Frame, McpError, parse
from gateway.mcp.testing import HEADERS, META, open_session, post, protocol, said
from gateway.types import Answer


def test_a_frame_is_read_and_its_arguments_stay_json() -> None:
    frame = parse(b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"name":"n","arguments": {"a" : 1.0} ,"x":{}}}')
    assert isinstance(frame, Frame)
    assert frame.params is not None
    assert (frame.id, frame.method, frame.params.name) == (1, "m", "n")
    assert bytes(frame.params.arguments) == b'{"a" : 1.0}'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{} {}",
        b"\xef\xbb\xbf{}",
        b'{"id":NaN}',
        b'{"id":1e999}',
        b'{"method":"\xff"}',
        b'{"method":"\\ud800"}',
        b"{'a':1}",
        '{"id":1}'.encode("utf-16"),
        b"[" * 100_000,
        b'{"params":{"arguments":' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
        b'{"params":{"x":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}}",
    ],
    ids=range(13),
)
def test_what_is_no_json_is_a_parse_error(body: bytes) -> None:
    with pytest.raises(McpError) as caught:
        parse(body)
    assert caught.value.code == PARSE_ERROR


@pytest.mark.parametrize("body", [b"1", b'"a"', b"null", b"true"])
def test_json_that_is_no_object_is_an_invalid_request(body: bytes) -> None:
    with pytest.raises(McpError) as caught:
        parse(body)
    assert caught.value.code == INVALID_REQUEST


def test_an_odd_shape_keeps_what_can_be_answered_to() -> None:
    frame = parse(b'{"jsonrpc":"2.0","id":"x","method":"m","params":{"_meta":5}}')
    assert isinstance(frame, Frame)
    assert (frame.id, frame.method) == ("x", "m")
    assert frame.params is MALFORMED
    assert parse(b'{"method":"m"}').id is UNSET  # type: ignore[union-attr]


def test_responses_are_known_by_their_members() -> None:
    assert parse(b'{"id":1,"result":null}').is_response  # type: ignore[union-attr]
    assert parse(b'{"id":1,"error":{}}').is_response  # type: ignore[union-attr]
    assert parse(b'{"params":[],"result":{}}').is_response  # type: ignore[union-attr]
    assert not parse(b'{"id":1}').is_response  # type: ignore[union-attr]


def test_elements_of_an_array_stay_json() -> None:
    assert [bytes(element) for element in parse(b"[ 1, {} ]")] == [b"1", b"{}"]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        (0, True),
        (2**64, True),
        (-(2**70), True),
        ("", True),
        ("x" * 256, True),
        ("x" * 257, False),
        (10**400, False),
        (1.0, False),
        (True, False),
        (None, False),
        ([], False),
    ],
    ids=range(11),
)
def test_ids_are_strings_or_integers_of_bounded_length(value: object, fits: bool) -> None:
    assert is_id(value) is fits


@pytest.mark.parametrize("digits", [300, 5_000, 100_000])
async def test_an_id_of_very_many_digits_is_refused(digits: int) -> None:
    body = b'{"jsonrpc":"2.0","method":"server/discover","id":1' + b"0" * digits + b"}"
    answer = await protocol().handle(post(body, {"mcp-protocol-version": "2026-07-28"}))
    assert answer.status == 400
    assert said(answer)["error"]["code"] in {PARSE_ERROR, INVALID_REQUEST}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
METHODS = st.sampled_from(
    [
        "tools/call",
        "tools/list",
        "initialize",
        "ping",
        "logging/setLevel",
        "server/discover",
        "subscriptions/listen",
        "x",
    ]
)
PARAMS = st.fixed_dictionaries(
    {},
    optional={
        "_meta": st.just(META) | JSON,
        "name": st.just("echo") | JSON,
        "arguments": JSON,
        "cursor": JSON,
        "level": JSON,
        "protocolVersion": JSON,
        "notifications": JSON,
    },
)
MESSAGE = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0") | JSON,
        "id": JSON,
        "method": METHODS | JSON,
        "params": PARAMS | JSON,
        "result": JSON,
    },
)
HEADER = st.fixed_dictionaries(
    {},
    optional={
        "mcp-protocol-version": st.sampled_from(["2026-07-28", "2025-03-26", "2025-11-25", "x"]),
        "mcp-method": METHODS,
        "mcp-name": st.sampled_from(["echo", "=?base64?ZWNobw==?=", "=?base64?x?="]),
        "accept": st.sampled_from(["application/json", "*/*", "text/event-stream"]),
    },
)


async def _answers(body: bytes, headers: dict[str, str | None]) -> None:
    endpoint = protocol()
    async with endpoint.running():
        session = await open_session(endpoint, "2025-03-26")
        for extra in ({}, session):
            answer = await endpoint.handle(post(body, {**headers, **extra}))
            assert 200 <= answer.status < 500
            if (
                isinstance(answer, Answer)
                and answer.body
                and dict(answer.headers)["content-type"] == "application/json"
            ):
                for message in said(answer) if answer.body[:1] == b"[" else [said(answer)]:
                    assert message["jsonrpc"] == "2.0"
                    assert ("result" in message) != ("error" in message)
                    assert message.get("error", {}).get("code") != -32603


@settings(max_examples=100, deadline=None)
@given(body=st.binary(max_size=60), headers=HEADER)
def test_random_bytes_are_answered(body: bytes, headers: dict[str, str | None]) -> None:
    trio.run(_answers, body, headers)


@settings(max_examples=200, deadline=None)
@given(message=MESSAGE | st.lists(MESSAGE, max_size=3) | JSON, headers=HEADER)
def test_random_messages_are_answered(message: object, headers: dict[str, str | None]) -> None:
    trio.run(_answers, msgspec.json.encode(message), headers)


@pytest.mark.parametrize(
    ("header", "json", "sse"),
    [
        (None, True, True),
        ("*/*", True, True),
        ("application/json", True, False),
        ("text/event-stream", False, True),
        ("application/json, text/event-stream", True, True),
        ("APPLICATION/JSON;charset=utf-8", True, False),
        ("application/*, text/*;q=0.5", True, True),
        ("application/json;q=0, text/event-stream", False, True),
        ("application/json; q=0.000", False, False),
        ("text/html", False, False),
        ("", False, False),
    ],
)
def test_accept(header: str | None, json: bool, sse: bool) -> None:
    assert (accepts(header).json, accepts(header).sse) == (json, sse)


async def test_a_slow_reader_loses_the_oldest_notifications_and_never_the_response() -> None:
    outbox = Outbox()
    for number in range(MAX_QUEUED + 5):
        outbox.put(b"%d " % number)
    outbox.finish(b"last")
    outbox.put(b"too late")
    words = (await anext(outbox)).split()
    assert (words[0], words[-1], len(words)) == (b"5", b"last", MAX_QUEUED + 1)
    assert outbox.dropped == 5
    with pytest.raises(StopAsyncIteration):
        await anext(outbox)


def test_the_default_headers_of_tests_pass() -> None:
    assert accepts(HEADERS["accept"]).both_named
