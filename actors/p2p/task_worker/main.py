# SPDX-License-Identifier: AGPL-3.0-or-later
"""The task worker actor: a client of the queue on one side, and of the tools on the other."""

from __future__ import annotations

import itertools
from pathlib import Path

import msgspec
import trio

from actors.base import Actor, open_actor
from actors.client import ToolClient
from actors.errors import MCPServerError, code_of
from actors.logs import flush_loop, get_logger
from actors.messages import Boot, DirectoryEntry
from actors.p2p.asking_queue import persist
from actors.p2p.task_worker.left import settle_left, write_left
from actors.p2p.task_worker.run import Rules
from actors.p2p.task_worker.worker import TaskWorker
from actors.settings import Settings
from actors.task_client import TASK_QUEUE, TaskClient
from actors.task_messages import RegisterWorker, WorkerInfo
from actors.tool_messages import Catalogue, Changed

NAME = "task_worker"
"""By which the queue knows it, in all its lives."""
_MOST_WAIT_S = 50.0
_LOOK_S = 1.0
"""Between two looks for the end of draining, which the directory tells."""
_FINISH_SHARE = 0.6
"""Of the time that there is for the end: tasks may still end by themselves."""
_GIVE_BACK_SHARE = 0.25
"""Of the same: those that did not are given back."""
_decode_event = msgspec.msgpack.Decoder(Catalogue | Changed).decode


def rules_of(settings: Settings) -> Rules:
    """What the worker goes by."""
    p2p = settings.p2p
    return Rules(
        worker=NAME,
        concurrency=p2p.task_worker.concurrency,
        max_waiting=p2p.task_worker.max_waiting,
        lease_s=p2p.task_queue.lease_s,
        # A worker that is silent for too long is offline.
        wait_s=min(_MOST_WAIT_S, p2p.task_queue.worker_timeout_s / 2),
        ask_timeout_s=settings.questions.task_timeout_s,
        max_result_bytes=p2p.task_queue.max_result_bytes,
    )


async def main(boot: Boot) -> None:
    """The task worker's life."""
    async with open_actor(boot) as actor:
        settings = actor.settings
        rules = rules_of(settings)
        queue = TaskClient(actor.peers, actor.nursery)
        tools = ToolClient(
            actor.peers,
            max_held_calls=settings.router.max_held_calls,
            max_calls_per_process=settings.channel.max_calls_at_once,
            carry=settings.router.carry,
            on_catalogue=lambda catalogue: worker.catalogue_changed(catalogue),  # noqa: PLW0108
        )
        numbers = itertools.count(1)
        worker = TaskWorker(queue, tools, actor.peers, rules, new_call_id=lambda: f"{boot.incarnation}-{next(numbers)}")

        def on_event(entry: DirectoryEntry, body: msgspec.Raw) -> None:
            event = _decode_event(body)
            if isinstance(event, Catalogue):
                tools.catalogue_posted(entry, event)

        actor.on_peer_event = on_event
        actor.own_work = lambda: worker.running
        actor.on_draining = lambda: worker.pause(paused=True)
        actor.nursery.start_soon(flush_loop)
        actor.nursery.start_soon(tools.keep_catalogue)
        actor.nursery.start_soon(tools.keep_connections, _is_used)
        await actor.serve({})
        actor.ready()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_work, queue, worker, rules, Path(boot.data_dir))
            nursery.start_soon(_resume, actor, worker)
            await actor.stopping.wait()
            untold = await worker.leave(_FINISH_SHARE * actor.grace_s, _GIVE_BACK_SHARE * actor.grace_s)
            await trio.to_thread.run_sync(write_left, Path(boot.data_dir), untold)
            nursery.cancel_scope.cancel()


def _is_used(name: str) -> bool:
    return name in {"router", TASK_QUEUE} or name.startswith("tools.")


async def _work(queue: TaskClient, worker: TaskWorker, rules: Rules, data_dir: Path) -> None:
    """Take over from the lives before this one, then do tasks."""
    register = RegisterWorker(
        worker=rules.worker, owner=rules.worker, max_tasks=rules.concurrency + rules.max_waiting, internal=True
    )
    try:
        await persist(lambda: queue.do(register, WorkerInfo))
        await settle_left(queue, data_dir, rules.worker)
    except MCPServerError as error:
        get_logger().error("the queue did not take this worker over", code=code_of(error), reason=error.message)
    await worker.run()


async def _resume(actor: Actor, worker: TaskWorker) -> None:
    """Take tasks again when the operator says so."""
    while True:
        await actor.draining.wait()
        while actor.draining.is_set():
            with trio.move_on_after(_LOOK_S):
                await actor.peers.changed()
        worker.pause(paused=False)
