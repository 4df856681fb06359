# SPDX-License-Identifier: AGPL-3.0-or-later
"""What each revision sees of tools and results."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from actors.tool_messages import ToolAnnotations, ToolResult
from gateway.mcp.eras import A, B, C, D, E
from gateway.mcp.shaping import Shaper
from gateway.mcp.testing import descriptor, result

INFO: dict[str, object] = {"name": "greenroom", "version": "1"}
ALL = pytest.mark.parametrize("revision", [A, B, C, D, E])


def shaped(revision: int, value: ToolResult) -> dict[str, Any]:
    body = Shaper(revision, INFO).tool_result(value)
    assert b"\n" not in body
    return msgspec.json.decode(body)  # type: ignore[no-any-return]


@ALL
def test_text(revision: int) -> None:
    found = shaped(revision, result("ä\nb"))
    assert found["content"] == [{"type": "text", "text": "ä\nb"}]
    assert "structuredContent" not in found
    assert "isError" not in found
    assert found["_meta"]["greenroom/runtime"] == "general"
    assert found["_meta"]["greenroom/duration_ms"] == 0.5


@ALL
def test_the_envelope_of_the_modern_revision_only(revision: int) -> None:
    found = shaped(revision, result("x", runtime="p2p"))
    assert found.get("resultType") == ("complete" if revision == E else None)
    assert ("io.modelcontextprotocol/serverInfo" in found["_meta"]) == (revision == E)
    assert found["_meta"]["greenroom/runtime"] == "p2p"


@ALL
def test_structured_content_since_the_third_revision(revision: int) -> None:
    found = shaped(revision, result({"a": [1, "ü"]}, "object"))
    assert found["content"] == [{"type": "text", "text": '{"a":[1,"ü"]}'}]
    assert found.get("structuredContent") == ({"a": [1, "ü"]} if revision >= C else None)


@ALL
def test_wrapped_values(revision: int) -> None:
    found = shaped(revision, result([1, 2], "wrapped"))
    assert found["content"] == [{"type": "text", "text": "[1,2]"}]
    assert found.get("structuredContent") == ({"result": [1, 2]} if revision >= C else None)


def test_values_keep_their_digits() -> None:
    value = ToolResult(
        value=b'{"f":95.5,"i":30,"b":123456789012345678901}', shape="object", runtime="p2p", duration_ms=0
    )
    assert b'"structuredContent":{"f":95.5,"i":30,"b":123456789012345678901}' in Shaper(E, INFO).tool_result(value)


def test_values_over_several_lines_become_one() -> None:
    value = ToolResult(value=b'{\n "a": "x\\ny"\r\n}', shape="object", runtime="general", duration_ms=1)
    assert shaped(E, value)["structuredContent"] == {"a": "x\ny"}


@ALL
def test_tool_errors_are_marked(revision: int) -> None:
    assert shaped(revision, result("x", is_error=True))["isError"] is True


BLOCKS = [
    {"type": "audio", "data": "QQ==", "mimeType": "audio/wav"},
    {"type": "resource_link", "uri": "file:///a", "name": "a", "icons": []},
    {"type": "text", "text": "t", "annotations": {"priority": 1, "lastModified": "2025-01-01T00:00:00Z"}},
]


@pytest.mark.parametrize(
    ("revision", "kinds"),
    [
        (A, ["text", "text", "text"]),
        (B, ["audio", "text", "text"]),
        (C, ["audio", "resource_link", "text"]),
        (D, ["audio", "resource_link", "text"]),
        (E, ["audio", "resource_link", "text"]),
    ],
)
def test_content_blocks_that_a_revision_lacks_become_text(revision: int, kinds: list[str]) -> None:
    found = shaped(revision, result(BLOCKS, "content"))["content"]
    assert [block["type"] for block in found] == kinds
    assert ("lastModified" in found[2]["annotations"]) == (revision >= C)
    if revision >= C:
        assert ("icons" in found[1]) == (revision >= D)
    else:
        assert found[1]["text"] == "a: file:///a"


TOOL = descriptor(
    "t",
    output_schema=b'{"type":"object"}',
    annotations=ToolAnnotations(read_only_hint=True),
    input_schema=b'{\n"type":"object", "x": 95.5, "$defs": {"a": {}}}',
)


@ALL
def test_a_tool_has_what_its_revision_knows(revision: int) -> None:
    found = Shaper(revision, INFO).tool(TOOL)
    names = {"name", "description", "inputSchema"}
    names |= {"annotations"} if revision >= B else set()
    names |= {"title", "outputSchema", "_meta"} if revision >= C else set()
    assert set(found) == names
    listed = msgspec.json.decode(Shaper(revision, INFO).tool_list([TOOL], "next", ttl_ms=5))
    assert listed["tools"][0]["inputSchema"] == {"type": "object", "x": 95.5, "$defs": {"a": {}}}
    assert listed["nextCursor"] == "next"
    assert ("ttlMs" in listed) == (revision == E)


@pytest.mark.parametrize(("revision", "shown"), [(C, False), (D, False), (E, True)])
def test_output_schemas_that_are_not_objects_are_for_the_modern_revision(revision: int, shown: bool) -> None:
    tool = descriptor("t", output_schema=b'{"type":"array"}')
    assert ("outputSchema" in Shaper(revision, INFO).tool(tool)) == shown


def test_empty_annotations_are_left_out() -> None:
    assert "annotations" not in Shaper(E, INFO).tool(descriptor("t"))


@ALL
def test_an_empty_result_is_empty_before_the_modern_revision(revision: int) -> None:
    assert (Shaper(revision, INFO).result({}) == b"{}") == (revision < E)
