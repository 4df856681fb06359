# SPDX-License-Identifier: AGPL-3.0-or-later
"""A tool that takes long: its calls are tasks for clients that know them. Serve it: greenroom up --tools examples

It first asks how detailed the report is to be; only then the task begins. When a process dies meanwhile the report is
made once more: it is `read_only`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import trio
from msgspec import Meta

from actors.toolkit import ToolContext, tool


class Depth(msgspec.Struct):
    """The form that the user sees."""

    depth: Literal["short", "full"] = "short"


@tool(read_only=True, open_world=False, task="optional", begins_task=True, timeout=600)
async def long_report(ctx: ToolContext, topic: str, minutes: Annotated[float, Meta(ge=0, le=5)] = 1.0) -> str:
    """Write a report, slowly.

    Args:
        topic: What it is about.
        minutes: How long that takes.
    """
    depth = "short"
    if ctx.can("elicitation"):
        wish = (await ctx.elicit(f"How detailed shall the report on {topic} be?", Depth, key="depth")).content
        depth = wish.depth if wish is not None else depth
    await ctx.begin_task()
    for percent in range(0, 100, 10):
        ctx.progress(percent, 100, f"chapter {percent // 10 + 1} of 10")
        await trio.sleep(minutes * 6)
    return f"A {depth} report on {topic}: nothing was found."
