# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tools whose calls may be tasks."""

from __future__ import annotations

import msgspec
import trio

from actors.toolkit import ToolContext, tool


class Who(msgspec.Struct):
    """The form."""

    name: str


@tool(read_only=True, open_world=False, task="optional")
async def count_slowly(seconds: float) -> str:
    """Take a while.

    Args:
        seconds: How long.
    """
    await trio.sleep(seconds)
    return "counted"


@tool(read_only=True, open_world=False, task="required")
async def ask_in_a_task(ctx: ToolContext) -> str:
    """Ask the user for a name, and greet."""
    answer = await ctx.elicit("What is your name?", Who)
    return f"no name: {answer.action}" if answer.content is None else f"Hello, {answer.content.name}!"


@tool(read_only=True, open_world=False, task="optional")
def fail_in_a_task() -> str:
    """Fail."""
    raise RuntimeError("the ink is dry")
