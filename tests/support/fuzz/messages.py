# SPDX-License-Identifier: AGPL-3.0-or-later
"""JSON-RPC bodies: right messages of all five revisions, and what becomes of them when they are mutated.

Only tools that end soon and reach nothing outside are called by name (`TOOLS`); any other name is a wrong one.
"""

from __future__ import annotations

import copy
import json
from random import Random

VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28")
MODERN = 4
_META = "io.modelcontextprotocol/"
TOOLS = {
    "echo": {"text": "some text"},
    "text_chunk": {"text": "one two three " * 20},
    "fuzz_pace": {"steps": 3},
    "fuzz_fails": {},
    "fuzz_blocks": {"kind": "all"},
    "fuzz_job": {},
    "fuzz_routed": {"region": "north", "count": 3, "deep": {"flag": True}},
    "dataset_list": {},
    "dataset_describe": {"dataset_id": "none"},
    "file_detect": {"path": "none.bin"},
    "hash_file": {"path": "../../etc/passwd"},
}
RESOURCES = ["fuzz://plain", "fuzz://item/7", "fuzz://fails", "fuzz://none", "file:///etc/passwd", "notes://../x"]
PROMPTS = ["fuzz_prompt", "fuzz_none"]
FORGED = ["", "x", "AAAA", "....", "A" * 700, "=?base64?SGVsbG8=?=", "%00", "eyJhbGciOiJub25lIn0.e30."]
"""Session ids, cursors, states and event ids that nobody gave out."""
CURSOR = "<cursor>" + "." * 20
"""Stands for a cursor that was given out; `driver` puts it in, of the same length."""
TASK = "<task>" + "." * 38
"""Stands for a task that was made; `driver` puts it in, of the same length."""
KNOWS_TASKS = {"elicitation": {}, "extensions": {"io.modelcontextprotocol/tasks": {}}}

ODD = [
    None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**64, 10**400, -(10**300), 1.5, -0.0, 1e308, 5e-324,
    "", " ", "x" * 300, "\x00", "\x7f\x1b[2J", "\ud800", "\udfff\ud800", "\u202e", "\U0001f600", "a\nb\r\n", "é" * 90,
    "../../../etc/passwd", "file:///etc/shadow", "2.0", "1", "null", "tools/call", "__proto__", "x" * 5000,
    [], {}, [[]], [None], {"": ""}, [1, "a", {}], {"a": {"b": {"c": []}}}, {"_meta": {}}, {"$ref": "#"}, [{}] * 60,
]  # fmt: skip
METHODS = [
    "tools/call", "tools/call", "tools/call", "tools/call", "tools/list", "resources/list", "resources/templates/list",
    "resources/read", "resources/read", "prompts/list", "prompts/get", "completion/complete", "logging/setLevel",
    "resources/subscribe", "resources/unsubscribe", "subscriptions/listen", "server/discover", "initialize", "ping",
    "notifications/initialized", "notifications/cancelled", "notifications/progress", "tasks/get", "tasks/cancel",
    "tasks/update", "tasks/result", "tasks/list",
    "sampling/createMessage", "roots/list", "no/such", "", "x" * 400,
]  # fmt: skip


def message(rng: Random, revision: int) -> dict[str, object]:
    """One right message, or one whose method does not exist there."""
    method = rng.choice(METHODS)
    params = _params(rng, method, revision)
    if revision == MODERN:
        params["_meta"] = {
            _META + "protocolVersion": VERSIONS[MODERN],
            _META + "clientCapabilities": rng.choice([{}, {"sampling": {}, "elicitation": {}}, KNOWS_TASKS]),
            _META + "clientInfo": {"name": "fuzz", "version": "1"},
        }
    if method in {"tools/call", "resources/read", "prompts/get"} and rng.random() < 0.3:
        meta = params.setdefault("_meta", {})
        meta["progressToken"] = rng.choice([1, "p"])
        if revision == MODERN:
            meta[_META + "logLevel"] = rng.choice(["debug", "error"])
    found: dict[str, object] = {"jsonrpc": "2.0", "id": rng.choice([1, 2, 77, "a", "7", 2**40]), "method": method}
    if method.startswith("notifications/"):
        del found["id"]
    if params or rng.random() < 0.5:
        found["params"] = params
    return found


def _params(rng: Random, method: str, revision: int) -> dict[str, object]:
    match method:
        case "tools/call":
            name = rng.choice(list(TOOLS)) if rng.random() < 0.9 else rng.choice(["none", "", "x" * 200, "http_fetchx"])
            params: dict[str, object] = {"name": name, "arguments": copy.deepcopy(TOOLS.get(name, {}))}
            if rng.random() < 0.1:
                params |= {"inputResponses": {"q": {"action": "accept"}}, "requestState": rng.choice(FORGED)}
            if name == "fuzz_job" and rng.random() < 0.7:
                params["task"] = rng.choice([{}, {"ttl": 1000}, {"ttl": -1}, {"ttl": "x"}, None])
            return params
        case "tools/list" | "resources/list" | "resources/templates/list" | "prompts/list" | "tasks/list":
            return {} if rng.random() < 0.5 else {"cursor": rng.choice([CURSOR, CURSOR, *FORGED])}
        case "resources/read" | "resources/subscribe" | "resources/unsubscribe":
            return {"uri": rng.choice(RESOURCES)}
        case "prompts/get":
            return {"name": rng.choice(PROMPTS), "arguments": rng.choice([{}, {"tone": "short"}, {"nope": "1"}])}
        case "completion/complete":
            ref = rng.choice(
                [{"type": "ref/prompt", "name": "fuzz_prompt"}, {"type": "ref/resource", "uri": "fuzz://item/{number}"}]
            )
            return {"ref": ref, "argument": {"name": rng.choice(["tone", "number", "no"]), "value": "s"}}
        case "logging/setLevel":
            return {"level": rng.choice(["debug", "warning", "loud"])}
        case "subscriptions/listen":
            kinds = {"toolsListChanged": True, "resourceSubscriptions": rng.sample(RESOURCES, 2)}
            tasks = {"taskIds": rng.sample(FORGED, 2)}
            return {"notifications": rng.choice([kinds, {}, {"promptsListChanged": True}, tasks])}
        case "initialize":
            wanted = rng.choice([*VERSIONS, "1999-01-01"])
            return {"protocolVersion": wanted, "capabilities": {}, "clientInfo": {"name": "f", "version": "1"}}
        case "notifications/cancelled":
            return {"requestId": rng.choice([1, "a", 99])}
        case "tasks/get" | "tasks/cancel" | "tasks/result":
            return {"taskId": rng.choice([TASK, *FORGED])}
        case "tasks/update":
            return {"taskId": rng.choice([TASK, *FORGED]), "inputResponses": {"sure": rng.choice(ODD)}}
    return {} if revision == MODERN or rng.random() < 0.5 else {"anything": 1}


def mutated(rng: Random, body: object) -> object:
    """The same with one to three changes somewhere inside."""
    holder: list[object] = [copy.deepcopy(body)]
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        parent, key = rng.choice(list(_places(holder)))
        _change(rng, parent, key)
    return holder[0] if holder else None


def _places(node: object):
    """Every (container, key) below a node."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in list(items):
        yield node, key
        yield from _places(value)


def _change(rng: Random, parent, key) -> None:
    match rng.randrange(8):
        case 0 | 1 | 2:
            parent[key] = copy.deepcopy(rng.choice(ODD))
        case 3:
            del parent[key]
            if isinstance(parent, list) and not parent:
                parent.append(None)
        case 4:
            if isinstance(parent, dict):
                parent[rng.choice(["", "id", "method", "params", "_meta", key + "x", "\ud800"])] = parent.pop(key)
        case 5:
            parent[key] = [parent[key]]
        case 6:
            deep: object = parent[key]
            for _ in range(rng.choice([3, 30, 300])):
                deep = {"a": deep} if rng.random() < 0.5 else [deep]
            parent[key] = deep
        case 7:
            if isinstance(parent, dict):
                parent[rng.choice(["result", "error", "extra", "_meta", "cursor"])] = copy.deepcopy(rng.choice(ODD))


def batch(rng: Random, revision: int) -> list[object]:
    """An array of messages, some of them mutated."""
    many = [message(rng, revision) for _ in range(rng.choice([0, 1, 2, 5, 20, 101]))]
    return [mutated(rng, one) if rng.random() < 0.2 else one for one in many]


def encoded(rng: Random, body: object) -> bytes:
    """As JSON, in one of the ways to write it."""
    return json.dumps(body, ensure_ascii=True, separators=rng.choice([(",", ":"), (", ", ": ")])).encode()


def damaged(rng: Random, text: bytes) -> bytes:
    """JSON text with damage that no JSON writer would do."""
    at = rng.randrange(len(text) + 1)
    match rng.randrange(12):
        case 0:
            return text[:at]
        case 1:
            return text[:at] + bytes([rng.randrange(256)]) + text[at + 1 :]
        case 2:
            return (
                text[:at]
                + rng.choice([b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\x00"])
                + text[at:]
            )
        case 3:
            return b"\xef\xbb\xbf" + text
        case 4:
            return text.decode("utf-8", "replace").encode(rng.choice(["utf-16", "utf-32", "utf-7"]))
        case 5:
            return text + rng.choice([text, b"\n", b"}", b"]", b"null", b" " * 900])
        case 6:
            return rng.choice([b"[", b'{"a":', b'{"params":{"_meta":']) * rng.choice([2, 100, 5000, 50000])
        case 7:
            return text.replace(b'"2.0"', rng.choice([b"NaN", b"1e999", b"-Infinity", b"2.0", b"0x2", b"9" * 5000]), 1)
        case 8:
            return text.replace(
                b'"id":', b'"id": ' + rng.choice([b"9" * 400, b"1e2", b"-0", b"1.0", b"[1]"]) + b', "id":'
            )
        case 9:
            return text.replace(b'"params"', b'"params": {}, "params"', 1)
        case 10:
            return rng.choice([b"", b"null", b"1", b'"x"', b"[]", b"{}", b"true", b"\n\n", b"[[]]", b"[1,2]", b"'a'"])
        case _:
            return bytes(rng.randrange(256) for _ in range(rng.randrange(1, 80)))
