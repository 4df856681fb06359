# SPDX-License-Identifier: AGPL-3.0-or-later
"""The rules of the fuzz can fail: each is shown an answer, or a tree, that breaks it."""

from __future__ import annotations

import msgspec
import pytest
from fuzz import rules
from fuzz.forms import Step
from fuzz.reading import Answer, Reader, UnparsableError
from fuzz.rules import Actor, Snapshot
from fuzz.scripts import script

JSON = {"content-type": "application/json"}
SSE = {"content-type": "text/event-stream"}
RIGHT = b'{"jsonrpc":"2.0","id":1,"result":{}}'


def judged(status=200, body=RIGHT, headers=JSON, secrets=(b"key-of-ours",), whole=True, **step):
    answer = Answer(status, headers, body, whole)
    return list(rules.judge(answer, Step(b"", **({"id": 1} | step)), secrets))


def test_right_answers_break_nothing():
    assert judged() == []
    assert judged(body=b"data: " + RIGHT + b"\n\n", headers=SSE) == []
    assert judged(status=202, body=b"", headers={}) == []
    assert judged(404, b'{"status":"error","error":{"code":"NOT_FOUND","message":"no"}}', to="rest") == []
    assert judged(400, b'{"jsonrpc":"2.0","error":{"code":-32700,"message":"no"}}') == []


WRONG = {
    "a fault of the server": (
        {"status": 500, "body": b'{"status":"error","error":{"code":"INTERNAL","message":"x"}}'},
        "own",
    ),
    "a status that no page has": ({"status": 302}, "not declared"),
    "a bad gateway from MCP": ({"status": 502}, "not declared for mcp"),
    "half a body": ({"body": RIGHT[:-1]}, "not JSON"),
    "bad UTF-8": ({"body": b'{"jsonrpc":"2.0","id":1,"result":"\xff"}'}, "not JSON"),
    "a number that JSON lacks": ({"body": b'{"jsonrpc":"2.0","id":1,"result":NaN}'}, "not JSON"),
    "HTML": ({"status": 404, "headers": {"content-type": "text/html"}}, "the body is text/html"),
    "a body of no type": ({"headers": {}}, "of no type"),
    "another id": ({"body": RIGHT.replace(b"1,", b"2,")}, "not 1"),
    "an id that is null": ({"body": b'{"jsonrpc":"2.0","id":null,"result":{}}', "id": None}, "may not be None"),
    "result and error": ({"body": RIGHT[:-1] + b',"error":{"code":-32600,"message":"x"}}'}, "one of result"),
    "an unknown code": ({"body": b'{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"x"}}'}, "not known"),
    "a fault inside": (
        {"body": b'{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"%b"}}' % rules.FAULTY.encode()},
        "failed while",
    ),
    "an error in no form": ({"status": 413, "body": b'{"detail":"x"}'}, "without our error body"),
    "a stack": ({"body": b'{"jsonrpc":"2.0","id":1,"result":"Traceback (most recent call last)"}'}, "Traceback"),
    "a key": ({"body": b'{"jsonrpc":"2.0","id":1,"result":"key-of-ours"}'}, "key-of-ours"),
    "a key in a header": ({"headers": JSON | {"x": "key-of-ours"}}, "key-of-ours"),
    "a cut event": ({"body": b"data: " + RIGHT, "headers": SSE}, "within an event"),
    "an event that is no JSON": ({"body": b"data: {\n\n", "headers": SSE}, "not JSON"),
    "two answers in a stream": ({"body": (b"data: " + RIGHT + b"\n\n") * 2, "headers": SSE}, "2 answers"),
    "another id in a stream": ({"body": b"data: " + RIGHT.replace(b"1,", b"2,") + b"\n\n", "headers": SSE}, "not 1"),
    "a stream of something else": ({"body": b"hello\n\n", "headers": SSE}, "no line of an event"),
}


@pytest.mark.parametrize(("answer", "said"), WRONG.values(), ids=WRONG)
def test_each_fault_of_an_answer_is_seen(answer, said):
    assert any(said in what for what in judged(**answer)), judged(**answer)


UNPARSABLE = {
    "no status line": b"hello\r\n\r\n",
    "a header without colon": b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\nx",
    "a length and chunks": b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\nx",
    "a length in words": b"HTTP/1.1 200 OK\r\ncontent-length: one\r\n\r\nx",
    "a chunk without size": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n\r\n",
    "a chunk that is too long": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nxxx\r\n0\r\n\r\n",
    "a control character": b"HTTP/1.1 200 OK\r\nx: \x01\r\ncontent-length: 0\r\n\r\n",
}


@pytest.mark.parametrize("data", UNPARSABLE.values(), ids=UNPARSABLE)
def test_what_is_no_answer_is_not_read(data):
    with pytest.raises(UnparsableError):
        Reader().feed(data)


@pytest.mark.parametrize("data", [b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nx"])
def test_what_is_cut_off_is_seen_at_the_end(data):
    reader = Reader()
    reader.feed(data)
    with pytest.raises(UnparsableError):
        reader.end()


def test_answers_are_read_however_they_arrive():
    data = (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nab"
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\ncd\r\n0\r\n\r\n"
    )
    whole, single = Reader(), Reader()
    whole.feed(data)
    for byte in data:
        single.feed(bytes([byte]))
    assert [answer.body for answer in whole.answers] == [b"ab", b"cd"]
    assert single.answers == whole.answers


TREE = Snapshot({"gateway": Actor(7, 3, "ready", 0, 30_000, 20)}, incidents=0, connections=1, calls=0)


def tree(**fields):
    """The same tree with something else in it."""
    own = {name: fields.pop(name) for name in list(fields) if name in Actor.__struct_fields__}
    actor = msgspec.structs.replace(TREE.actors["gateway"], **own)
    return msgspec.structs.replace(TREE, actors={"gateway": actor}, **fields)


def test_a_tree_that_stayed_the_same_breaks_nothing():
    now = tree(rss_kib=33_000, files=22)
    assert [*rules.same_lives(TREE, now), *rules.no_growth(TREE, now), *rules.nothing_left(TREE, now)] == []


@pytest.mark.parametrize(
    ("rule", "now"),
    [
        (rules.same_lives, tree(pid=8)),
        (rules.same_lives, tree(incarnation=4)),
        (rules.same_lives, tree(restarts=1)),
        (rules.same_lives, tree(state="failed")),
        (rules.same_lives, tree(incidents=1)),
        (rules.same_lives, tree(faults=["a request failed"])),
        (rules.no_growth, tree(rss_kib=45_000)),
        (rules.nothing_left, tree(files=30)),
        (rules.nothing_left, tree(connections=2)),
        (rules.nothing_left, tree(calls=1)),
    ],
)
def test_each_change_of_a_tree_is_seen(rule, now):
    assert len(list(rule(TREE, now))) == 1


def test_a_seed_repeats_a_script():
    assert script(5, 17) == script(5, 17)
    assert script(5, 17) != script(6, 17)
