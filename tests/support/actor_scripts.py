# SPDX-License-Identifier: AGPL-3.0-or-later
"""Entries of child processes: an actor whose code stands in the test, and functions to be called through tractor."""

from __future__ import annotations

import ast
import inspect
import os
from pathlib import Path

import trio

from actors.messages import Boot
from supervisor import tractor_compat

tractor_compat.install()
import tractor  # noqa: E402

ENTRY = "actor_scripts:script"


async def script(boot: Boot) -> None:
    """Run the Python text that the test put in place of the settings; `await` may be used in it."""
    code = compile(boot.settings, f"<{boot.actor}>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    running = eval(code, {"boot": boot, "trio": trio, "os": os, "say": say})
    if inspect.iscoroutine(running):
        await running


def say(text: object) -> None:
    """One line in one piece: others may write at the same time."""
    os.write(1, f"{text}\n".encode())


class OddError(Exception):
    """An error that is known where it is raised only."""


async def double(number: int) -> int:
    return 2 * number


async def fail(kind: str) -> None:
    raise {"ValueError": ValueError, "OddError": OddError}[kind]("on purpose")


async def fail_in_a_task() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail, "ValueError")


async def environment() -> dict:
    return {"pid": os.getpid(), "trio": trio.__version__}


async def address() -> list:
    return list(tractor.current_actor().accept_addr)


@tractor.context
async def count(ctx: tractor.Context, start: int) -> str:
    """Send back each number of the stream, plus `start`; the result says how many there were."""
    await ctx.started(start)
    seen = 0
    async with ctx.open_stream() as stream:
        async for number in stream:
            seen += 1
            await stream.send(number + start)
    return f"{seen} numbers"


@tractor.context
async def wait_for_ever(ctx: tractor.Context, path: str) -> None:
    """Write how this ended into the file `path`."""
    await ctx.started()
    try:
        await trio.sleep_forever()
    except trio.Cancelled:
        Path(path).write_text("cancelled")
        raise
