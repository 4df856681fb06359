# SPDX-License-Identifier: AGPL-3.0-or-later
"""The peer registry actor. It knows this node's own identity; its tools are those in `tools.py`."""

from __future__ import annotations

from actors.base import open_actor
from actors.messages import Boot
from actors.p2p.peer_registry import tools
from actors.tools.host import ToolHost
from actors.tools.loader import load_functions


async def main(boot: Boot) -> None:
    """The peer registry's life."""
    async with open_actor(boot) as actor:
        loaded = load_functions(
            [tools.peer_id],
            runtime="p2p",
            actor="peer_registry",
            category="peer_management_tools",
            default_timeout_s=actor.settings.runtimes.p2p.timeout,
        )
        most = actor.settings.channel.max_calls_at_once
        host = ToolHost(actor, loaded.tools, loaded.broken, most, loaded.offers)
        await actor.serve(host.methods())
        actor.nursery.start_soon(host.send_notices)
        actor.ready()
        await actor.stopping.wait()
