# SPDX-License-Identifier: AGPL-3.0-or-later
"""The peer registry actor: this node's libp2p host, what is known of peers, and what is done with them."""

from __future__ import annotations

import time
from pathlib import Path

import trio

from actors.base import open_actor
from actors.logs import flush_loop
from actors.messages import Boot
from actors.p2p.identity import load_or_create_key
from actors.p2p.peer_registry.admission import Admission
from actors.p2p.peer_registry.configured import contact_rules, host_rules, new_book
from actors.p2p.peer_registry.host import open_host
from actors.p2p.peer_registry.methods import PeerMethods
from actors.p2p.peer_registry.node import Node
from actors.p2p.peer_registry.service import PeerService
from actors.p2p.peer_registry.tools import load_peer_tools
from actors.peer_messages import NodeShown
from actors.tools.host import ToolHost


class _NoLinks:
    async def close(self, _peer_id: str, _reason: str) -> None:
        pass

    def version(self, _peer_id: str) -> str | None:
        return None

    async def known_elsewhere(self, _most: int, _timeout_s: float) -> dict[str, list[str]]:
        return {}


async def main(boot: Boot) -> None:
    """The peer registry's life."""
    async with open_actor(boot) as actor:
        settings = actor.settings
        ours, connectivity = settings.p2p.peer_registry, settings.p2p.connectivity
        key = await trio.to_thread.run_sync(load_or_create_key, Path(boot.data_dir))
        book = new_book(ours, time.time)
        admission = Admission(ours, book.bans, time.time)
        async with open_host(host_rules(connectivity), key) as host, trio.open_nursery() as nursery:
            node = Node(host, book, admission, ours.bootstrap_nodes, contact_rules(connectivity))
            service = PeerService(host, _NoLinks(), node.contacts, book, ours.bootstrap_nodes, now=time.time)
            loaded = load_peer_tools(settings, service)
            most = settings.channel.max_calls_at_once
            tools = ToolHost(actor, loaded.tools, loaded.broken, most, loaded.offers)
            nursery.start_soon(flush_loop)
            nursery.start_soon(node.run)

            def me() -> NodeShown:
                return NodeShown(
                    peer_id=host.peer_id,
                    addresses=host.addresses,
                    known=len(book),
                    connected=len({view.peer_id for view in host.connections()}),
                    linked=0,
                    bans=len(book.bans.holding()),
                    turned_away=book.turned_away,
                    refused=dict(admission.refused),
                    sent=0,
                    running=0,
                )

            await actor.serve(PeerMethods(service, me).all() | tools.methods())
            nursery.start_soon(tools.send_notices)
            actor.ready(f"listens on {', '.join(host.addresses)}" if host.addresses else "listens nowhere")
            await actor.stopping.wait()
            await actor.finish_calls()
            nursery.cancel_scope.cancel()
