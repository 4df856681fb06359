# SPDX-License-Identifier: AGPL-3.0-or-later
"""Bad requests to a real server, by the fast lane and by hypercorn: the same answer on both ways, and it lives on.

A header that is sent twice makes a request take hypercorn's way.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from urllib.parse import urlsplit

import pytest
from running import META, MODERN, started

pytestmark = pytest.mark.process

MIB = 1024 * 1024
WAYS = {"fast": b"", "hypercorn": b"X-Way: a\r\nX-Way: b\r\n"}


@pytest.fixture(scope="module")
def greenroom(tmp_path_factory):
    with started(tmp_path_factory.mktemp("bad") / "data") as tree:
        yield tree


@pytest.fixture(params=WAYS)
def way(request):
    return WAYS[request.param]


def call(tool="echo", arguments=None, **frame) -> bytes:
    params = {"name": tool, "arguments": {"text": "x"} if arguments is None else arguments, "_meta": META}
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params} | frame).encode()


def head(greenroom, way, verb="POST", length=None, drop=(), **headers) -> bytes:
    """A request's head with the right headers, but for what is changed; a value may be None to leave it out."""
    address = urlsplit(greenroom.url).netloc
    wanted = {"host": address} | MODERN | {"mcp-method": "tools/call", "mcp-name": "echo"}
    wanted |= {name.replace("_", "-"): value for name, value in headers.items()}
    if length is not None:
        wanted["content-length"] = str(length)
    lines = [f"{name}: {value}\r\n".encode() for name, value in wanted.items() if value is not None]
    return f"{verb} /mcp HTTP/1.1\r\n".encode() + b"".join(lines) + way + b"\r\n"


def post(greenroom, way, body, **headers) -> bytes:
    return head(greenroom, way, length=len(body), **headers) + body


def answers(greenroom, data, count=1, half_close=False):
    """Send raw bytes and read so many responses; (status, JSON or text) of each."""
    address = urlsplit(greenroom.url)
    with socket.create_connection((address.hostname, address.port), 10) as connection:
        # Refused before all was sent: the answer is there to read.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(data)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        found = []
        with connection.makefile("rb") as stream:
            for _ in range(count):
                response = http.client.HTTPResponse(Reader(stream))
                response.begin()
                text = response.read()
                found.append((response.status, json.loads(text) if text[:1] in (b"{", b"[") else text.decode()))
        return found


class Reader:
    """A connection as `HTTPResponse` wants it, which reads ahead: what it read too much is for the next response."""

    def __init__(self, stream):
        self._stream = stream

    def makefile(self, _mode):
        return self

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def close(self):
        pass


def still_serves(greenroom):
    ((status, body),) = answers(greenroom, post(greenroom, b"", call()))
    assert status == 200
    assert body["result"]["content"][0]["text"] == "x"


def _names(cases):
    return [case[0] for case in cases]


NOT_JSON = [
    ("broken JSON", b'{"jsonrpc": "2.0", "id": 1,', 400, -32700),
    ("not UTF-8", b'{"jsonrpc": "2.0", "id": 1, "method": "\xff"}', 400, -32700),
    ("too deep", b"[" * 100_000, 400, -32700),
    ("empty body", b"", 400, -32700),
    ("a number", b"17", 400, -32600),
    ("id of a wrong type", call(id=[1]), 400, -32600),
    ("method of a wrong type", call(method=5), 400, -32600),
    ("params of a wrong type", call(params=[1]), 400, -32602),
    ("not version 2.0", call(jsonrpc="1.0"), 400, -32600),
]


@pytest.mark.parametrize(
    ("body", "status", "code"), [case[1:] for case in NOT_JSON], ids=[case[0] for case in NOT_JSON]
)
def test_what_is_no_proper_message_is_a_protocol_error(greenroom, way, body, status, code):
    ((found, answer),) = answers(greenroom, post(greenroom, way, body))
    assert (found, answer["error"]["code"]) == (status, code)
    still_serves(greenroom)


def test_an_unknown_tool_is_named_with_its_nearest(greenroom, way):
    ((_, answer),) = answers(greenroom, post(greenroom, way, call("ehco"), mcp_name="ehco"))
    assert answer["error"]["code"] == -32602
    assert "did you mean 'echo'" in answer["error"]["message"]


WRONG_ARGUMENTS = [
    ("unknown parameter", {"text": "x", "txet": "y"}, "txet"),
    ("missing parameter", {}, "text"),
    ("wrong type", {"text": 5}, "text"),
    ("null", {"text": None}, "text"),
]


@pytest.mark.parametrize(("arguments", "named"), [case[1:] for case in WRONG_ARGUMENTS], ids=_names(WRONG_ARGUMENTS))
def test_wrong_arguments_name_the_parameter(greenroom, way, arguments, named):
    ((status, answer),) = answers(greenroom, post(greenroom, way, call(arguments=arguments)))
    assert status == 200
    assert answer["result"]["isError"] is True
    assert answer["result"]["_meta"]["greenroom/code"] == "INVALID_ARGUMENTS"
    assert f"`{named}`" in answer["result"]["content"][0]["text"] or named in answer["result"]["content"][0]["text"]


def test_a_body_of_five_mebibytes_is_refused(greenroom, way):
    ((status, _),) = answers(greenroom, post(greenroom, way, b"x" * 5 * MIB))
    assert status == 413
    still_serves(greenroom)


def test_a_chunked_body_of_five_mebibytes_is_refused(greenroom, way):
    request = head(greenroom, way, transfer_encoding="chunked")
    chunks = (b"10000\r\n" + b"x" * 0x10000 + b"\r\n") * 80 + b"0\r\n\r\n"
    ((status, _),) = answers(greenroom, request + chunks)
    assert status == 413


def test_a_chunked_body_is_understood(greenroom, way):
    body = call()
    request = head(greenroom, way, transfer_encoding="chunked")
    chunks = b"".join(b"1\r\n" + bytes([byte]) + b"\r\n" for byte in body) + b"0\r\n\r\n"
    ((status, answer),) = answers(greenroom, request + chunks)
    assert (status, answer["id"]) == (200, 1)


def test_a_truncated_body_runs_nothing(greenroom, way):
    body = call()
    request = head(greenroom, way, length=len(body) + 5) + body
    try:
        ((status, _),) = answers(greenroom, request, half_close=True)
    except (http.client.RemoteDisconnected, ConnectionResetError):
        status = 0
    assert status in (0, 400, 408)
    still_serves(greenroom)


def test_pipelined_requests_are_answered_in_order(greenroom, way):
    requests = [post(greenroom, way, call(id=number)) for number in range(5)]
    found = answers(greenroom, b"".join(requests), count=5)
    assert [answer["id"] for _, answer in found] == list(range(5))


SMUGGLING = [
    ("two lengths", b"Content-Length: 5\r\nContent-Length: 6\r\n"),
    ("two equal lengths", b"Content-Length: 5\r\nContent-Length: 5\r\n"),
    ("length and chunked", b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
    ("length of a wrong form", b"Content-Length: +5\r\n"),
    ("negative length", b"Content-Length: -5\r\n"),
    ("a blank before the colon", b"Content-Length : 5\r\n"),
    ("an unknown encoding", b"Transfer-Encoding: gzip, chunked, x\r\n"),
]


@pytest.mark.parametrize("lines", [case[1] for case in SMUGGLING], ids=_names(SMUGGLING))
def test_doubtful_lengths_are_refused_and_the_connection_ends(greenroom, way, lines):
    request = head(greenroom, way + lines) + b"hello" + post(greenroom, b"", call())
    address = urlsplit(greenroom.url)
    with socket.create_connection((address.hostname, address.port), 10) as connection:
        connection.sendall(request)
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert response.status in (400, 501)
        response.read()
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""
    still_serves(greenroom)


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", ""])
def test_a_foreign_host_is_refused(greenroom, way, host):
    ((status, _),) = answers(greenroom, post(greenroom, way, call(), host=host))
    assert status in (400, 403, 421)


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost.evil.example"])
def test_a_foreign_origin_is_refused(greenroom, way, origin):
    ((status, _),) = answers(greenroom, post(greenroom, way, call(), origin=origin))
    assert status == 403


@pytest.mark.parametrize("verb", ["GET", "DELETE", "PUT", "PATCH"])
def test_other_verbs_belong_to_sessions_only(greenroom, way, verb):
    ((status, _),) = answers(greenroom, head(greenroom, way, verb=verb, mcp_method=None, mcp_name=None))
    assert status == 405


@pytest.mark.parametrize("accept", ["text/html", "image/png"])
def test_a_client_that_takes_neither_form_is_refused(greenroom, way, accept):
    ((status, _),) = answers(greenroom, post(greenroom, way, call(), accept=accept))
    assert status == 406


def test_a_body_that_is_no_json_by_its_type_is_refused(greenroom, way):
    ((status, _),) = answers(greenroom, post(greenroom, way, call(), content_type="text/plain"))
    assert status in (400, 415)


MISMATCHES = [
    ("another method", {"mcp_method": "tools/list"}),
    ("another tool", {"mcp_name": "sleep"}),
    ("no method", {"mcp_method": None}),
    ("a version that nobody knows", {"mcp_protocol_version": "2099-01-01"}),
]


@pytest.mark.parametrize("changed", [case[1] for case in MISMATCHES], ids=_names(MISMATCHES))
def test_headers_that_differ_from_the_body_are_refused(greenroom, way, changed):
    ((status, answer),) = answers(greenroom, post(greenroom, way, call(), **changed))
    assert status == 400
    assert "error" in answer
