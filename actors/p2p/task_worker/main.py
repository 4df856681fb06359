# SPDX-License-Identifier: AGPL-3.0-or-later
"""The task worker actor: a client of the queue on one side, and of the tools on the other."""

from __future__ import annotations

import itertools
from pathlib import Path

import msgspec
import trio

from actors.base import Actor, open_actor
from actors.client import CatalogueView, ToolClient
from actors.errors import MCPServerError
from actors.logs import flush_loop
from actors.messages import Boot, Catalogue, Changed, DirectoryEntry
from actors.p2p.task_worker.left import settle_left, write_left
from actors.p2p.task_worker.run import Rules
from actors.p2p.task_worker.worker import TaskWorker
from actors.settings import Settings
from actors.task_client import TaskClient
from actors.task_messages import RegisterWorker, WorkerInfo

NAME = "task_worker"
"""By which the queue knows it, in all its lives."""
_LOOK_S = 1.0
_REGISTER_AGAIN_S = 1.0
_GIVE_BACK_SHARE = 0.4
"""Of the time that there is for the end."""
_decode_event = msgspec.msgpack.Decoder(Catalogue | Changed).decode


def rules_of(settings: Settings) -> Rules:
    """What the worker goes by."""
    p2p = settings.p2p
    return Rules(
        worker=NAME,
        concurrency=p2p.task_worker.concurrency,
        max_waiting=p2p.task_worker.max_waiting,
        lease_s=p2p.task_queue.lease_s,
        ask_timeout_s=settings.questions.task_timeout_s,
        max_result_bytes=p2p.task_queue.max_result_bytes,
    )


async def main(boot: Boot) -> None:
    """The task worker's life."""
    async with open_actor(boot) as actor:
        rules = rules_of(actor.settings)
        queue = TaskClient(actor.peers, actor.nursery)
        tools = _tools(actor, lambda catalogue: worker.catalogue_changed(catalogue))
        numbers = itertools.count(1)
        worker = TaskWorker(
            queue, tools, actor.peers, rules, new_call_id=lambda: f"{boot.incarnation}-{next(numbers)}"
        )
        actor.own_calls = lambda: worker.running
        actor.on_draining = lambda: worker.pause(paused=True)
        actor.nursery.start_soon(flush_loop)
        actor.nursery.start_soon(tools.keep_catalogue)
        actor.nursery.start_soon(tools.keep_connections, _is_used)
        await actor.serve({})
        actor.ready()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_work, actor, queue, worker, rules)
            nursery.start_soon(_resume, actor, worker)
            await actor.stopping.wait()
            give_back_s = _GIVE_BACK_SHARE * actor.grace_s
            untold = await worker.leave(actor.grace_s - 2 * give_back_s, give_back_s)
            await trio.to_thread.run_sync(write_left, Path(boot.data_dir), untold)
            nursery.cancel_scope.cancel()


def _is_used(name: str) -> bool:
    return name in {"router", "task_queue"} or name.startswith("tools.")


def _tools(actor: Actor, on_catalogue) -> ToolClient:  # type: ignore[no-untyped-def]  # noqa: ANN001
    settings = actor.settings
    tools = ToolClient(
        actor.peers,
        max_held_calls=settings.router.max_held_calls,
        max_calls_per_process=settings.channel.max_calls_at_once,
        carry=settings.router.carry,
        on_catalogue=on_catalogue,
    )
    return tools
