# SPDX-License-Identifier: AGPL-3.0-or-later
"""The peer registry actor: this node's libp2p host, what is known of peers, and what is done with them."""

from __future__ import annotations

import itertools
import time
from functools import partial
from pathlib import Path

import msgspec
import trio

from actors.base import Actor, open_actor
from actors.client import ToolClient
from actors.logs import flush_loop
from actors.messages import Boot, DirectoryEntry
from actors.p2p.identity import NodeSigner, load_or_create_key
from actors.p2p.peer_registry.admission import Admission
from actors.p2p.peer_registry.configured import contact_rules, host_rules, new_book, store_path
from actors.p2p.peer_registry.discovery.ways import Ways
from actors.p2p.peer_registry.kept_port import open_host_again
from actors.p2p.peer_registry.linked import Linked
from actors.p2p.peer_registry.methods import PeerMethods
from actors.p2p.peer_registry.node import Node
from actors.p2p.peer_registry.node_face import NodeFace
from actors.p2p.peer_registry.peer_keeper import open_keeper
from actors.p2p.peer_registry.peer_store import PeerStore
from actors.p2p.peer_registry.served import Served, remote_tools
from actors.p2p.peer_registry.service import PeerService
from actors.p2p.peer_registry.shared_secret import load_secret, load_text
from actors.p2p.peer_registry.tools import load_peer_tools
from actors.task_client import TASK_QUEUE
from actors.tool_messages import Catalogue, Changed
from actors.tools.host import ToolHost
from actors.workflow_client import WORKFLOW_SCHEDULER

_decode_event = msgspec.msgpack.Decoder(Catalogue | Changed).decode


async def main(boot: Boot) -> None:
    """The peer registry's life."""
    async with open_actor(boot) as actor:
        settings, data_dir = actor.settings, Path(boot.data_dir)
        ours, connectivity = settings.p2p.peer_registry, settings.p2p.connectivity
        key = await trio.to_thread.run_sync(load_or_create_key, data_dir)
        secret = await trio.to_thread.run_sync(load_secret, Path(ours.secret_file)) if ours.secret_file else None
        old = ours.queue_protocol
        queue_secret = await trio.to_thread.run_sync(load_text, Path(old.secret_file)) if old.secret_file else ""
        book = new_book(ours, time.time)
        admission = Admission(ours, book.bans, time.time)
        client = _tool_client(actor)
        numbers = itertools.count(1)
        async with (
            open_keeper(book, PeerStore(store_path(ours, data_dir))) as keeper,
            open_host_again(host_rules(connectivity), key, data_dir) as host,
            trio.open_nursery() as nursery,
        ):
            node = Node(host, book, admission, ours.bootstrap_nodes, contact_rules(connectivity))

            def new_call_id() -> str:
                return f"{boot.incarnation}-p{next(numbers)}"

            linked = Linked(actor, host, node, client, new_call_id, NodeSigner(key), secret)
            node.on_peer = linked.links.peer_changed
            ways = Ways(ours, connectivity, host, node)
            service = PeerService(
                host,
                linked.links,
                node.contacts,
                book,
                ours.bootstrap_nodes,
                now=time.time,
                stored=keeper.flush,
                ways=ways.on,
            )
            ways.candidates.on_new = service.news
            served = Served(actor, host, node, client, new_call_id)
            served.serve(secret, queue_secret)
            remote = remote_tools(actor, host, linked, secret)
            loaded = load_peer_tools(settings, service, remote)
            most = settings.channel.max_calls_at_once
            tools = ToolHost(actor, loaded.tools, loaded.broken, most, loaded.offers)
            nursery.start_soon(flush_loop)
            nursery.start_soon(keeper.run)
            nursery.start_soon(client.keep_catalogue)
            nursery.start_soon(client.keep_connections, _is_used)
            nursery.start_soon(node.run)
            nursery.start_soon(linked.run)
            nursery.start_soon(ways.run)
            if ours.wanted_connections:
                nursery.start_soon(partial(service.grow, ours.wanted_connections, every_s=ours.peer_discovery_interval))
                linked.links.wants_peers = lambda: service.missing(ours.wanted_connections) > 0
                linked.links.on_introduced = service.introduced
            actor.on_draining = linked.leave
            actor.own_work = lambda: linked.runner.running + linked.sender.assigned
            face = NodeFace(node, linked, served)
            await actor.serve(PeerMethods(service, remote, face.shown).all() | tools.methods())
            nursery.start_soon(tools.send_notices)
            actor.ready(f"listens on {', '.join(host.addresses)}" if host.addresses else "listens nowhere")
            await actor.stopping.wait()
            with trio.move_on_after(actor.grace_s / 2):
                await linked.give_back()
            await actor.finish_calls()
            nursery.cancel_scope.cancel()


def _tool_client(actor: Actor) -> ToolClient:
    settings = actor.settings
    client = ToolClient(
        actor.peers,
        max_held_calls=settings.router.max_held_calls,
        max_calls_per_process=settings.channel.max_calls_at_once,
        carry=settings.router.carry,
    )

    def on_event(entry: DirectoryEntry, body: msgspec.Raw) -> None:
        event = _decode_event(body)
        if isinstance(event, Catalogue):
            client.catalogue_posted(entry, event)

    actor.on_peer_event = on_event
    return client


def _is_used(name: str) -> bool:
    return name in {"router", TASK_QUEUE, WORKFLOW_SCHEDULER} or name.startswith("tools.")
