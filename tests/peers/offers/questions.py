# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tools that ask the client's user and the client's model."""

from __future__ import annotations

import msgspec

from actors.toolkit import ToolContext, tool


class Who(msgspec.Struct):
    """The form."""

    name: str


@tool(read_only=True, open_world=False)
async def ask_name(ctx: ToolContext) -> str:
    """Ask the user for a name, and greet."""
    answer = await ctx.elicit("What is your name?", Who)
    return f"no name: {answer.action}" if answer.content is None else f"Hello, {answer.content.name}!"


@tool(read_only=True, open_world=False)
async def ask_model(ctx: ToolContext) -> str:
    """Have the client's model say something."""
    return f"It said: {(await ctx.sample('Say something', max_tokens=50)).text}"
