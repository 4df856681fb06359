# SPDX-License-Identifier: AGPL-3.0-or-later
"""A tool of Greenroom's for `bench/gateway.py`: what the peers have under the same name."""

from __future__ import annotations

from actors.toolkit import ToolContext, tool


@tool(read_only=True)
async def stepwise(ctx: ToolContext, text: str) -> str:
    """Report progress three times and return the text unchanged."""
    for step in (1, 2, 3):
        ctx.progress(step, 3)
    return text
