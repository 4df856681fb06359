# SPDX-License-Identifier: AGPL-3.0-or-later
"""The pipeline of revision 2026-07-28 as a table: of two faults in one request the one of the earlier step answers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import msgspec
import pytest

from actors.settings import ServerSettings, Settings
from gateway.mcp.eras import A, B, C, D, E
from gateway.mcp.exchange import Core
from gateway.mcp.jsonrpc import McpError
from gateway.mcp.testing import META, ScriptedBackend, descriptor, echo, modern, protocol, said
from gateway.types import Answer, Request

PREFIX = "io.modelcontextprotocol/"
SCHEMA = b'{"type":"object","properties":{"region":{"type":"string","x-mcp-header":"Region"}}}'
MOST_BYTES = 1024


class Draft:
    """A request that is right, to be broken."""

    def __init__(self) -> None:
        self.verb = "POST"
        self.name = "plain"
        self.headers: dict[str, str | None] = {}
        self.repeated: frozenset[str] = frozenset()
        self.meta: dict[str, object] = dict(META)
        self.arguments: object = {}
        self.members: dict[str, object] = {}
        self.raw = b""

    def request(self) -> Request:
        right = modern("tools/call", {"name": self.name})
        merged = {**right.headers, **self.headers}
        params = {"name": self.name, "arguments": self.arguments, "_meta": self.meta}
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params, **self.members}
        kept = {name: value for name, value in merged.items() if value is not None}
        return Request(self.verb, kept, self.raw or msgspec.json.encode(message), repeated=self.repeated)


def header(name: str, value: str | None) -> Callable[[Draft], None]:
    return lambda draft: draft.headers.update({name: value})


def setting(member: str, value: object) -> Callable[[Draft], None]:
    return lambda draft: setattr(draft, member, value)


def meta(name: str, value: object = None) -> Callable[[Draft], None]:
    return lambda draft: draft.meta.update({name: value}) if value is not None else draft.meta.pop(name)  # type: ignore[func-returns-value]


def newer(draft: Draft) -> None:
    draft.meta[PREFIX + "protocolVersion"] = draft.headers["mcp-protocol-version"] = "v999.0.0"


def unknown_method(draft: Draft) -> None:
    draft.members["method"] = draft.headers["mcp-method"] = "unknown/method"


# step of the specification's order, its fault, status, code (0: an error of HTTP, whose code nothing fixes)
FAULTS: list[tuple[float, str, Callable[[Draft], None], int, int]] = [
    (1.0, "Host", header("host", "evil.example.com"), 421, 0),
    (1.1, "Origin", header("origin", "http://evil.example.com"), 403, 0),
    (1.2, "verb", setting("verb", "PUT"), 405, 0),
    (1.3, "Content-Type", header("content-type", "text/plain"), 400, 0),
    (1.4, "Accept", header("accept", "text/html"), 406, 0),
    (1.5, "size", lambda draft: draft.meta.update(filler="x" * MOST_BYTES), 413, 0),
    (2.0, "JSON", setting("raw", b"{"), 400, -32700),
    (2.1, "envelope", lambda draft: draft.members.update(jsonrpc="1.0"), 400, -32600),
    (3.0, "header twice", setting("repeated", frozenset({"mcp-name"})), 400, -32020),
    (4.0, "_meta", meta(PREFIX + "clientCapabilities"), 400, -32602),
    (5.0, "version header", header("mcp-protocol-version", "v998"), 400, -32020),
    (5.1, "Mcp-Method", header("mcp-method", None), 400, -32020),
    (5.2, "Mcp-Name", header("mcp-name", "other"), 400, -32020),
    (6.0, "version", newer, 400, -32022),
    (7.0, "Mcp-Param", header("mcp-param-region", "eu"), 400, -32020),
    (8.0, "method", unknown_method, 404, -32601),
    (9.0, "capability", setting("name", "needy"), 400, -32021),
    (10.0, "arguments", setting("arguments", [1]), 400, -32602),
    (10.0, "log level", meta(PREFIX + "logLevel", "loud"), 400, -32602),
    (10.0, "progress token", meta("progressToken", []), 400, -32602),
]
# Mcp-Name and Mcp-Param-* are nothing to methods that nobody knows; bad JSON has no size of its own here.
IMPOSSIBLE = {("Mcp-Name", "method"), ("Mcp-Param", "method"), ("size", "JSON")}
PAIRS = [
    (earlier, later)
    for earlier, later in combinations(FAULTS, 2)
    if earlier[0] < later[0] and (earlier[1], later[1]) not in IMPOSSIBLE
]


async def answer_to(draft: Draft) -> Answer:
    tools = [descriptor("plain", input_schema=SCHEMA), descriptor("needy", input_schema=SCHEMA, requires=("sampling",))]
    endpoint = protocol(
        ScriptedBackend({"plain": echo, "needy": echo}, tools),
        Settings(server=ServerSettings(max_body_bytes=MOST_BYTES)),
    )
    async with endpoint.running():
        answer = await endpoint.handle(draft.request())
    assert isinstance(answer, Answer)
    return answer


def check(answer: Answer, status: int, code: int) -> None:
    assert answer.status == status
    assert not code or said(answer)["error"]["code"] == code


async def test_without_a_fault_it_is_served() -> None:
    assert (await answer_to(Draft())).status == 200


@pytest.mark.parametrize(("break_", "status", "code"), [row[2:] for row in FAULTS], ids=[row[1] for row in FAULTS])
async def test_one_fault(break_: Callable[[Draft], None], status: int, code: int) -> None:
    draft = Draft()
    break_(draft)
    answer = await answer_to(draft)
    check(answer, status, code)
    if code and code != -32700:
        assert said(answer)["id"] == 1


@pytest.mark.parametrize(("earlier", "later"), PAIRS, ids=[f"{one[1]}-{two[1]}" for one, two in PAIRS])
async def test_the_earlier_of_two_faults_answers(earlier: Any, later: Any) -> None:
    draft = Draft()
    later[2](draft)
    earlier[2](draft)
    check(await answer_to(draft), *earlier[3:])


async def test_the_header_decides_before_the_version() -> None:
    right = modern("tools/list", meta={PREFIX + "protocolVersion": "v999.0.0"})
    assert said(await protocol().handle(right))["error"]["code"] == -32020


@pytest.mark.parametrize(
    ("code", "modern_status"),
    [
        (-32700, 400), (-32600, 400), (-32602, 400), (-32020, 400), (-32021, 400), (-32022, 400),
        (-32601, 404),
        (-32603, 200), (-32042, 200), (1, 200),
    ],
)  # fmt: skip
def test_the_status_of_a_code(code: int, modern_status: int) -> None:
    error = McpError(code, "x")
    assert Core.error(b"1", error, E).status == modern_status
    for revision in (A, B, C, D):
        assert Core.error(b"1", error, revision).status == 200


@pytest.mark.parametrize(
    "method", ["tools/list", "resources/list", "prompts/list", "server/discover", "subscriptions/listen"]
)
async def test_an_unknown_log_level_is_invalid_whatever_the_method(method: str) -> None:
    request = modern(method, {"notifications": {}}, meta={PREFIX + "logLevel": "loud"})
    answer = await protocol().handle(request)
    assert (answer.status, said(answer)["error"]["code"]) == (400, -32602)


async def test_under_a_legacy_header_param_headers_may_lack_but_not_lie() -> None:
    tools = [descriptor("plain", input_schema=SCHEMA)]
    endpoint = protocol(ScriptedBackend({"plain": echo}, tools))
    call = {"name": "plain", "arguments": {"region": "eu"}}
    old: dict[str, str | None] = {"mcp-protocol-version": "2025-11-25"}
    async with endpoint.running():
        assert (await endpoint.handle(modern("tools/call", call, old))).status == 200
        lie = await endpoint.handle(modern("tools/call", call, old | {"mcp-param-region": "us"}))
    assert (lie.status, said(lie)["error"]["code"]) == (400, -32020)
