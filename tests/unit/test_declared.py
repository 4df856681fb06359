# SPDX-License-Identifier: AGPL-3.0-or-later
"""Resources, prompts and completions as a pool runs them: what may be declared, what comes out, what goes wrong."""

from __future__ import annotations

import enum
import json
from types import SimpleNamespace
from typing import Annotated, Literal

import msgspec
import pytest
import trio
from msgspec import Meta

from actors.errors import InvalidArgumentsError, NotFoundError, ToolExecutionError
from actors.messages import Marks
from actors.settings import Settings, ToolsSettings
from actors.tool_messages import CompletionAsk, LogItem, Progress, PromptArgument, PromptGet, ResourceRead
from actors.toolkit import (
    Annotations,
    Completion,
    EmbeddedResource,
    Icon,
    ImageContent,
    PromptMessage,
    ResourceContents,
    TextContent,
    ToolContext,
    prompt,
    resource,
    tool,
)
from actors.tools.host import ToolHost
from actors.tools.loader import load, load_functions


class Tone(enum.Enum):
    KIND = "kind"
    STRICT = "strict"


@resource(
    "shelf://all", icons=[Icon("https://example.com/i.png")], annotations=Annotations(priority=1.0), meta={"a": 1}
)
def text() -> str:
    """All books."""
    return "all"


@resource("shelf://cover", mime_type="image/png")
async def picture() -> bytes:
    """A cover."""
    return b"\x00\xff"


@resource("shelf://both")
def several() -> list[str | bytes | ResourceContents]:
    """Several contents."""
    return ["a", b"b", ResourceContents(uri="shelf://c", text="c", meta={"k": 1})]


def near(value: str, arguments: dict[str, str], ctx: ToolContext) -> Completion:
    return Completion([value, arguments.get("edition", "none"), ctx.principal], total=1000)


@resource("shelf://{number}/{edition}", complete={"number": near})
async def book(ctx: ToolContext, number: Annotated[int, Meta(ge=1)], edition: Literal["first", "second"]) -> str:
    """One book.

    Args:
        number: Its place.
    """
    ctx.progress(1, 2, "reading")
    ctx.log("info", "read")
    if number > 10:
        raise NotFoundError(f"there is no book {number}")
    return f"{number!r} {edition} {ctx.principal}"


@prompt(complete={"title": lambda value: [value + str(number) for number in range(150)]})
def review(title: str, tone: Tone = Tone.KIND, pages: int | None = None, aloud: bool = False) -> str:
    """Ask for a review.

    Args:
        title: Of the book.
    """
    return f"{title} {tone.value} {pages!r} {aloud!r}"


@prompt(name="talk")
async def talk() -> list[PromptMessage | ImageContent | str]:
    """A talk."""
    return ["hello", PromptMessage.assistant("hi"), ImageContent(b"x", "image/png")]


@prompt()
def liar() -> list[str]:
    """Promises text."""
    return [5]


@prompt()
def single() -> EmbeddedResource:
    """One block."""
    return EmbeddedResource(ResourceContents(uri="shelf://all", text="t"))


EVERYTHING = [text, picture, several, book, review, talk, liar, single]


class Pool:
    """A host without a process: calls as the channel hands them over."""

    def __init__(self, tmp_path) -> None:
        found = load_functions(EVERYTHING, runtime="general", actor="general", category="t", default_timeout_s=60)
        assert not found.broken
        assert not found.offers.broken_resources + found.offers.broken_prompts
        self.offers = found.offers
        actor = SimpleNamespace(
            name="tools.general#0", settings=Settings(), open_calls=1, marks=Marks(), on_marks=None, survived=None,
            boot=SimpleNamespace(data_dir=str(tmp_path), runtime_dir=str(tmp_path), incarnation=7),
            log=SimpleNamespace(error=lambda *_, **__: None, warning=lambda *_, **__: None),
        )  # fmt: skip
        self.methods = ToolHost(actor, found.tools, found.broken, 5, found.offers).methods()
        self.items = []

    async def ask(self, call):
        body = msgspec.msgpack.encode(call)
        incoming = SimpleNamespace(body=body, item=self.items.append, ask=None)
        with trio.fail_after(5):
            return json.loads((await self.methods[call.METHOD](incoming)).value)

    async def read(self, uri, **fields):
        return await self.ask(ResourceRead(name=uri, arguments=b"{}", call_id="1", **fields))

    async def get(self, name, **arguments):
        return await self.ask(PromptGet(name=name, arguments=msgspec.json.encode(arguments), call_id="1"))

    async def complete(self, of, name, argument, value, principal="", **arguments):
        known = msgspec.json.encode({"value": value, "arguments": arguments})
        call = CompletionAsk(of=of, name=name, argument=argument, arguments=known, call_id="1", principal=principal)
        return await self.ask(call)


@pytest.fixture
async def pool(tmp_path):
    return Pool(tmp_path)


# --- resources -----------------------------------------------------------------------------------------------------


async def test_text_and_bytes_become_contents(pool):
    assert await pool.read("shelf://all") == [{"uri": "shelf://all", "mimeType": "text/plain", "text": "all"}]
    assert await pool.read("shelf://cover") == [{"uri": "shelf://cover", "mimeType": "image/png", "blob": "AP8="}]
    assert await pool.read("shelf://both") == [
        {"uri": "shelf://both", "mimeType": "text/plain", "text": "a"},
        {"uri": "shelf://both", "mimeType": "application/octet-stream", "blob": "Yg=="},
        {"uri": "shelf://c", "text": "c", "_meta": {"k": 1}},
    ]


async def test_variables_are_typed_arguments_and_the_context_works(pool):
    (read,) = await pool.read("shelf://7/first", principal="ada", progress=True, log_level="info")
    assert (read["uri"], read["text"]) == ("shelf://7/first", "7 first ada")
    assert [type(item) for item in pool.items] == [Progress, LogItem]


@pytest.mark.parametrize(
    ("uri", "error", "said"),
    [
        ("shelf://x/first", InvalidArgumentsError, "`number`"),
        ("shelf://0/first", InvalidArgumentsError, "at least 1"),
        ("shelf://1/third", InvalidArgumentsError, "choose one of 'first', 'second'"),
        ("shelf://11/first", NotFoundError, "no book 11"),
        ("shelf://nothing", NotFoundError, "shelf://nothing"),
    ],
)
async def test_what_can_not_be_read_says_why(pool, uri, error, said):
    with pytest.raises(error, match=said):
        await pool.read(uri)


async def test_a_resource_is_described(pool):
    described = {one.uri: one for one in pool.offers.resource_descriptors()}
    listed = described["shelf://all"]
    assert (listed.name, listed.title, listed.description, listed.mime_type, listed.retry_safe, listed.meta) == (
        "text", "Text", "All books.", "text/plain", True, b'{"a":1}',
    )  # fmt: skip
    assert described["shelf://both"].mime_type is None
    template = described["shelf://{number}/{edition}"]
    assert (template.template, template.completes) == (True, ["edition", "number"])


# --- prompts -------------------------------------------------------------------------------------------------------


async def test_arguments_are_read_from_text(pool):
    (message,) = await pool.get("review", title="5", tone="strict", pages="12", aloud="true")
    assert message == {"role": "user", "content": {"type": "text", "text": "5 strict 12 True"}}
    assert (await pool.get("review", title="x"))[0]["content"]["text"] == "x kind None False"


async def test_messages_have_roles_and_blocks(pool):
    assert await pool.get("talk") == [
        {"role": "user", "content": {"type": "text", "text": "hello"}},
        {"role": "assistant", "content": {"type": "text", "text": "hi"}},
        {"role": "user", "content": {"type": "image", "data": "eA==", "mimeType": "image/png"}},
    ]
    assert (await pool.get("single"))[0]["content"]["resource"]["text"] == "t"
    assert PromptMessage.user("a") == PromptMessage("user", TextContent("a"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "missing parameter `title`"),
        ({"title": "a", "mood": "b"}, "unknown parameter"),
        ({"title": "a", "pages": "x"}, "`pages`"),
    ],
)
async def test_wrong_arguments_are_named(pool, arguments, said):
    with pytest.raises(InvalidArgumentsError, match=said):
        await pool.get("review", **arguments)


async def test_a_result_that_was_not_promised_is_a_failure(pool):
    with pytest.raises(ToolExecutionError, match="str, PromptMessage or content, not int"):
        await pool.get("liar")
    with pytest.raises(NotFoundError):
        await pool.get("none")


async def test_a_prompts_arguments_are_described(pool):
    described = {one.name: one for one in pool.offers.prompt_descriptors()}
    assert described["review"].arguments == [
        PromptArgument(name="title", description="Of the book.", required=True),
        PromptArgument(name="tone", required=False),
        PromptArgument(name="pages", required=False),
        PromptArgument(name="aloud", required=False),
    ]
    assert described["review"].completes == ["aloud", "title", "tone"]


# --- completion ----------------------------------------------------------------------------------------------------


async def test_choices_complete_themselves(pool):
    assert await pool.complete("prompts", "review", "tone", "ST") == {"values": ["strict"], "total": 1}
    assert (await pool.complete("prompts", "review", "aloud", ""))["values"] == ["true", "false"]
    uri = "shelf://{number}/{edition}"
    assert (await pool.complete("resources", uri, "edition", "s"))["values"] == ["second"]


async def test_a_hundred_values_are_sent_and_the_rest_is_counted(pool):
    found = await pool.complete("prompts", "review", "title", "x")
    assert (len(found["values"]), found["values"][99], found["total"], found["hasMore"]) == (100, "x99", 150, True)


async def test_a_completer_may_know_the_others_and_the_context(pool):
    uri = "shelf://{number}/{edition}"
    found = await pool.complete("resources", uri, "number", "1", principal="ada", edition="first")
    assert found == {"values": ["1", "first", "ada"], "total": 1000, "hasMore": True}
    with pytest.raises(InvalidArgumentsError):
        await pool.complete("prompts", "review", "pages", "1")


# --- what can't be used ----------------------------------------------------------------------------------------------


def broken(*functions):
    found = load_functions(functions, runtime="general", actor="general", category="t", default_timeout_s=60).offers
    assert not found.resources
    assert not found.prompts
    return [one.broken for one in [*found.broken_resources, *found.broken_prompts]]


def one(a: str) -> str:
    """One."""
    return a


def undocumented() -> str:
    return ""


def nothing():
    return []


def number() -> int:
    """A number."""
    return 1


def structured(a: list[str]) -> str:
    """Takes a list."""
    return a[0]


def yields() -> str:
    """Yields."""
    yield "a"


@pytest.mark.parametrize(
    ("mark", "function", "reason"),
    [
        (resource("no uri"), undocumented, "needs a scheme"),
        (resource("a://{a}{b}"), one, "something between them"),
        (resource("a://{b}"), one, "only one side has a, b"),
        (resource("a://x"), one, "only one side has a"),
        (resource("a://x"), undocumented, "needs a docstring"),
        (resource("a://x"), number, "must return str, bytes, ResourceContents"),
        (resource("a://x"), yields, "must return its result, not yield"),
        (resource("a://{a}"), structured, "a travels as text"),
        (resource("a://x", timeout=0, description="d"), undocumented, "timeout"),
        (resource("a://x", fresh_for=-1, description="d"), undocumented, "negative"),
        (resource("a://x", name="", description="d"), undocumented, "1 to 128"),
        (resource("a://x", meta={"a": object()}, description="d"), undocumented, "meta can't be written"),
        (resource("a://{a}", complete={"b": one}), one, "complete names b"),
        (resource("a://{a}", complete={"a": nothing}), one, "takes .value. or .value, arguments."),
        (resource("a://{a}", complete={"a": "x"}), one, "must be a function"),
        (prompt(name="a b"), one, "letters, digits"),
        (prompt(), number, "must return str, PromptMessage"),
        (prompt(), structured, "a travels as text"),
        (prompt(timeout=-1), one, "timeout"),
    ],
)
def test_what_can_not_be_used_says_why(mark, function, reason):
    import re
    import types

    copy = types.FunctionType(function.__code__, function.__globals__, function.__name__)
    copy.__annotations__, copy.__doc__ = function.__annotations__, function.__doc__
    (said,) = broken(mark(copy))
    assert re.search(reason, said), said


def test_a_description_may_stand_in_for_a_docstring():
    def bare() -> str:
        return ""

    marked = resource("a://x", description="Said here.")(bare)
    found = load_functions([marked], runtime="general", actor="general", category="t", default_timeout_s=60).offers
    assert found.resources["a://x"].descriptor.description == "Said here."


SAME = '''
from actors.toolkit import prompt, resource, tool


@tool()
@resource("a://x")
@prompt()
def same() -> str:
    """All three in one."""
    return "s"
'''


def test_of_two_of_one_name_the_later_is_broken(tmp_path):
    for name in ("first", "second"):
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / f"{name}.py").write_text(SAME)
    found = load(ToolsSettings(paths=[str(tmp_path / "mine")], enabled_categories=["mine"]), "general")
    assert "same" in found.tools
    assert [one.broken for one in [*found.offers.broken_resources, *found.offers.broken_prompts]] == [
        "mine/second.py: mine/first.py has a resource with the URI a://x already",
        "mine/second.py: mine/first.py has a prompt named same already",
    ]


def test_resources_run_in_the_pool_of_their_category(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "first.py").write_text(SAME)
    pools = {"other": {"categories": ["mine"]}}
    settings = msgspec.convert(
        {"paths": [str(tmp_path / "mine")], "enabled_categories": ["mine"], "pools": pools}, ToolsSettings
    )
    assert load(settings, "general").offers.resources == {}
    assert set(load(settings, "other").offers.resources) == {"a://x"}


def test_what_the_catalogue_has_no_room_for_is_left_out_and_named(tmp_path):
    (tmp_path / "mine").mkdir()
    text = SAME.replace("All three in one.", "x" * 700)
    (tmp_path / "mine" / "first.py").write_text(text)
    settings = ToolsSettings(paths=[str(tmp_path / "mine")], enabled_categories=["mine"], max_catalogue_bytes=2048)
    found = load(settings, "general")
    assert set(found.tools) == {"same"}
    assert set(found.offers.resources) | set(found.offers.prompts) < {"a://x", "same"}
    assert "tools.max_catalogue_bytes (2048)" in found.broken[-1].broken


@tool(icons=[Icon("https://example.com/i.png", sizes=["48x48"])], meta={"example.com/a": 1})
def routed(region: Annotated[str, Meta(extra_json_schema={"x-mcp-header": "Region"})]) -> str:
    """Is routed by a header."""
    return region


def headed(**parameters):
    """A tool whose parameters have these x-mcp-headers."""

    def build(one, two):
        return ""

    build.__annotations__ = {
        name: Annotated[kind, Meta(extra_json_schema={"x-mcp-header": header})]
        for name, (kind, header) in parameters.items()
    } | {"return": str}
    build.__doc__ = "Builds."
    return tool()(build)


@pytest.mark.parametrize(
    ("one", "two", "reason"),
    [
        ((str, "a b"), (str, "b"), "x-mcp-header of one must be a header's name"),
        ((float, "a"), (str, "b"), "one has an x-mcp-header, so it must be a string"),
        ((str, "Region"), (int, "region"), "two of its parameters have the x-mcp-header region"),
    ],
)
def test_a_header_that_clients_would_refuse_breaks_the_tool(one, two, reason):
    function = headed(one=one, two=two)
    found = load_functions([function], runtime="general", actor="general", category="t", default_timeout_s=60)
    assert reason in found.broken[0].broken


def test_a_tool_has_icons_meta_and_headers():
    found = load_functions([routed], runtime="general", actor="general", category="t", default_timeout_s=60)
    descriptor = found.tools["routed"].descriptor
    assert descriptor.icons == [Icon("https://example.com/i.png", sizes=["48x48"])]
    assert descriptor.meta == b'{"example.com/a":1}'
    assert json.loads(descriptor.input_schema)["properties"]["region"]["x-mcp-header"] == "Region"
