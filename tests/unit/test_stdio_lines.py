# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the bridge reads: lines, what they are, the headers made of them, and server-sent events. All of it pure."""

from __future__ import annotations

import json
import random

import pytest

from actors.param_headers import ParamRule
from gateway.mcp.headers import check_name, check_params, unwrap
from gateway.sse import Event, EventReader, EventTooLongError
from gateway.stdio.lines import LineReader, TooLong
from gateway.stdio.messages import (
    Kind,
    Refused,
    answered,
    cancelled_id,
    legacy_headers,
    modern_headers,
    one_line,
    read,
    wrap,
)

META = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}


def in_pieces(data: bytes, seed: int) -> list[bytes]:
    chance = random.Random(seed)
    pieces = []
    while data:
        size = chance.randint(1, 7)
        pieces.append(data[:size])
        data = data[size:]
    return pieces


@pytest.mark.parametrize("seed", range(5))
def test_lines_come_whole_however_they_arrive(seed):
    data = b'{"a":1}\n\n  \t\r\n{"b":"\xc3\xbc"}\r\n{"c":3}'
    reader = LineReader(100)
    lines = [line for piece in in_pieces(data, seed) for line in reader.feed(piece)]
    assert lines + reader.end() == [b'{"a":1}', b'{"b":"\xc3\xbc"}', b'{"c":3}']


def request(id_, size: int, order: str) -> bytes:
    members = {
        "j": ("jsonrpc", "2.0"),
        "i": ("id", id_),
        "m": ("method", "tools/call"),
        "p": ("params", {"t": "x" * size}),
    }
    return json.dumps(dict(members[letter] for letter in order)).encode()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("order", ["jimp", "ijmp", "impj", "mpji", "mpij", "jmpi", "jpmi"])
@pytest.mark.parametrize("id_", [7, -1, "a b"])
def test_a_line_over_the_limit_keeps_its_id_and_the_next_is_read(seed, order, id_):
    long = request(id_, 5000, order)
    reader = LineReader(4000)
    lines = [line for piece in in_pieces(long + b'\n{"next":1}\n', seed) for line in reader.feed(piece)]
    assert lines == [TooLong(len(long), json.dumps(id_).encode()), b'{"next":1}']


def test_a_line_of_exactly_the_limit_is_kept():
    reader = LineReader(10)
    assert reader.feed(b"x" * 10 + b"\n" + b"y" * 11 + b"\n") == [b"x" * 10, TooLong(11, b"")]


@pytest.mark.parametrize(
    "line",
    [
        b'{"jsonrpc":"2.0","id":3,"result":"' + b"x" * 200 + b'"}',
        b'{"result":"' + b"x" * 2000 + b'","jsonrpc":"2.0","id":3}',
        b'{"method":"m","params":{"t":"' + b"x" * 2000 + rb'\"id\":3}"}}',
        b'{"method":"m","params":{"t":"' + b"x" * 2000 + b'","id":3}}',
        b"x" * 300,
    ],
    ids=["a response", "a response, id last", "an id in a text", "an id in params", "nonsense"],
)
def test_nobody_is_answered_by_an_id_that_is_not_the_requests(line):
    assert LineReader(100).feed(line + b"\n") == [TooLong(len(line), b"")]


def test_a_line_over_the_limit_needs_no_memory():
    reader = LineReader(1000)
    for _ in range(100):
        assert reader.feed(b"x" * 10_000) == []
        assert len(reader._buffer) <= 1024
    assert reader.end() == [TooLong(1_000_000, b"")]


def message(**members) -> bytes:
    return json.dumps({"jsonrpc": "2.0"} | members).encode()


def test_what_a_line_is():
    assert read(message(id=1, method="ping")).kind is Kind.REQUEST
    assert read(message(method="notifications/initialized")).kind is Kind.NOTIFICATION
    assert read(message(id=1, result={})).kind is Kind.RESPONSE
    assert read(message(id=1, error={"code": 1, "message": ""})).kind is Kind.RESPONSE
    modern = read(message(id="a", method="tools/list", params={"_meta": META}))
    assert (modern.modern, modern.version, modern.ids) == (True, "2026-07-28", ("a",))
    assert not read(message(id=1, method="tools/list", params={"_meta": {"progressToken": 1}})).modern
    array = read(b"[" + message(id=1, method="m") + b"," + message(method="n") + b"," + message(id=2, result={}) + b"]")
    assert (array.kind, array.ids) == (Kind.ARRAY, (1,))


@pytest.mark.parametrize(
    ("line", "code", "id_"),
    [
        (b"{", -32700, None),
        (b"\xff", -32700, None),
        (b"3", -32600, None),
        (b'{"id":5,"method":"m"}', -32600, 5),
        (message(id=[1], method="m"), -32600, None),
        (message(id=6, method=3), -32600, 6),
    ],
)
def test_lines_that_go_nowhere_are_answered(line, code, id_):
    with pytest.raises(Refused) as refused:
        read(line)
    answer = json.loads(refused.value.answer)
    assert answer["error"]["code"] == code
    assert answer.get("id") == id_
    assert ("id" in answer) == (id_ is not None), "no schema allows null"


@pytest.mark.parametrize("name", ["echo", "grüße", " edge ", "=?base64?x?=", "", "line\nbreak"])
def test_names_pass_the_gateways_own_check(name):
    line = message(id=1, method="tools/call", params={"name": name, "_meta": META})
    headers = modern_headers(read(line))
    assert headers["mcp-protocol-version"] == "2026-07-28"
    assert headers["mcp-method"] == "tools/call"
    check_name(headers["mcp-name"], name)
    assert unwrap(wrap(name)) == name
    assert wrap(name).isascii()
    assert wrap(name).isprintable()


def test_arguments_that_headers_repeat_pass_the_gateways_own_check():
    rules = tuple(
        ParamRule(f"mcp-param-{name}", path, kind)
        for name, path, kind in [
            ("a", ("a",), "string"),
            ("b", ("in", "b"), "integer"),
            ("c", ("c",), "boolean"),
            ("none", ("none",), "string"),
        ]
    )
    arguments = {"a": "ü", "in": {"b": 42}, "c": True}
    line = message(id=1, method="tools/call", params={"name": "t", "arguments": arguments, "_meta": META})
    headers = modern_headers(read(line), rules)
    assert "mcp-param-none" not in headers
    check_params(rules, headers, json.dumps(arguments).encode())


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [("tools/cäll", {}, -32601), ("tools/call", {"name": 3}, -32602), ("tools/call", {}, -32602)],
)
def test_what_no_header_can_say_is_refused_here(method, params, code):
    with pytest.raises(Refused) as refused:
        modern_headers(read(message(id=1, method=method, params=params | {"_meta": META})))
    assert json.loads(refused.value.answer)["error"]["code"] == code


def test_a_version_that_no_header_can_carry_is_left_to_the_gateway():
    line = message(id=1, method="m", params={"_meta": META | {"io.modelcontextprotocol/protocolVersion": "v\n1"}})
    assert "mcp-protocol-version" not in modern_headers(read(line))
    assert "mcp-session-id" not in legacy_headers("", "")
    assert legacy_headers("t", "2025-06-18")["mcp-protocol-version"] == "2025-06-18"


def test_ids_are_read_from_what_comes_and_goes():
    assert cancelled_id(message(method="notifications/cancelled", params={"requestId": "x"})) == "x"
    assert cancelled_id(message(method="notifications/cancelled")) is None
    assert answered(message(id=1, result={})) == (1,)
    assert answered(message(id="1", error={"code": 1})) == ("1",)
    assert answered(message(error={"code": 1})) == ()
    assert answered(b"[" + message(id=1, result={}) + b"," + message(id=2, result={}) + b"]") == (1, 2)
    assert answered(message(id=1, method="roots/list")) is None
    assert answered(b'{"status":"error"}') is None
    assert b"\n" not in one_line(b'{\n "a": "b\\n"\n}')


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("seed", range(5))
def test_events_come_whole_however_they_arrive(seed, end):
    lines = [
        b": ping",
        b"",
        b"id: 7",
        b"data:",
        b"",
        b"event: message",
        b"data: {1}",
        b"",
        b"data:a",
        b"data: b",
        b"retry: 100",
        b"",
        b"data: cut",
    ]
    reader = EventReader(100)
    events = [event for piece in in_pieces(end.join(lines), seed) for event in reader.feed(piece)]
    assert events == [Event(b""), Event(b"{1}"), Event(b"a\nb")]
    assert reader.last_id == "7"
    assert reader.retry_s == 0.1


def test_an_event_over_the_limit_ends_the_reading():
    reader = EventReader(100)
    reader.feed(b"data: " + b"x" * 60 + b"\n")
    with pytest.raises(EventTooLongError):
        reader.feed(b"data: " + b"x" * 60)
