# SPDX-License-Identifier: AGPL-3.0-or-later
"""Resources, prompts and completion at the endpoint: lists, errors and shapes of each revision, and the two ways."""

from __future__ import annotations

import pytest
import trio

from actors.errors import BusyError, InvalidArgumentsError, NotFoundError, ToolExecutionError
from actors.settings import McpSettings, Settings
from actors.tool_messages import (
    Annotations,
    CompletionAsk,
    Icon,
    Progress,
    PromptArgument,
    PromptGet,
    ResourceRead,
    ToolCall,
    ToolResult,
)
from gateway.mcp.testing import (
    OnItem,
    ScriptedBackend,
    descriptor,
    drain,
    legacy,
    modern,
    open_session,
    prompt,
    protocol,
    resource,
    result,
    said,
)
from gateway.types import Answer, Stream

A, B, C, D, E = "2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"
ALL = [A, B, C, D, E]
CONTENTS = [{"uri": "a://x", "mimeType": "text/plain", "text": "t", "_meta": {"k": 1}}]
MESSAGES = [
    {
        "role": "user",
        "content": {"type": "text", "text": "t", "_meta": {"k": 1}, "annotations": {"lastModified": "2025"}},
    },
    {"role": "assistant", "content": {"type": "audio", "data": "QQ==", "mimeType": "audio/wav"}},
    {
        "role": "user",
        "content": {"type": "resource_link", "uri": "a://x", "name": "x", "icons": [{"src": "https://i"}]},
    },
]
ERRORS = {
    "a://missing": NotFoundError("it is gone"),
    "a://wrong": InvalidArgumentsError("a: expected a whole number"),
    "a://busy": BusyError("full"),
    "a://fails": ToolExecutionError("fails", "general", "ValueError: no"),
}


async def read(call: ToolCall, on_item: OnItem) -> ToolResult:
    assert isinstance(call, ResourceRead)
    if call.name in ERRORS:
        raise ERRORS[call.name]
    if on_item is not None:
        on_item(Progress(progress=1.0))
    return result(CONTENTS, "contents")


async def get(call: ToolCall, _on_item: OnItem) -> ToolResult:
    assert isinstance(call, PromptGet)
    if call.arguments == b'{"wrong":"x"}':
        raise InvalidArgumentsError("missing parameter `a`")
    return result(MESSAGES, "messages")


async def complete(call: ToolCall, _on_item: OnItem) -> ToolResult:
    assert isinstance(call, CompletionAsk)
    return result({"values": [f"{call.of} {call.name} {call.argument} {call.arguments.decode()}"]}, "completion")


def offering() -> ScriptedBackend:
    backend = ScriptedBackend({"resources/read": read, "prompts/get": get, "completion/complete": complete})
    icons = [Icon("https://example.com/i.png", sizes=["48x48"])]
    backend.replace(
        [descriptor("tool", icons=icons, meta=b'{"k":1}')],
        [
            resource("a://x", name="x", mime_type="text/plain", size=1, icons=icons, meta=b'{"k":1}', fresh_s=2.5,
                     annotations=Annotations(audience=["user"], last_modified="2025-01-01T00:00:00Z")),
            resource("a://{name}", completes=["name"], timeout_s=60.0),
            resource("b://y"),
            resource("c://bad", broken="why"),
        ],
        [
            prompt("p", icons=icons, completes=["a"],
                   arguments=[PromptArgument(name="a", description="A"), PromptArgument(name="b", required=False)]),
            prompt("q"),
            prompt("bad", broken="why"),
        ],
    )  # fmt: skip
    return backend


class Client:
    """One client at one revision."""

    def __init__(self, version: str, backend: ScriptedBackend | None = None, settings: Settings | None = None) -> None:
        self.version = version
        self.backend = backend or offering()
        self.endpoint = protocol(self.backend, settings)
        self.session: dict[str, str | None] | None = None

    async def send(self, method: str, params: dict[str, object] | None = None, **fields: object) -> Answer | Stream:
        if self.version == E:
            return await self.endpoint.handle(modern(method, params, **fields))
        if self.session is None:
            self.session = await open_session(self.endpoint, self.version)
        return await self.endpoint.handle(legacy(method, params, self.session))

    async def ask(self, method: str, **params: object) -> dict:
        answer = said(await self.send(method, params))
        assert "result" in answer, answer
        return answer["result"]

    async def error(self, method: str, **params: object) -> tuple[int, dict]:
        answer = await self.send(method, params)
        return answer.status, said(answer)["error"]


@pytest.fixture(params=ALL)
async def client(request: pytest.FixtureRequest) -> Client:
    one = Client(request.param)
    async with one.endpoint.running():
        yield one


# --- lists ---------------------------------------------------------------------------------------------------------


async def test_a_resource_is_listed_as_its_revision_knows_it(client: Client) -> None:
    listed, other = (await client.ask("resources/list"))["resources"]
    wanted = {"uri": "a://x", "name": "x", "description": "D", "mimeType": "text/plain", "size": 1}
    wanted["annotations"] = {"audience": ["user"]}
    if client.version >= C:
        wanted |= {"title": "T", "_meta": {"k": 1, "greenroom/category": "test", "greenroom/runtime": "general"}}
        wanted["annotations"] |= {"lastModified": "2025-01-01T00:00:00Z"}
    if client.version >= D:
        wanted["icons"] = [{"src": "https://example.com/i.png", "sizes": ["48x48"]}]
    assert listed == wanted
    assert other["uri"] == "b://y"
    (template,) = (await client.ask("resources/templates/list"))["resourceTemplates"]
    assert template["uriTemplate"] == "a://{name}"
    assert "uri" not in template


async def test_a_prompt_is_listed_as_its_revision_knows_it(client: Client) -> None:
    listed, other = (await client.ask("prompts/list"))["prompts"]
    assert listed["arguments"] == [
        {"name": "a", "description": "A", "required": True},
        {"name": "b", "required": False},
    ]
    assert ("title" in listed, "icons" in listed) == (client.version >= C, client.version >= D)
    assert "arguments" not in other


async def test_a_tool_shows_its_icons_from_2025_11_25_on(client: Client) -> None:
    (tool,) = (await client.ask("tools/list"))["tools"]
    assert ("icons" in tool) == (client.version >= D)
    if client.version >= C:
        assert tool["_meta"]["k"] == 1


@pytest.mark.parametrize("method", ["resources/list", "resources/templates/list", "prompts/list"])
async def test_lists_come_in_pages_with_hints_where_they_are_known(method: str) -> None:
    client = Client(E, settings=Settings(mcp=McpSettings(page_size=1)))
    seen, cursor = [], None
    while True:
        page = await client.ask(method, **({"cursor": cursor} if cursor else {}))
        (member,) = [name for name in page if isinstance(page[name], list)]
        seen += [one.get("uri") or one.get("uriTemplate") or one["name"] for one in page[member]]
        assert (page["ttlMs"], page["cacheScope"]) == (10_000, "private")
        cursor = page.get("nextCursor")
        if cursor is None:
            break
    assert seen == {
        "resources/list": ["a://x", "b://y"], "resources/templates/list": ["a://{name}"], "prompts/list": ["p", "q"],
    }[method]  # fmt: skip
    status, error = await client.error(method, cursor="x")
    assert (status, error["code"]) == (400, -32602)


async def test_a_new_catalogue_is_seen_at_once() -> None:
    client = Client(E)
    assert len((await client.ask("prompts/list"))["prompts"]) == 2
    client.backend.replace([], [], [prompt("new")])
    assert [one["name"] for one in (await client.ask("prompts/list"))["prompts"]] == ["new"]
    assert (await client.ask("resources/list"))["resources"] == []


# --- reading and getting -------------------------------------------------------------------------------------------


async def test_contents_are_what_the_revision_knows(client: Client) -> None:
    read = await client.ask("resources/read", uri="a://x")
    assert read["contents"] == (
        CONTENTS if client.version >= C else [{"uri": "a://x", "mimeType": "text/plain", "text": "t"}]
    )
    assert (read.get("ttlMs"), read.get("cacheScope")) == ((2500, "private") if client.version == E else (None, None))
    assert client.backend.calls[-1].name == "a://x"


async def test_messages_are_what_the_revision_knows(client: Client) -> None:
    got = await client.ask("prompts/get", name="p", arguments={"a": "1"})
    assert got["description"] == "D"
    text, sound, link = (message["content"] for message in got["messages"])
    assert sound["type"] == ("text" if client.version == A else "audio")
    assert link["type"] == ("resource_link" if client.version >= C else "text")
    assert ("_meta" in text, "lastModified" in text["annotations"]) == (client.version >= C, client.version >= C)
    assert client.backend.calls[-1].arguments == b'{"a":"1"}'


async def test_arguments_of_a_prompt_may_be_missing(client: Client) -> None:
    await client.ask("prompts/get", name="q")
    assert client.backend.calls[-1].arguments == b"{}"


@pytest.mark.parametrize("uri", ["nowhere://", "c://bad", "a://missing", "a:" + "x" * 5000])
async def test_a_resource_that_is_not_there(client: Client, uri: str) -> None:
    status, error = await client.error("resources/read", uri=uri)
    assert error["data"] == {"uri": uri}
    assert (status, error["code"]) == ((400, -32602) if client.version == E else (200, -32002))


@pytest.mark.parametrize(
    ("uri", "code", "ours", "message"),
    [
        ("a://wrong", -32602, None, "a: expected a whole number"),
        ("a://busy", -32603, ("BUSY", True), "full"),
        ("a://fails", -32603, ("TOOL_FAILED", False), "resource a://fails failed: ValueError: no"),
    ],
)
async def test_what_goes_wrong_is_a_protocol_error(
    client: Client, uri: str, code: int, ours: tuple[str, bool] | None, message: str
) -> None:
    _, error = await client.error("resources/read", uri=uri)
    assert (error["code"], error["message"], error["data"]["uri"]) == (code, message, uri)
    if ours is not None:
        assert (error["data"]["greenroom/code"], error["data"]["greenroom/retryable"]) == ours


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("resources/read", {}),
        ("prompts/get", {"name": "nope"}),
        ("prompts/get", {"name": "bad"}),
        ("prompts/get", {"name": "p", "arguments": {"wrong": "x"}}),
        ("prompts/get", {"name": "p", "arguments": [1]}),
        ("completion/complete", {}),
        (
            "completion/complete",
            {"ref": {"type": "ref/prompt", "name": "nope"}, "argument": {"name": "a", "value": ""}},
        ),
        ("completion/complete", {"ref": {"type": "ref/prompt", "name": "p"}, "argument": {"name": "z", "value": ""}}),
        (
            "completion/complete",
            {"ref": {"type": "ref/resource", "uri": "z://"}, "argument": {"name": "a", "value": ""}},
        ),
        ("completion/complete", {"ref": {"type": "ref/x"}, "argument": {"name": "a", "value": ""}}),
    ],
)
async def test_wrong_params_are_invalid(client: Client, method: str, params: dict[str, object]) -> None:
    _, error = await client.error(method, **params)
    # Without params.uri the header Mcp-Name can't fit, which is found first.
    assert error["code"] == (-32020 if method == "resources/read" and client.version == E else -32602)


async def test_a_read_reports_progress_on_its_own_stream(client: Client) -> None:
    if client.version == E:
        answer = await client.send("resources/read", {"uri": "a://x"}, meta={"progressToken": "t"})
    else:
        answer = await client.send("resources/read", {"uri": "a://x", "_meta": {"progressToken": "t"}})
    progress, last = await drain(answer)
    assert progress["params"]["progressToken"] == "t"
    assert last["result"]["contents"]


async def test_the_modern_routing_header_repeats_the_uri() -> None:
    answer = await Client(E).endpoint.handle(modern("resources/read", {"uri": "a://x"}, {"mcp-name": "a://y"}))
    assert (answer.status, said(answer)["error"]["code"]) == (400, -32020)


# --- completion ----------------------------------------------------------------------------------------------------


async def test_completion_asks_what_was_declared(client: Client) -> None:
    template = {"type": "ref/resource", "uri": "a://{name}"}
    known = {"context": {"arguments": {"b": "2"}}} if client.version >= C else {}
    found = await client.ask("completion/complete", ref=template, argument={"name": "name", "value": "x"}, **known)
    arguments = '{"value":"x","arguments":' + ('{"b":"2"}}' if known else "{}}")
    assert found["completion"] == {"values": [f"resources a://{{name}} name {arguments}"]}
    one = {"type": "ref/prompt", "name": "p"}
    found = await client.ask("completion/complete", ref=one, argument={"name": "a", "value": ""})
    assert found["completion"]["values"][0].startswith("prompts p a")


async def test_what_nothing_completes_has_no_values_and_costs_no_call(client: Client) -> None:
    one = {"type": "ref/prompt", "name": "p"}
    found = await client.ask("completion/complete", ref=one, argument={"name": "b", "value": "x"})
    assert found["completion"] == {"values": []}
    assert client.backend.calls == []


# --- what is told of the server ------------------------------------------------------------------------------------

TOLD = Settings(
    mcp=McpSettings(title="Shelf", instructions="Read first.", website_url="https://example.com", icons=["https://i"])
)


@pytest.mark.parametrize("version", [A, B, C, D])
async def test_a_handshake_tells_what_its_revision_knows(version: str) -> None:
    params = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    told = said(await protocol(offering(), TOLD).handle(legacy("initialize", params)))["result"]
    assert told["instructions"] == "Read first."
    info = {"name": "greenroom", "version": "1.2.3"}
    if version >= C:
        info["title"] = "Shelf"
    if version >= D:
        info |= {"websiteUrl": "https://example.com", "icons": [{"src": "https://i"}]}
    assert told["serverInfo"] == info
    assert ("completions" in told["capabilities"]) == (version >= B)


async def test_discover_tells_all_and_other_answers_the_name() -> None:
    client = Client(E, settings=TOLD)
    found = await client.ask("server/discover")
    assert found["instructions"] == "Read first."
    assert found["capabilities"]["resources"] == {"subscribe": True, "listChanged": True}
    assert {"prompts", "completions"} <= set(found["capabilities"])
    info = "io.modelcontextprotocol/serverInfo"
    assert found["_meta"][info]["icons"] == [{"src": "https://i"}]
    assert (await client.ask("tools/list"))["_meta"][info] == {
        "name": "greenroom",
        "version": "1.2.3",
        "title": "Shelf",
    }


async def test_a_slow_read_of_a_legacy_client_survives_its_disconnect() -> None:
    started, go, ended = trio.Event(), trio.Event(), []

    async def slow(_call: ToolCall, _on_item: OnItem) -> ToolResult:
        started.set()
        await go.wait()
        ended.append(True)
        return result([], "contents")

    backend = ScriptedBackend({"resources/read": slow})
    backend.replace([], [resource("a://x")])
    client = Client(D, backend)
    with trio.fail_after(1):
        async with client.endpoint.running(), trio.open_nursery() as nursery:
            nursery.start_soon(client.send, "resources/read", {"uri": "a://x"})
            await started.wait()
            nursery.cancel_scope.cancel()
            go.set()
    assert ended == [True]
