# SPDX-License-Identifier: AGPL-3.0-or-later
"""Many processes, at once and after one another: all come up, all end, and nothing of them is left in the root."""

from __future__ import annotations

import gc
import random
import signal
import threading

import pytest
import trio
from spawning import actor_memory, children, gone, open_files, spawner, state, tractor_settled

pytestmark = [pytest.mark.process, pytest.mark.usefixtures("way")]

FOR_EVER = "say('up')\nawait trio.sleep_forever()"
CYCLES = 200
AT_ONCE = 8


async def test_nothing_is_left_after_many_lives(monkeypatch):
    """200 lives, 8 at once, each killed at a random moment from before its first instruction to after it was up."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    ends = {"boot": 0, "up": 0}

    async def live_and_die(spawn, turns):
        for _ in range(turns):
            child = await spawn(FOR_EVER)
            if chance.random() < 0.1:
                await child.said("up")
                ends["up"] += 1
            else:
                await trio.sleep(chance.uniform(0, 0.15))
                ends["boot"] += 1
            child.kill()
            assert (await child.wait()).signal == signal.SIGKILL
            assert state(child.pid) == ""

    with trio.fail_after(120):
        async with spawner(monkeypatch) as spawn:
            await live_and_die(spawn, 2)
            await tractor_settled()
            before = traces()
            began = trio.current_time()
            async with trio.open_nursery() as nursery:
                for _ in range(AT_ONCE):
                    nursery.start_soon(live_and_die, spawn, CYCLES // AT_ONCE)
            print(f"{CYCLES} lives in {trio.current_time() - began:.1f} s, {ends}")
            await tractor_settled()
            # What a child had started in its boot is reaped a moment later.
            with trio.move_on_after(5):
                while traces() != before:
                    await trio.sleep(0.05)
            assert traces() == before


def traces() -> dict:
    """All that a life could leave behind in this process. Threads are trio's cache of workers, so only bounded."""
    return {
        "files": open_files(),
        "tasks": trio.lowlevel.current_statistics().tasks_living,
        "children": children(),
        "threads": threading.active_count() <= 1 + AT_ONCE + 4,
        "tractor": actor_memory(),
        "lives": sum(type(thing).__name__ == "TractorProcess" for thing in gc.get_objects()),
    }


async def test_many_at_once_all_come_up(monkeypatch):
    ups = []

    async def come_up(spawn):
        child = await spawn(FOR_EVER)
        await child.said("up")
        ups.append(child.pid)

    with trio.fail_after(60):
        async with spawner(monkeypatch) as spawn:
            async with trio.open_nursery() as nursery:
                for _ in range(16):
                    nursery.start_soon(come_up, spawn)
            assert len(set(ups)) == 16
    assert all(map(gone, ups))
