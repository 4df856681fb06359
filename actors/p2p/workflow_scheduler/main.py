# SPDX-License-Identifier: AGPL-3.0-or-later
"""The workflow scheduler actor: a client of the queue on one side, and asked for workflows on the other.

It is killed at any time without harm: nothing is told or done before it is on disk, all that it asks of the queue can
be asked again, and the next life goes on where the events end.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec
import trio

from actors.base import open_actor
from actors.client import ToolClient
from actors.logs import flush_loop
from actors.messages import Boot, DirectoryEntry, State
from actors.p2p.clock import SteadyClock
from actors.p2p.identity import NodeSigner, load_or_create_key
from actors.p2p.workflow_scheduler.as_task import Call, WorkflowTasks
from actors.p2p.workflow_scheduler.as_task import Rules as FollowingRules
from actors.p2p.workflow_scheduler.building import Builder
from actors.p2p.workflow_scheduler.definition import DefinitionLimits
from actors.p2p.workflow_scheduler.engine import Engine
from actors.p2p.workflow_scheduler.methods import WorkflowMethods
from actors.p2p.workflow_scheduler.run_values import Rules
from actors.p2p.workflow_scheduler.service import WorkflowService
from actors.p2p.workflow_scheduler.store import WorkflowStore
from actors.p2p.workflow_scheduler.submitting import Limits
from actors.p2p.workflow_scheduler.tool_table import ToolTable
from actors.p2p.workflow_scheduler.tools import load_workflow_tools
from actors.settings import Settings
from actors.task_client import TASK_QUEUE, TaskClient
from actors.tool_messages import Catalogue, Changed, ToolCall, ToolResult
from actors.tools.execution import Environment
from actors.tools.host import ToolHost
from actors.tools.loader import Loaded

_CACHED_CHARS: Final = 4_000_000
"""Of outputs, for each workflow in memory."""
_MOST_WAIT_S: Final = 50.0
"""One question for tasks; a worker that is silent for too long is offline."""
_GIVE_BACK_S: Final = 1.0
_decode_event = msgspec.msgpack.Decoder(Catalogue | Changed).decode


def rules_of(settings: Settings) -> Rules:
    """What each run goes by."""
    ours, queue = settings.p2p.workflow_scheduler, settings.p2p.task_queue
    return Rules(
        timeout_s=ours.workflow_timeout,
        max_queued=min(ours.max_queued_steps, queue.max_queue_size),
        max_items=ours.max_items,
        max_payload_bytes=queue.max_payload_bytes,
        cached_chars=_CACHED_CHARS,
    )


def limits_of(settings: Settings) -> tuple[DefinitionLimits, Limits]:
    """What is taken, and told."""
    ours = settings.p2p.workflow_scheduler
    return (
        DefinitionLimits(max_steps=ours.max_steps, max_bytes=ours.max_definition_bytes, max_items=ours.max_items),
        Limits(
            max_open=ours.max_waiting_workflows,
            max_definition_bytes=ours.max_definition_bytes,
            max_answer_bytes=settings.channel.max_frame_bytes // 2,
        ),
    )


def following_of(settings: Settings) -> FollowingRules:
    """What workflows that are tasks go by."""
    queue = settings.p2p.task_queue
    return FollowingRules(
        lease_s=queue.lease_s,
        wait_s=min(_MOST_WAIT_S, queue.worker_timeout_s / 2),
        max_result_bytes=queue.max_result_bytes,
    )


async def main(boot: Boot) -> None:
    """The workflow scheduler's life."""
    os.umask(0o077)  # the files may lie outside of the data directory
    async with open_actor(boot) as actor:
        settings, data_dir = actor.settings, Path(boot.data_dir)
        ours = settings.p2p.workflow_scheduler
        clock = SteadyClock()
        table = ToolTable()
        tools = ToolClient(
            actor.peers,
            max_held_calls=settings.router.max_held_calls,
            max_calls_per_process=settings.channel.max_calls_at_once,
            on_catalogue=table.take,
        )

        def on_event(entry: DirectoryEntry, body: msgspec.Raw) -> None:
            event = _decode_event(body)
            if isinstance(event, Catalogue):
                tools.catalogue_posted(entry, event)

        actor.on_peer_event = on_event
        path = Path(ours.store_path) if ours.store_path else data_dir / "workflows.sqlite"
        signer = NodeSigner(await trio.to_thread.run_sync(load_or_create_key, data_dir))
        async with _opened(WorkflowStore(path, now=clock)) as store, trio.open_nursery() as nursery:
            definition_limits, limits = limits_of(settings)
            rules = rules_of(settings)
            builder = Builder(store, table, signer, rules, definition_limits)
            queue = TaskClient(actor.peers, actor.nursery)
            engine = Engine(
                store,
                queue,
                builder.stored,
                builder.unwritten,
                most_running=ours.max_concurrent_workflows,
                keep_s=ours.keep_s,
                tasks_keep_s=rules.keep_s,
                memo_s=ours.memo_s,
                now=clock,
            )

            def leaving() -> bool:
                return actor.draining.is_set()  # another event after an order to resume

            service = WorkflowService(store, engine, builder, limits, leaving=leaving)
            loaded = load_workflow_tools(settings, service, queue)
            following = WorkflowTasks(
                queue, service, _caller(loaded, settings, data_dir), following_of(settings), leaving=leaving
            )

            def on_draining() -> None:
                service.leave()
                following.leave()

            actor.on_draining = on_draining
            going_on = len(await trio.to_thread.run_sync(store.open_ones))
            nursery.start_soon(flush_loop)
            nursery.start_soon(tools.keep_catalogue)
            nursery.start_soon(tools.keep_connections, _is_used)
            nursery.start_soon(service.run)
            host = ToolHost(actor, loaded.tools, loaded.broken, settings.channel.max_calls_at_once, loaded.offers)
            await actor.serve(WorkflowMethods(service).all() | host.methods())
            nursery.start_soon(host.send_notices)
            if loaded.tools:
                nursery.start_soon(following.run)
            actor.ready(f"{going_on} workflows go on" if going_on else "no workflow runs")
            await actor.stopping.wait()
            if any(entry.state is State.READY for entry in actor.peers.processes(TASK_QUEUE)):
                with trio.move_on_after(min(_GIVE_BACK_S, actor.grace_s / 4)):
                    await following.give_back()
            await actor.finish_calls()
            nursery.cancel_scope.cancel()


def _caller(loaded: Loaded, settings: Settings, data_dir: Path) -> Call:
    environment = Environment(settings.tools, data_dir)

    async def call(one: ToolCall) -> ToolResult:
        return await loaded.tools[one.name].run(one, environment)

    return call


@asynccontextmanager
async def _opened(store: WorkflowStore) -> AsyncGenerator[WorkflowStore, None]:
    try:
        await trio.to_thread.run_sync(store.open)
        yield store
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(store.close)


def _is_used(name: str) -> bool:
    return name in {"router", TASK_QUEUE}
