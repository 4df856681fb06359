# SPDX-License-Identifier: AGPL-3.0-or-later
"""The gateway actor: MCP and REST on the socket that the root opened."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, nullcontext
from importlib.metadata import version
from pathlib import Path

import msgspec
import trio

from actors.base import Actor, open_actor, wait_any
from actors.catalogue_view import CatalogueView, changed_lists
from actors.client import ToolClient
from actors.keys import SESSION_KEY, load_or_create_key
from actors.logs import flush_loop
from actors.memory import settle_memory
from actors.messages import Boot, DirectoryEntry, State
from actors.peer_client import PeerClient
from actors.peers import is_spare
from actors.tool_messages import Catalogue, Changed
from actors.workflow_client import WorkflowClient
from gateway.asked_metrics import ANSWER_S
from gateway.backend import TaskBackend, ToolBackend
from gateway.fast_lane import FastLane, serve
from gateway.legacy_sse import LegacySse
from gateway.mcp import Protocol
from gateway.metrics import MeteredBackend, Metrics
from gateway.peer_metrics import PeerMetrics
from gateway.siblings import Siblings
from gateway.subscriptions import FILE_NAME, SubscriptionFile
from gateway.task_metrics import TaskMetrics
from gateway.workflow_metrics import WorkflowMetrics

_CATALOGUE_TIMEOUT_S = 8.0
_IDLE_S = 1.0
"""A replaced gateway leaves idle connections open for so long, so that those in use are closed with an answer."""
_decode_event = msgspec.msgpack.Decoder(Catalogue | Changed).decode


def _carries_calls(name: str) -> bool:
    """Actors that a gateway keeps a connection to, so that no call pays for making one."""
    return name in {"router", "peer_registry", "task_queue"} or name.startswith("tools.")


def _tree_status(actor: Actor) -> tuple[bool, list[DirectoryEntry], int]:
    entries = list(actor.peers.entries.values())
    ready = all(entry.state in {State.READY, State.OFF} for entry in entries if not is_spare(entry.name))
    return ready, entries, actor.boot.root_pid


async def _settle_when_loaded(lane: FastLane) -> None:
    await lane.handover_ready.wait()
    settle_memory()


@asynccontextmanager
async def _running(kept: SubscriptionFile, protocol: Protocol, legacy_sse: LegacySse | None) -> AsyncIterator[None]:
    with closing(kept):
        async with protocol.running(), legacy_sse.running() if legacy_sse is not None else nullcontext():
            yield


async def main(boot: Boot) -> None:
    """The gateway's life: serve once the tools are known, drain when told to stop."""
    async with open_actor(boot) as actor:
        settings = actor.settings
        known = trio.Event()
        shown = CatalogueView(Catalogue(tools=[]))

        def on_catalogue(catalogue: CatalogueView) -> None:
            nonlocal shown
            known.set()
            for kind in changed_lists(shown, catalogue):
                protocol.list_changed(kind)
            shown = catalogue

        def on_event(entry: DirectoryEntry, body: msgspec.Raw) -> None:
            event = _decode_event(body)
            if isinstance(event, Changed):
                protocol.changed(event)
            else:
                client.catalogue_posted(entry, event)

        client = ToolClient(
            actor.peers,
            max_held_calls=settings.router.max_held_calls,
            max_calls_per_process=settings.channel.max_calls_at_once,
            carry=settings.router.carry,
            on_catalogue=on_catalogue,
        )
        plain = ToolBackend(client, boot.incarnation)
        metrics = Metrics()
        metrics.marks = lambda: actor.marks
        tasks = TaskBackend(actor.peers, actor.nursery)
        metrics.tasks = TaskMetrics(lambda: tasks.stats(timeout_s=ANSWER_S))
        workflows = WorkflowClient(actor.peers)
        metrics.workflows = WorkflowMetrics(lambda: workflows.stats(timeout_s=ANSWER_S))
        registry = PeerClient(actor.peers)
        metrics.peers = PeerMetrics(lambda: registry.me(timeout_s=ANSWER_S))
        backend = MeteredBackend(plain, metrics)
        siblings = Siblings(actor)
        kept = SubscriptionFile(Path(boot.data_dir) / FILE_NAME, settings.mcp.max_subscriptions_in_all)
        protocol = siblings.protocol = Protocol(
            settings,
            backend,
            server_name="greenroom",
            version=version("greenroom"),
            session_secret=load_or_create_key(Path(boot.data_dir), SESSION_KEY),
            new_call_id=plain.new_call_id,
            gateway=boot.incarnation,
            siblings=siblings,
            kept=kept,
            tasks=tasks,
        )
        actor.on_peer_event = on_event
        from_siblings = {"answer": siblings.receive, "resume": siblings.serve_resume, "note": siblings.take_note}
        await actor.serve(from_siblings, also_draining=True)
        actor.nursery.start_soon(flush_loop)
        actor.nursery.start_soon(client.keep_catalogue)
        actor.nursery.start_soon(client.keep_connections, _carries_calls)
        with trio.move_on_after(_CATALOGUE_TIMEOUT_S):
            await known.wait()

        def make_app():  # type: ignore[no-untyped-def]  # noqa: ANN202
            from gateway.app import create_app

            return create_app(
                protocol, backend, settings.server, metrics, lambda: _tree_status(actor), legacy_sse=legacy_sse
            )

        legacy_sse = LegacySse(protocol, settings.server) if settings.server.legacy_sse else None
        async with _running(kept, protocol, legacy_sse):

            async def serve_http(task_status: trio.TaskStatus[FastLane]) -> None:
                listener = None if boot.spare else boot.listen_fds[actor.name]
                await serve(listener, protocol, make_app, settings.server, metrics=metrics, task_status=task_status)

            lane = await actor.nursery.start(serve_http)
            if boot.spare:
                # All that a gateway loads while it already serves is there before it says ready.
                await lane.handover_ready.wait()
            actor.ready()
            if boot.spare:
                await wait_any(actor.promoted, actor.stopping)
                if actor.stopping.is_set():
                    return
                lane.open(boot.listen_fds[actor.name])
            actor.nursery.start_soon(_settle_when_loaded, lane)
            await actor.stopping.wait()
            await lane.drain(actor.grace_s, _IDLE_S if actor.replaced else 0.0)
