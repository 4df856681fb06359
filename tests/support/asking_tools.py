# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tools, resources and prompts that ask, run for real but in this process, behind a protocol: what is between gateway
and pool is left out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import trio
from tool_calls import loaded

from actors.calls import Message
from actors.catalogue_view import CatalogueView
from actors.settings import ToolsSettings
from actors.tool_messages import Catalogue, PromptGet, ResourceRead, ToolCall
from actors.toolkit import PromptMessage, ToolContext, UrlRequiredError, choices, prompt, resource, tool
from actors.tools.execution import Environment, LoadedTool
from actors.tools.loader import load_functions
from gateway.backend import _asked


class Name(msgspec.Struct):
    name: str


class Order(msgspec.Struct):
    size: Annotated[str, choices({"s": "Small", "l": "Large"})]
    count: Annotated[int, msgspec.Meta(ge=1, le=9)] = 2
    wrapped: bool = True
    colour: Literal["red", "green"] = "red"


class Toppings(msgspec.Struct):
    toppings: list[Literal["nuts", "cream"]]


@tool()
async def ask_name(ctx: ToolContext, greeting: str = "Hello") -> str:
    """Ask for a name."""
    answer = await ctx.elicit("What is your name?", Name, key="user_name")
    return f"{greeting}, {answer.content.name}!" if answer.content else answer.action


@tool()
def ask_in_a_thread(ctx: ToolContext) -> str:
    """Ask from a plain tool."""
    first = ctx.elicit("Your name?", Name).wait()
    second = ctx.sample("Write a poem", 50).wait()
    return f"{first.content.name if first.content else first.action}: {second.text}"


@tool()
async def ask_order(ctx: ToolContext) -> Order | None:
    """Ask for all kinds of things."""
    return (await ctx.elicit("What may it be?", Order)).content


@tool()
async def ask_toppings(ctx: ToolContext) -> str:
    """Ask for several choices."""
    answer = await ctx.elicit("And on top?", Toppings)
    return " ".join(answer.content.toppings) if answer.content else answer.action


@tool()
async def ask_everything(ctx: ToolContext) -> str:
    """Ask three things at once."""
    name, poem, roots = await ctx.ask_all(
        ctx.elicit("Name?", Name, key="user_name"), ctx.sample("Poem?", 50, key="poem"), ctx.roots(key="roots")
    )
    return f"{name.action} {poem.text} {[root.uri for root in roots]}"


@tool()
async def ask_in_parallel(ctx: ToolContext) -> str:
    """Three tasks that ask, without keys."""
    heard: dict[str, str] = {}

    async def one(what: str) -> None:
        answer = await ctx.elicit(f"{what}?", Name)
        heard[what] = answer.content.name if answer.content else answer.action

    async with trio.open_nursery() as nursery:
        for what in "abc":
            nursery.start_soon(one, what)
    return " ".join(f"{what}={heard[what]}" for what in "abc")


@tool()
async def ask_twice(ctx: ToolContext) -> str:
    """Two questions, one after the other."""
    name = (await ctx.elicit("Step 1", Name)).content
    colour = (await ctx.elicit("Step 2", Name)).content
    return f"{name and name.name} {colour and colour.name}"


@tool()
async def ask_for_ever(ctx: ToolContext) -> str:
    """Never satisfied."""
    while True:
        await ctx.elicit("Again?", Name)


@tool()
async def ask_what_can_be(ctx: ToolContext) -> str:
    """Ask only what the client can answer."""
    if ctx.can("elicitation"):
        return (await ctx.elicit("Name?", Name)).action
    return (await ctx.sample("Hi", 10)).text


@tool(requires=("sampling",))
async def needs_sampling(ctx: ToolContext) -> str:
    """Needs a client that samples."""
    return (await ctx.sample("Hi", 10)).text


@tool()
async def visit(ctx: ToolContext) -> str:
    """Send the user to an address."""
    answer = await ctx.elicit_url("Please sign in", "https://example.com/sign-in", elicitation_id="visit-1")
    await ctx.elicitation_complete("visit-1")
    return answer.action


@tool()
async def visit_first(ctx: ToolContext) -> str:
    """Can't work before a visit."""
    raise UrlRequiredError("Sign in first", url="https://example.com/in", elicitation_id="visit-2")


@tool()
async def long_work(ctx: ToolContext) -> str:
    """Close the client's connection and go on."""
    await ctx.close_stream()
    await trio.sleep(0.2)
    return "done"


@tool()
async def reports(ctx: ToolContext) -> str:
    """Log, then ask."""
    ctx.log("info", "asking")
    return (await ctx.elicit("Go on?", Name)).action


@resource("greeting://me")
async def my_greeting(ctx: ToolContext) -> str:
    """A greeting for whoever reads it."""
    answer = await ctx.elicit("What is your name?", Name, key="user_name")
    return f"Hello, {answer.content.name}!" if answer.content else answer.action


@resource("greeting://in/{language}")
def greeting(ctx: ToolContext, language: str) -> str:
    """A greeting; from a thread."""
    answer = ctx.elicit("What is your name?", Name, key="user_name").wait()
    return f"{language}: {answer.content.name}" if answer.content else answer.action


@prompt(name="ask_name")
async def greet(ctx: ToolContext, greeting: str = "Hello") -> PromptMessage:
    """Greet, under a tool's name."""
    answer = await ctx.elicit("What is your name?", Name, key="user_name")
    return PromptMessage.user(f"{greeting}, {answer.content.name}!" if answer.content else answer.action)


@prompt(requires=("sampling",))
async def poem(ctx: ToolContext) -> str:
    """Needs a client that samples."""
    return (await ctx.sample("Hi", 10)).text


TOOLS = loaded(
    ask_name, ask_in_a_thread, ask_order, ask_toppings, ask_everything, ask_in_parallel, ask_twice, ask_for_ever,
    ask_what_can_be, needs_sampling, visit, visit_first, long_work, reports,
)  # fmt: skip


OFFERS = load_functions(
    (my_greeting, greeting, greet, poem), runtime="general", actor="general", category="tests", default_timeout_s=60
).offers


class PoolBackend:
    """Runs `TOOLS`, or others, and `OFFERS` in the caller's task."""

    def __init__(self, data_dir: Path, tools: dict[str, LoadedTool] | None = None) -> None:
        self.tools = TOOLS if tools is None else tools
        offered = Catalogue(
            tools=[tool.descriptor for tool in self.tools.values()],
            resources=OFFERS.resource_descriptors(),
            prompts=OFFERS.prompt_descriptors(),
            version=1,
        )
        self.catalogue = CatalogueView(offered)
        self.environment = Environment(ToolsSettings(), data_dir)

    async def call(self, call, *, timeout_s, on_item=None, respondent=None):
        ask = None
        if respondent is not None and call.can:
            answer = _asked(respondent)

            async def ask(method: str, value: Message) -> msgspec.Raw:
                body = msgspec.Raw(msgspec.msgpack.encode(value))
                return msgspec.Raw(msgspec.msgpack.encode(await answer(method, body)))

        if isinstance(call, ResourceRead):
            runnable, call = OFFERS.reading(call)
        else:
            runnable = OFFERS.prompt(call) if isinstance(call, PromptGet) else self.tools[call.name]
        return await runnable.run(call, self.environment, on_item, ask)

    async def run_in_task(self, lease, owner):
        """The run of a tool by a worker that has this lease; `owner` answers its questions."""

        async def ask(method: str, value: Message) -> msgspec.Raw:
            answer = await owner.on_ask(method, msgspec.Raw(msgspec.msgpack.encode(value)))
            return msgspec.Raw(msgspec.msgpack.encode(answer))

        call = ToolCall(
            name=lease.type, arguments=lease.payload.encode(), call_id=lease.id, principal=lease.owner, can=owner.can
        )
        return await self.tools[lease.type].run(call, self.environment, None, ask)
