# SPDX-License-Identifier: AGPL-3.0-or-later
"""`sleep`: a call of a chosen length, to see progress, cancellation and time-outs."""

from __future__ import annotations

from typing import Annotated

import msgspec
import trio
from msgspec import Meta

from actors.toolkit import ToolContext, tool

MAX_SECONDS = 3600


class Slept(msgspec.Struct, frozen=True):
    """What `sleep` answers."""

    seconds: float
    """Measured, not asked for."""
    steps: int


@tool(read_only=True, idempotent=True, open_world=False, timeout=MAX_SECONDS + 60.0)
async def sleep(
    ctx: ToolContext,
    seconds: Annotated[float, Meta(ge=0, le=MAX_SECONDS)],
    steps: Annotated[int, Meta(ge=1, le=1000)] = 10,
) -> Slept:
    """Wait for some seconds, report progress on the way, and answer how long it took.

    Args:
        seconds: How long, at most an hour.
        steps: How many progress reports.
    """
    started = trio.current_time()
    for step in range(1, steps + 1):
        await trio.sleep_until(started + seconds * step / steps)
        ctx.progress(step, steps)
    return Slept(seconds=trio.current_time() - started, steps=steps)
