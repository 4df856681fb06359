# SPDX-License-Identifier: AGPL-3.0-or-later
"""All that goes out fits the official JSON Schema of its revision; `wire_schema` says where the schemas are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import wire_schema
from asking_tools import PoolBackend
from wire_schema import LEGACY, MODERN, check

from actors.errors import BusyError
from actors.settings import McpSettings, Settings
from actors.tool_messages import (
    Annotations,
    Changed,
    Icon,
    LogItem,
    Progress,
    PromptArgument,
    ToolAnnotations,
    ToolCall,
    ToolResult,
)
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
    prompt,
    protocol,
    resource,
    result,
    said,
)
from gateway.types import Request, Stream

pytestmark = pytest.mark.skipif(
    not wire_schema.AVAILABLE, reason="no MCP schemas; set GREENROOM_MCP_SCHEMAS to their folder"
)

VALUES: dict[str, ToolResult] = {
    "text": result("plain ü\n"),
    "object": result({"a": 1}, "object"),
    "wrapped": result([1, 2], "wrapped"),
    "error": result("it failed", is_error=True),
    "content": result(
        [
            {"type": "text", "text": "t", "annotations": {"priority": 1, "lastModified": "2025-01-01T00:00:00Z"}},
            {"type": "image", "data": "QQ==", "mimeType": "image/png"},
            {"type": "audio", "data": "QQ==", "mimeType": "audio/wav"},
            {"type": "resource", "resource": {"uri": "file:///a", "text": "x"}},
            {"type": "resource_link", "uri": "file:///a", "name": "a", "icons": [{"src": "file:///i.png"}]},
        ],
        "content",
    ),
}

VALUES_OF_METHODS: dict[str, ToolResult] = {
    "resources/read": result(
        [
            {"uri": "a://1", "text": "t", "mimeType": "text/plain", "_meta": {"k": 1}},
            {"uri": "a://1", "blob": "QQ=="},
        ],
        "contents",
    ),
    "prompts/get": result(
        [
            {"role": role, "content": block}
            for role, block in zip(
                ["user", "assistant"] * 3, msgspec.json.decode(VALUES["content"].value), strict=False
            )
        ],
        "messages",
    ),
    "completion/complete": result({"values": ["a"], "total": 1, "hasMore": False}, "completion"),
}
OFFERS: list[tuple[str, dict[str, Any], str]] = [
    ("resources/list", {}, "ListResourcesResult"),
    ("resources/templates/list", {}, "ListResourceTemplatesResult"),
    ("resources/read", {"uri": "a://1"}, "ReadResourceResult"),
    ("prompts/list", {}, "ListPromptsResult"),
    ("prompts/get", {"name": "p1", "arguments": {"a": "1"}}, "GetPromptResult"),
    (
        "completion/complete",
        {"ref": {"type": "ref/prompt", "name": "p1"}, "argument": {"name": "a", "value": ""}},
        "CompleteResult",
    ),
]


async def tool(call: ToolCall, on_item: OnItem) -> ToolResult:
    if call.name == "busy":
        raise BusyError("too many calls")
    if on_item is not None:
        on_item(Progress(progress=1.0, total=2.0, message="half"))
        on_item(LogItem(level="info", data=b'{"a":1}', logger="x"))
    return VALUES[call.name] if type(call) is ToolCall else VALUES_OF_METHODS[call.METHOD]


ICONS = [Icon("https://example.com/i.png", mime_type="image/png", sizes=["48x48"], theme="dark")]
META = b'{"example.com/k":1}'
HINTS = Annotations(audience=["user"], priority=1.0, last_modified="2025-01-01T00:00:00Z")


def backend() -> ScriptedBackend:
    given = ScriptedBackend(dict.fromkeys([*VALUES, "busy", *VALUES_OF_METHODS], tool))
    given.replace(
        [
            descriptor(
                name,
                output_schema=b'{"type":"object"}' if name == "object" else None,
                annotations=ToolAnnotations(title="T", read_only_hint=True),
                icons=ICONS,
                meta=META,
            )
            for name in [*VALUES, "busy"]
        ],
        [
            resource(uri, icons=ICONS, meta=META, annotations=HINTS, mime_type="text/plain", size=3, completes=["x"])
            for uri in ("a://1", "a://2", "a://3", "a://4", "a://5", "t://{x}")
        ],
        [
            prompt(
                name,
                icons=ICONS,
                meta=META,
                arguments=[PromptArgument(name="a", description="A"), PromptArgument(name="b", required=False)],
                completes=["a"],
            )
            for name in ("p1", "p2", "p3", "p4", "p5")
        ],
    )
    return given


def test_the_schemas_can_fail() -> None:
    with pytest.raises(jsonschema.ValidationError):
        check(MODERN, "CallToolResult", {"content": []})
    with pytest.raises(jsonschema.ValidationError):
        check("2024-11-05", "CallToolResult", {"content": [{"type": "audio", "data": "QQ==", "mimeType": "a/b"}]})


@pytest.mark.parametrize("version", LEGACY)
async def test_a_legacy_session_speaks_its_schema(version: str) -> None:
    response = "JSONRPCResultResponse" if version == "2025-11-25" else "JSONRPCResponse"
    error = "JSONRPCErrorResponse" if version == "2025-11-25" else "JSONRPCError"
    endpoint = protocol(backend(), page_size=4)
    async with endpoint.running():
        params = {"protocolVersion": version, "capabilities": {}, "clientInfo": CLIENT}
        hello = said(await endpoint.handle(legacy("initialize", params)))
        check(version, response, hello)
        check(version, "InitializeResult", hello["result"])
        session = await open_session(endpoint, version)
        page = said(await endpoint.handle(legacy("tools/list", headers=session)))["result"]
        assert "nextCursor" in page
        check(version, "ListToolsResult", page)
        check(version, "EmptyResult", said(await endpoint.handle(legacy("ping", headers=session)))["result"])
        await endpoint.handle(legacy("logging/setLevel", {"level": "debug"}, session))
        for name in VALUES:
            call = legacy("tools/call", {"name": name, "_meta": {"progressToken": "p"}}, session)
            progress, log, last = await drain(await endpoint.handle(call))
            check(version, "ProgressNotification", progress)
            check(version, "LoggingMessageNotification", log)
            check(version, response, last)
            check(version, "CallToolResult", last["result"])
        failed = said(await endpoint.handle(legacy("tools/call", {"name": "busy"}, session)))
        check(version, "CallToolResult", failed["result"])
        check(version, error, said(await endpoint.handle(legacy("nope", headers=session))))
        headers = {**legacy("x", headers=session).headers, "accept": "text/event-stream"}
        stream = await endpoint.handle(Request("GET", headers))
        assert isinstance(stream, Stream)
        endpoint.list_changed("tools")
        (changed,) = messages(await anext(aiter(stream.events)))
        check(version, "ToolListChangedNotification", changed)


async def test_the_modern_revision_speaks_its_schema() -> None:
    endpoint = protocol(backend(), page_size=4)
    async with endpoint.running():
        found = said(await endpoint.handle(modern("server/discover")))
        check(MODERN, "DiscoverResultResponse", found)
        check(MODERN, "ListToolsResultResponse", said(await endpoint.handle(modern("tools/list"))))
        for name in VALUES:
            meta = {"progressToken": 1, "io.modelcontextprotocol/logLevel": "debug"}
            progress, log, last = await drain(await endpoint.handle(modern("tools/call", {"name": name}, meta=meta)))
            check(MODERN, "ProgressNotification", progress)
            check(MODERN, "LoggingMessageNotification", log)
            check(MODERN, "CallToolResultResponse", last)
            check(MODERN, "CallToolResult", last["result"])
        failed = said(await endpoint.handle(modern("tools/call", {"name": "busy"})))
        check(MODERN, "CallToolResult", failed["result"])


@pytest.mark.parametrize("version", LEGACY)
async def test_resources_and_prompts_of_a_session_speak_its_schema(version: str) -> None:
    endpoint = protocol(backend(), page_size=4)
    async with endpoint.running():
        session = await open_session(endpoint, version)
        for method, params, name in OFFERS:
            answer = said(await endpoint.handle(legacy(method, params, session)))
            check(version, name, answer["result"])
            assert ("nextCursor" in answer["result"]) == (method in {"resources/list", "prompts/list"})
        subscribed = said(await endpoint.handle(legacy("resources/subscribe", {"uri": "a://1"}, session)))
        check(version, "EmptyResult", subscribed["result"])
        error = said(await endpoint.handle(legacy("resources/read", {"uri": "no://"}, session)))
        check(version, "JSONRPCErrorResponse" if version == "2025-11-25" else "JSONRPCError", error)
        headers = {**legacy("x", headers=session).headers, "accept": "text/event-stream"}
        stream = await endpoint.handle(Request("GET", headers))
        assert isinstance(stream, Stream)
        endpoint.changed(Changed(uris=["a://1"], lists=["prompts", "resources"]))
        prompts, resources, updated = messages(await anext(aiter(stream.events)))
        check(version, "PromptListChangedNotification", prompts)
        check(version, "ResourceListChangedNotification", resources)
        check(version, "ResourceUpdatedNotification", updated)


async def test_resources_and_prompts_speak_the_modern_schema() -> None:
    endpoint = protocol(backend(), page_size=4)
    async with endpoint.running():
        for method, params, name in OFFERS:
            answer = said(await endpoint.handle(modern(method, params)))
            check(MODERN, f"{name}Response", answer)
            check(MODERN, name, answer["result"])
        error = said(await endpoint.handle(modern("resources/read", {"uri": "no://"})))
        check(MODERN, "JSONRPCErrorResponse", error)
        check(MODERN, "InvalidParamsError", error["error"])


async def test_a_server_that_tells_of_itself_speaks_every_schema() -> None:
    told = McpSettings(title="T", instructions="I", website_url="https://example.com", icons=["https://example.com/i"])
    endpoint = protocol(backend(), Settings(mcp=told))
    for version in LEGACY:
        params = {"protocolVersion": version, "capabilities": {}, "clientInfo": CLIENT}
        check(version, "InitializeResult", said(await endpoint.handle(legacy("initialize", params)))["result"])
    check(MODERN, "DiscoverResultResponse", said(await endpoint.handle(modern("server/discover"))))


@pytest.mark.parametrize(
    ("name", "request_"),
    [
        ("MethodNotFoundError", modern("nope")),
        ("InvalidParamsError", modern("tools/call", {"name": "nope"})),
        ("HeaderMismatchError", modern("tools/list", headers={"mcp-method": "x"})),
        (
            "UnsupportedProtocolVersionError",
            modern(
                "tools/list",
                headers={"mcp-protocol-version": "v9"},
                meta={"io.modelcontextprotocol/protocolVersion": "v9"},
            ),
        ),
    ],
)
async def test_modern_errors_speak_their_schema(name: str, request_: Request) -> None:
    error = said(await protocol(backend()).handle(request_))
    check(MODERN, "JSONRPCErrorResponse", error)
    check(MODERN, name, error if name in {"HeaderMismatchError", "UnsupportedProtocolVersionError"} else error["error"])


async def test_a_listen_speaks_its_schema() -> None:
    endpoint = protocol(backend())
    async with endpoint.running():
        kinds = {f"{kind}ListChanged": True for kind in ("tools", "prompts", "resources")}
        wanted = {"notifications": kinds | {"resourceSubscriptions": ["a://1"]}}
        answer = await endpoint.handle(modern("subscriptions/listen", wanted))
        endpoint.list_changed("tools")
        endpoint.changed(Changed(uris=["a://1"], lists=["prompts", "resources"]))
    acknowledged, changed, prompts, resources, updated, end = await drain(answer)
    check(MODERN, "PromptListChangedNotification", prompts)
    check(MODERN, "ResourceListChangedNotification", resources)
    check(MODERN, "ResourceUpdatedNotification", updated)
    check(MODERN, "SubscriptionsAcknowledgedNotification", acknowledged)
    check(MODERN, "ToolListChangedNotification", changed)
    check(MODERN, "SubscriptionsListenResultResponse", end)


CAN = {"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {}}
SAMPLED = {"role": "assistant", "content": {"type": "text", "text": "x"}, "model": "m"}


def answer_to(question: Any) -> dict[str, Any]:
    """An answer that fits any question of `asking_tools`."""
    if question["method"] == "sampling/createMessage":
        return SAMPLED
    if question["method"] == "roots/list":
        return {"roots": [{"uri": "file:///a"}]}
    content = {"name": "x", "size": "s", "toppings": ["nuts"]}
    return {"action": "accept", "content": content}


ASKING = ["ask_name", "ask_everything", "ask_order", "ask_toppings", "visit", "visit_first"]
REQUESTS = {
    "elicitation/create": "ElicitRequest",
    "sampling/createMessage": "CreateMessageRequest",
    "roots/list": "ListRootsRequest",
    "notifications/elicitation/complete": "ElicitationCompleteNotification",
}


@pytest.mark.parametrize("version", LEGACY)
async def test_questions_in_a_session_speak_its_schema(version: str, tmp_path: Path) -> None:
    endpoint = protocol(PoolBackend(tmp_path))
    seen = set()
    async with endpoint.running():
        params = {"protocolVersion": version, "capabilities": CAN, "clientInfo": CLIENT}
        token = dict((await endpoint.handle(legacy("initialize", params))).headers)["mcp-session-id"]
        session = {"mcp-session-id": token}
        for name in [*ASKING, "needs_sampling"]:
            answer = await endpoint.handle(legacy("tools/call", {"name": name}, session))
            if not isinstance(answer, Stream):
                # A question that this revision has no words for.
                last = said(answer)
                assert "error" not in last or last["error"]["code"] == -32042
                continue
            async for frames in answer.events:
                for message in messages(frames):
                    if "method" not in message:
                        continue
                    seen.add(message["method"])
                    kind = REQUESTS[message["method"]]
                    if version != "2025-11-25" and "id" in message:
                        check(version, "JSONRPCRequest", message)
                        message_ = {key: value for key, value in message.items() if key not in {"id", "jsonrpc"}}
                    else:
                        message_ = message
                    check(version, kind, message_)
                    if "id" in message:
                        body = {"jsonrpc": "2.0", "id": message["id"], "result": answer_to(message)}
                        assert (await endpoint.handle(post(body, session))).status == 202
        if version == "2025-11-25":
            last = said(await endpoint.handle(legacy("tools/call", {"name": "visit_first"}, session)))
            check(version, "URLElicitationRequiredError", last)
    expected = {"sampling/createMessage"}
    if version >= "2025-06-18":
        expected |= {"elicitation/create", "roots/list"}
    assert expected <= seen


@pytest.mark.parametrize("name", [*ASKING, "needs_sampling", "ask_in_a_thread", "ask_twice"])
async def test_rounds_of_questions_speak_the_modern_schema(name: str, tmp_path: Path) -> None:
    endpoint = protocol(PoolBackend(tmp_path))
    meta = {"io.modelcontextprotocol/clientCapabilities": CAN}
    async with endpoint.running():
        params: dict[str, object] = {"name": name}
        for _ in range(3):
            answer = await endpoint.handle(modern("tools/call", params, meta=meta))
            message = (await drain(answer))[-1] if isinstance(answer, Stream) else said(answer)
            check(MODERN, "CallToolResultResponse", message)
            result = message["result"]
            if result["resultType"] != "input_required":
                check(MODERN, "CallToolResult", result)
                break
            check(MODERN, "InputRequiredResult", result)
            for question in result["inputRequests"].values():
                check(MODERN, REQUESTS[question["method"]], question)
            responses = {key: answer_to(question) for key, question in result["inputRequests"].items()}
            params = {"name": name, "inputResponses": responses, "requestState": result["requestState"]}
        refused = said(await endpoint.handle(modern("tools/call", {"name": "needs_sampling"})))
        check(MODERN, "MissingRequiredClientCapabilityError", refused)


@pytest.mark.parametrize(
    ("method", "params", "kind"),
    [
        ("resources/read", {"uri": "greeting://me"}, "ReadResourceResult"),
        ("prompts/get", {"name": "ask_name"}, "GetPromptResult"),
    ],
)
async def test_rounds_of_resources_and_prompts_speak_the_modern_schema(
    method: str, params: dict[str, object], kind: str, tmp_path: Path
) -> None:
    endpoint = protocol(PoolBackend(tmp_path))
    meta = {"io.modelcontextprotocol/clientCapabilities": CAN}
    async with endpoint.running():
        asked = said(await endpoint.handle(modern(method, params, meta=meta)))
        check(MODERN, f"{kind}Response", asked)
        result = asked["result"]
        check(MODERN, "InputRequiredResult", result)
        responses = {key: answer_to(question) for key, question in result["inputRequests"].items()}
        more = {"inputResponses": responses, "requestState": result["requestState"]}
        done = said(await endpoint.handle(modern(method, params | more, meta=meta)))
        check(MODERN, f"{kind}Response", done)
        check(MODERN, kind, done["result"])
