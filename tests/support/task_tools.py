# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tools for tests of tasks."""

from __future__ import annotations

import msgspec
from tool_calls import loaded

from actors.toolkit import ImageContent, TextContent, ToolContext, UrlRequiredError, tool


class Name(msgspec.Struct):
    name: str


class Sure(msgspec.Struct):
    sure: bool


class Sum(msgspec.Struct):
    sum: int


@tool(read_only=True)
def never(text: str) -> str:
    """Never a task."""
    return text


@tool(read_only=True, task="optional")
def text(text: str = "t") -> str:
    """Answer with text."""
    return text


@tool(task="optional")
def add(a: int, b: int) -> Sum:
    """Answer with structured content."""
    return Sum(sum=a + b)


@tool(task="optional")
def numbers() -> list[int]:
    """Answer with structured content that is no object."""
    return [1, 2]


@tool(task="optional")
def blocks() -> list[TextContent | ImageContent]:
    """Answer with content."""
    return [TextContent(text="t"), ImageContent(data=b"A", mime_type="image/png")]


@tool(task="optional")
def fails() -> str:
    """Fail."""
    raise RuntimeError("the disk is full")


@tool(task="required")
def must(text: str = "t") -> str:
    """Only a task."""
    return text


@tool(task="optional")
async def asks(ctx: ToolContext) -> str:
    """Ask for a name."""
    answer = await ctx.elicit("What is your name?", Name, key="user_name")
    return f"Hello, {answer.content.name}!" if answer.content else answer.action


@tool(task="optional")
async def asks_two(ctx: ToolContext) -> str:
    """Ask two things at once."""
    name, sure = await ctx.ask_all(ctx.elicit("Name?", Name, key="a"), ctx.elicit("Sure?", Sure, key="b"))
    return f"{name.content.name if name.content else name.action} {sure.content.sure if sure.content else sure.action}"


@tool(task="optional")
async def asks_after(ctx: ToolContext, before: str) -> str:
    """Ask one thing after the other; the first under a text that changes with its argument."""
    first = await ctx.elicit(before, Name, key="same")
    second = await ctx.elicit("And then?", Name, key="same")
    return f"{first.content.name} {second.content.name}"


@tool(task="optional")
async def asks_too_much(ctx: ToolContext) -> str:
    """Ask what the client can't be asked."""
    await ctx.elicit_url("Go there", "https://example.com/")
    return "gone"


@tool(task="optional", requires=("sampling",))
async def needs_sampling(ctx: ToolContext) -> str:
    """Needs a client that samples."""
    return (await ctx.sample("Hi", 10)).text


VISITS: list[str] = []


@tool(task="optional")
async def visit_first(ctx: ToolContext) -> str:
    """Can't work before a visit."""
    if not VISITS:
        raise UrlRequiredError("Sign in first", url="https://example.com/in")
    return "signed in"


@tool(task="required", begins_task=True)
async def begins(ctx: ToolContext, worth: bool = True) -> str:
    """Ask, then work, in a task if it is worth one."""
    answer = await ctx.elicit("What is your name?", Name, key="user_name")
    if worth:
        await ctx.begin_task()
    return f"Hello, {answer.content.name if answer.content else answer.action}!"


@tool(task="optional", begins_task=True)
def begins_in_a_thread(ctx: ToolContext) -> str:
    """As before, in a plain tool."""
    answer = ctx.elicit("What is your name?", Name, key="user_name").wait()
    ctx.begin_task().wait()
    return f"Hello, {answer.content.name if answer.content else answer.action}!"


TOOLS = loaded(
    never, text, add, numbers, blocks, fails, must, asks, asks_two, asks_after, asks_too_much, needs_sampling,
    visit_first, begins, begins_in_a_thread,
)  # fmt: skip
