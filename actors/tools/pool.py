# SPDX-License-Identifier: AGPL-3.0-or-later
"""The pool actor: one process that runs the general tools of one pool."""

from __future__ import annotations

from actors.base import open_actor
from actors.messages import Boot
from actors.peers import base_name
from actors.settings import PoolSettings
from actors.tools.host import ToolHost
from actors.tools.loader import load


async def main(boot: Boot) -> None:
    """A pool process's life."""
    async with open_actor(boot) as actor:
        settings = actor.settings
        pool = base_name(actor.name).removeprefix("tools.")
        wanted = settings.tools.pools.get(pool, PoolSettings())
        loaded = load(settings.tools, pool, default_timeout_s=settings.runtimes.general.timeout)
        for tool in loaded.broken:
            actor.log.warning("broken tool", tool=tool.name, reason=tool.broken)
        offers = loaded.offers
        for one in [*offers.broken_resources, *offers.broken_prompts]:
            actor.log.warning("broken resource or prompt", name=one.name, reason=one.broken)
        host = ToolHost(actor, loaded.tools, loaded.broken, wanted.max_calls_at_once, offers)
        await actor.serve(host.methods())
        actor.nursery.start_soon(host.send_notices)
        actor.nursery.start_soon(host.replace_when_stuck)
        counts = {
            "tools": len(loaded.tools),
            "resources": len(offers.resources),
            "prompts": len(offers.prompts),
            "broken": len(loaded.broken) + len(offers.broken_resources) + len(offers.broken_prompts),
        }
        actor.ready(", ".join(f"{count} {what}" for what, count in counts.items() if count or what == "tools"))
        await actor.stopping.wait()
