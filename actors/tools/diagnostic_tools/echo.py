# SPDX-License-Identifier: AGPL-3.0-or-later
"""`echo`: the smallest tool, and the way to see that calls get through."""

from __future__ import annotations

from actors.toolkit import tool


@tool(read_only=True, idempotent=True, open_world=False)
async def echo(text: str) -> str:
    """Return the text unchanged.

    Args:
        text: Any text.
    """
    return text
