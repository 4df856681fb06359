# SPDX-License-Identifier: AGPL-3.0-or-later
"""What `./dev fuzz` calls: everything that a tool, a resource and a prompt may do, and all of it ends soon."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import trio

from actors.toolkit import AudioContent, ImageContent, ResourceLink, TextContent, ToolContext, prompt, resource, tool

HIDDEN = "the-place-of-the-fault"
"""In the stack of the tool that fails, and nowhere else: no answer may hold it."""


class Deep(msgspec.Struct):
    """An object inside the arguments."""

    flag: Annotated[bool, msgspec.Meta(extra_json_schema={"x-mcp-header": "Flag"})] = False


@tool(read_only=True)
async def fuzz_pace(ctx: ToolContext, steps: Annotated[int, msgspec.Meta(ge=0, le=20)]) -> int:
    """Report progress, log, and change a resource."""
    for step in range(steps):
        ctx.progress(step + 1, steps, "a step")
        ctx.log("info", {"step": step})
        await trio.sleep(0.001)
    ctx.resource_changed("fuzz://plain")
    return steps


@tool(task="optional")
async def fuzz_job() -> str:
    """Be a task, where that is wanted."""
    return "done"


@tool()
def fuzz_fails() -> str:
    """Fail in a thread."""
    the_place_of_the_fault = HIDDEN
    raise RuntimeError(f"it failed, as it should ({len(the_place_of_the_fault)})")


@tool(read_only=True)
async def fuzz_blocks(kind: Literal["all", "none"]) -> list[TextContent | ImageContent | AudioContent | ResourceLink]:
    """Content of several kinds."""
    if kind == "none":
        return []
    return [
        TextContent(text="text"),
        ImageContent(data=b"\x89PNG", mime_type="image/png"),
        AudioContent(data=b"RIFF", mime_type="audio/wav"),
        ResourceLink(uri="fuzz://plain", name="plain"),
    ]


@tool(read_only=True)
async def fuzz_routed(
    region: Annotated[str, msgspec.Meta(extra_json_schema={"x-mcp-header": "Region"})],
    count: Annotated[int, msgspec.Meta(extra_json_schema={"x-mcp-header": "Count"})],
    deep: Deep,
) -> str:
    """Arguments that headers repeat."""
    return f"{region} {count} {deep.flag}"


@resource("fuzz://plain")
async def plain() -> str:
    """Always the same."""
    return "plain"


@resource("fuzz://fails")
async def fails() -> str:
    """Can't be read."""
    raise RuntimeError("it failed, as it should")


def numbers(value: str) -> list[str]:
    return [str(n) for n in range(200) if str(n).startswith(value)]


@resource("fuzz://item/{number}", complete={"number": numbers})
async def item(number: int) -> str:
    """One of many.

    Args:
        number: Which.
    """
    return f"item {number}"


def tones(value: str) -> list[str]:
    return [tone for tone in ("short", "long", "sad") if tone.startswith(value)]


@prompt(complete={"tone": tones})
async def fuzz_prompt(tone: str = "short") -> str:
    """A prompt.

    Args:
        tone: How it sounds.
    """
    return f"Be {tone}."
