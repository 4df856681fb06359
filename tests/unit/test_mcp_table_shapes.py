# SPDX-License-Identifier: AGPL-3.0-or-later
"""How types grew from revision to revision, as a table: member -> the first revision that has it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from actors.settings import McpSettings, Settings
from actors.tool_messages import Annotations, Icon, PromptArgument, ToolAnnotations
from gateway.mcp import offers_shaping
from gateway.mcp.capabilities import can_be_asked, declared_in
from gateway.mcp.eras import VERSIONS, A, B, C, D, E
from gateway.mcp.shaping import Shaper
from gateway.mcp.testing import descriptor, legacy, modern, prompt, protocol, resource, result, said

EACH = pytest.mark.parametrize("revision", [A, B, C, D, E], ids=VERSIONS)
ICONS = (Icon(src="https://example.org/a.png"),)


def known(grown: dict[str, int], revision: int) -> set[str]:
    return {name for name, since in grown.items() if revision >= since}


def shaper(revision: int) -> Shaper:
    return Shaper(revision, {"name": "greenroom", "version": "1"})


TOOL = {
    "name": A, "description": A, "inputSchema": A, "annotations": B, "title": C, "outputSchema": C, "_meta": C,
    "icons": D,
}  # fmt: skip
RESOURCE = {
    "uri": A, "name": A, "description": A, "mimeType": A, "size": A, "annotations": A, "title": C, "_meta": C,
    "icons": D,
}  # fmt: skip
TEMPLATE = {("uriTemplate" if name == "uri" else name): since for name, since in RESOURCE.items() if name != "size"}
PROMPT = {"name": A, "description": A, "arguments": A, "title": C, "_meta": C, "icons": D}
ANNOTATIONS = {"audience": A, "priority": A, "lastModified": C}
IMPLEMENTATION = {"name": A, "version": A, "title": C, "icons": D, "websiteUrl": D}
CAPABILITIES = {"tools": A, "resources": A, "prompts": A, "logging": A, "completions": B}
BLOCKS = {"text": A, "image": A, "resource": A, "audio": B, "resource_link": C}


@EACH
def test_a_tool(revision: int) -> None:
    tool = descriptor(
        "t", icons=ICONS, output_schema=b'{"type":"object"}', annotations=ToolAnnotations(read_only_hint=True)
    )
    assert set(shaper(revision).tool(tool)) == known(TOOL, revision)


@EACH
@pytest.mark.parametrize(("uri", "grown"), [("a:b", RESOURCE), ("a:{b}", TEMPLATE)])
def test_a_resource(revision: int, uri: str, grown: dict[str, int]) -> None:
    hints = Annotations(audience=["user"], priority=0.5, last_modified="2026-01-01T00:00:00Z")
    one = resource(uri, icons=ICONS, mime_type="text/plain", size=5, annotations=hints)
    shown = offers_shaping.resource(shaper(revision), one)
    assert set(shown) == known(grown, revision)
    assert set(shown["annotations"]) == known(ANNOTATIONS, revision)  # type: ignore[call-overload]


@EACH
def test_a_prompt(revision: int) -> None:
    one = prompt("p", icons=ICONS, arguments=(PromptArgument(name="a", description="A", required=True),))
    shown = offers_shaping.prompt(shaper(revision), one)
    assert set(shown) == known(PROMPT, revision)
    assert shown["arguments"] == [{"name": "a", "description": "A", "required": True}]


@EACH
async def test_the_server_of_itself(revision: int) -> None:
    told = McpSettings(title="T", website_url="https://example.org", icons=["https://example.org/a.png"])
    endpoint = protocol(settings=Settings(mcp=told))
    if revision == E:
        found = said(await endpoint.handle(modern("server/discover")))["result"]
        server = found["_meta"]["io.modelcontextprotocol/serverInfo"]
    else:
        hello = {"protocolVersion": VERSIONS[revision], "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
        found = said(await endpoint.handle(legacy("initialize", hello)))["result"]
        server = found["serverInfo"]
    assert set(server) == known(IMPLEMENTATION, revision)
    assert set(found["capabilities"]) == known(CAPABILITIES, revision)


SENT = [
    {"type": "text", "text": "x"},
    {"type": "image", "data": "QQ==", "mimeType": "image/png"},
    {"type": "resource", "resource": {"uri": "a:b", "text": "x", "_meta": {"k": 1}}},
    {"type": "audio", "data": "QQ==", "mimeType": "audio/wav"},
    {"type": "resource_link", "uri": "a:b", "name": "b", "icons": [{"src": "https://example.org/a.png"}]},
]


@EACH
def test_content_blocks(revision: int) -> None:
    found = msgspec.json.decode(shaper(revision).tool_result(result(SENT, "content")))["content"]
    for given, shown in zip(SENT, found, strict=True):
        kind = str(given["type"])
        assert shown["type"] == (kind if kind in known(BLOCKS, revision) else "text")
        assert ("icons" in shown) == ("icons" in given and revision >= D)
    assert ("_meta" in found[2]["resource"]) == (revision >= C)


@pytest.mark.parametrize(
    ("declared", "can"),
    [
        # what the client declares -> what it can be asked at A, B, C, D, E
        ({}, [""] * 5),
        ({"roots": {"listChanged": True}}, ["roots"] * 5),
        # Before D a client had no way to say that it can't include context.
        ({"sampling": {}}, ["sampling sampling.context"] * 3 + ["sampling"] * 2),
        ({"sampling": {"context": {}}}, ["sampling sampling.context"] * 5),
        ({"sampling": {"tools": {}}}, ["sampling sampling.context"] * 3 + ["sampling sampling.tools"] * 2),
        ({"elicitation": {}}, ["", "", "elicitation", "elicitation", "elicitation"]),
        ({"elicitation": {"form": {}}}, ["", "", "elicitation", "elicitation", "elicitation"]),
        ({"elicitation": {"url": {}}}, ["", "", "elicitation", "elicitation.url", "elicitation.url"]),
        (
            {"elicitation": {"form": {}, "url": {}}},
            ["", "", "elicitation", "elicitation elicitation.url", "elicitation elicitation.url"],
        ),
        ({"elicitation": None, "sampling": False, "roots": None}, [""] * 5),
        ({"made": {}, "up": 5}, [""] * 5),
    ],
)
def test_what_a_client_can_be_asked(declared: dict[str, Any], can: list[str]) -> None:
    assert [" ".join(can_be_asked(declared_in(declared), revision)) for revision in (A, B, C, D, E)] == can


@pytest.mark.parametrize(
    ("write", "hints"),
    [
        (lambda at: at.tool_list([], None, ttl_ms=5), True),
        (lambda at: offers_shaping.page(at, "resources", [], None, ttl_ms=5), True),
        (lambda at: offers_shaping.contents(at, result([{"uri": "a:b", "text": "x"}]), resource("a:b")), True),
        (lambda at: offers_shaping.messages(at, result([]), prompt("p")), False),
        (lambda at: offers_shaping.completion(at, None), False),
        (lambda at: at.tool_result(result("x")), False),
    ],
    ids=["tools", "list", "contents", "messages", "completion", "call"],
)
@EACH
def test_which_results_may_be_cached(revision: int, write: Any, hints: bool) -> None:
    body = write(shaper(revision))
    assert b"\n" not in body
    found = msgspec.json.decode(body)
    kept = hints and revision == E
    assert ("ttlMs" in found, found.get("cacheScope")) == (kept, "private" if kept else None)
    assert found.get("resultType") == ("complete" if revision == E else None)
