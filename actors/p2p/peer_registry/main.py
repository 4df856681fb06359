# SPDX-License-Identifier: AGPL-3.0-or-later
"""The peer registry actor: this node's libp2p host, what is known of peers, and what is done with them."""

from __future__ import annotations

import itertools
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path

import msgspec
import trio

from actors.base import Actor, open_actor
from actors.client import ToolClient
from actors.logs import flush_loop
from actors.messages import Boot, DirectoryEntry
from actors.p2p.identity import NodeSigner, load_or_create_key
from actors.p2p.peer_registry.admission import Admission, Caller
from actors.p2p.peer_registry.call_tokens import Checker
from actors.p2p.peer_registry.configured import contact_rules, host_rules, new_book, store_path
from actors.p2p.peer_registry.host import Host, open_host
from actors.p2p.peer_registry.linked import Linked
from actors.p2p.peer_registry.mcp.answering import Answering, ServerFace
from actors.p2p.peer_registry.mcp.server import McpServer, use_limits
from actors.p2p.peer_registry.methods import PeerMethods
from actors.p2p.peer_registry.node import Node
from actors.p2p.peer_registry.peer_keeper import open_keeper
from actors.p2p.peer_registry.peer_store import PeerStore
from actors.p2p.peer_registry.service import PeerService
from actors.p2p.peer_registry.shared_secret import SharedSecret, load_secret
from actors.p2p.peer_registry.stream_use import StreamUse
from actors.p2p.peer_registry.tools import load_peer_tools
from actors.p2p.peer_registry.tools_for_peers import ToolsForPeers
from actors.peer_messages import NodeShown
from actors.task_client import TASK_QUEUE
from actors.tool_messages import Catalogue, Changed
from actors.tools.host import ToolHost
from actors.workflow_client import WORKFLOW_SCHEDULER

MCP_PROTOCOL = "/mcp+p2p/1.0.0"
_decode_event = msgspec.msgpack.Decoder(Catalogue | Changed).decode


async def main(boot: Boot) -> None:
    """The peer registry's life."""
    async with open_actor(boot) as actor:
        settings, data_dir = actor.settings, Path(boot.data_dir)
        ours, connectivity = settings.p2p.peer_registry, settings.p2p.connectivity
        key = await trio.to_thread.run_sync(load_or_create_key, data_dir)
        secret = await trio.to_thread.run_sync(load_secret, Path(ours.secret_file)) if ours.secret_file else None
        book = new_book(ours, time.time)
        admission = Admission(ours, book.bans, time.time)
        client = _tool_client(actor)
        numbers = itertools.count(1)
        async with (
            open_keeper(book, PeerStore(store_path(ours, data_dir))) as keeper,
            open_host(host_rules(connectivity), key) as host,
            trio.open_nursery() as nursery,
        ):
            node = Node(host, book, admission, ours.bootstrap_nodes, contact_rules(connectivity))

            def new_call_id() -> str:
                return f"{boot.incarnation}-p{next(numbers)}"

            linked = Linked(actor, host, node, client, new_call_id, NodeSigner(key), secret)
            node.on_peer = linked.links.peer_changed
            service = PeerService(
                host, linked.links, node.contacts, book, ours.bootstrap_nodes, now=time.time, stored=keeper.flush
            )
            if ours.mcp.enabled:
                for_peers = ToolsForPeers(
                    client,
                    admission,
                    # Where there is a secret, no call gets so far without a token.
                    lambda peer_id: Caller(peer_id, node.address_of(peer_id), secret is not None),
                    new_call_id,
                )
                host.serve(MCP_PROTOCOL, _mcp_server(actor, host, node, for_peers, secret).serve)
            loaded = load_peer_tools(settings, service)
            most = settings.channel.max_calls_at_once
            tools = ToolHost(actor, loaded.tools, loaded.broken, most, loaded.offers)
            nursery.start_soon(flush_loop)
            nursery.start_soon(keeper.run)
            nursery.start_soon(client.keep_catalogue)
            nursery.start_soon(client.keep_connections, _is_used)
            nursery.start_soon(node.run)
            nursery.start_soon(linked.run)
            if ours.wanted_connections:
                nursery.start_soon(partial(service.grow, ours.wanted_connections, every_s=ours.peer_discovery_interval))
            actor.on_draining = linked.leave
            actor.own_work = lambda: linked.runner.running + linked.sender.assigned

            def me() -> NodeShown:
                return NodeShown(
                    peer_id=host.peer_id,
                    addresses=host.addresses,
                    known=len(book),
                    connected=len({view.peer_id for view in host.connections()}),
                    linked=len(linked.links),
                    bans=len(book.bans.holding()),
                    turned_away=book.turned_away,
                    refused=dict(admission.refused),
                    sent=linked.sender.assigned,
                    running=linked.runner.running,
                )

            await actor.serve(PeerMethods(service, me).all() | tools.methods())
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


def _mcp_server(actor: Actor, host: Host, node: Node, tools: ToolsForPeers, secret: SharedSecret | None) -> McpServer:
    settings = actor.settings.p2p.peer_registry.mcp
    check = None
    if secret is not None:
        checker = Checker(secret, host.peer_id, time.time())

        def check(token: str, peer_id: str) -> None:
            checker.check(token, peer_id, time.time())

    face = ServerFace(peer_id=host.peer_id, name="greenroom", version=version("greenroom"))
    answering = Answering(tools, face, settings, check_token=check)
    return McpServer(answering, StreamUse(use_limits(settings)), violation=node.violated)
