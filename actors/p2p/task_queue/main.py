# SPDX-License-Identifier: AGPL-3.0-or-later
"""The task queue actor: opens the store, answers, and puts everything away at its end.

It is killed at any time without harm: nothing is answered before it is on disk, and the next life reads what is there.
"""

from __future__ import annotations

import os
from pathlib import Path

import trio

from actors.base import open_actor
from actors.messages import Boot
from actors.p2p.clock import SteadyClock
from actors.p2p.task_queue.embedded import open_embedded
from actors.p2p.task_queue.service import TaskQueue
from actors.p2p.task_queue.store import Recovery
from actors.p2p.task_queue.tools import load_task_tools
from actors.tools.host import ToolHost

_MOST_WAITING = 20_000
"""Operations that wait to be stored: some seconds' worth."""


async def main(boot: Boot) -> None:
    """The task queue's life."""
    os.umask(0o077)  # the files may lie outside of the data directory
    async with open_actor(boot) as actor:
        settings = actor.settings.p2p.task_queue
        clock = SteadyClock()
        async with (
            open_embedded(settings, Path(boot.data_dir), clock) as (store, recovery),
            trio.open_nursery() as nursery,
        ):

            def leaving() -> bool:
                return actor.draining.is_set()  # another event after an order to resume

            queue = TaskQueue(store, most_waiting=_MOST_WAITING, leaving=leaving, now=clock)
            actor.on_draining = queue.leave
            nursery.start_soon(queue.run)
            loaded = load_task_tools(actor.settings, queue)
            most = actor.settings.channel.max_calls_at_once
            host = ToolHost(actor, loaded.tools, loaded.broken, most, loaded.offers)
            await actor.serve(queue.methods() | host.methods())
            nursery.start_soon(host.send_notices)
            actor.ready(_told(recovery))
            await actor.stopping.wait()
            await actor.finish_calls()
            nursery.cancel_scope.cancel()


def _told(recovery: Recovery) -> str:
    """The note at its name in `greenroom status`."""
    note = f"{recovery.tasks} tasks recovered in {recovery.took_s:.2f} s" if recovery.tasks else "no task waits"
    return "; ".join([note, *recovery.repairs])
