# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the official clients list, call, read and fill in, beside Greenroom's own tools."""

from __future__ import annotations

from typing import Literal

import trio

from actors.toolkit import NotFoundError, PromptMessage, ToolContext, prompt, resource, tool

COLOURS = {"sky": "blue", "grass": "green"}


@tool(open_world=False)
async def write_slowly(ctx: ToolContext, seconds: float) -> str:
    """Take effect after some seconds. It must not run twice, so nobody may repeat it.

    Args:
        seconds: How long it takes.
    """
    for step in range(1, 21):
        await trio.sleep(seconds / 20)
        ctx.progress(step, 20, "writing")
    return "written"


@resource("peers://colours", mime_type="text/plain")
def colours() -> str:
    """All things whose colour is known."""
    return "\n".join(COLOURS)


@resource("peers://colour/{thing}", mime_type="text/plain")
async def colour(thing: str) -> str:
    """The colour of a thing.

    Args:
        thing: A name from peers://colours.
    """
    if thing not in COLOURS:
        raise NotFoundError(f"there is no thing {thing!r}")
    return COLOURS[thing]


@prompt(title="Describe a thing")
def describe(thing: str, tone: Literal["short", "long"] = "short") -> list[PromptMessage]:
    """Have a thing described.

    Args:
        thing: What.
        tone: How.
    """
    return [PromptMessage.user(f"Describe the {thing}. Be {tone}.")]
