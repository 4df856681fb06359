# SPDX-License-Identifier: AGPL-3.0-or-later
"""What operators may do with a running tree: restart, drain, resume, scale, reload. For the admin socket and signals.

An order is checked here, given to the core, and answered once it was accepted; who wants to see it done looks at the
status.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable

import msgspec
import trio

from actors.calls import Message
from actors.errors import InvalidArgumentsError, MCPServerError
from actors.peers import base_name, is_spare
from actors.settings import Settings
from supervisor import events
from supervisor.admin import ActorRequest, AdminMethod, RestartRequest, Scaled, ScaleRequest
from supervisor.reload import Reloaded, plan_reload
from supervisor.runtime import Runtime
from supervisor.tree import Tree

MAX_POOL_SIZE = 256
"""Processes of one pool."""


class Operations:
    """Orders for one running tree."""

    def __init__(
        self,
        runtime: Runtime,
        settings: Settings,
        load: Callable[[], Settings],
        *,
        on_reload: Callable[[Settings, Tree], None],
    ) -> None:
        """`load` reads the configuration anew, from the same sources; it may block, and raise `ConfigError`.
        `on_reload` hears of each one that was taken over."""
        self._runtime = runtime
        self._settings = settings
        self._load = load
        self._on_reload = on_reload
        self._reloading = trio.Lock()

    def restart(self, name: str, *, drain: bool) -> None:
        """Give an actor a new process; with `drain` without a moment in which nobody does its work. Raises
        `MCPServerError`."""
        self._runtime.order(events.ReplaceChild(name) if drain else events.RestartChild(name))

    def drain(self, name: str) -> None:
        """Take an actor, or all processes of a pool, out of service. Raises `MCPServerError`."""
        for one in self._named(name):
            self._runtime.order(events.DrainChild(one))

    def resume(self, name: str) -> None:
        """Put it back into service. Raises `MCPServerError`."""
        for one in self._named(name):
            self._runtime.order(events.ResumeChild(one))

    def _named(self, name: str) -> list[str]:
        """The children that a name stands for: all of a base name, or the one."""
        names = [child.name for child in self._runtime.core.children() if not is_spare(child.name)]
        return [one for one in names if base_name(one) == name] or [name]

    def scale(self, request: ScaleRequest) -> Scaled:
        """Grow or shrink a pool. It lasts until the next reload or start. Raises `MCPServerError`."""
        base = f"tools.{request.pool.removeprefix('tools.')}"
        members = [
            child
            for child in self._runtime.core.children()
            if base_name(child.name) == base and not is_spare(child.name) and not child.leaving
        ]
        if not members:
            raise MCPServerError(f"there is no pool {request.pool!r}{self._nearest_pool(request.pool)}")
        if not 1 <= request.size <= MAX_POOL_SIZE:
            raise InvalidArgumentsError(f"a pool has 1 to {MAX_POOL_SIZE} processes, not {request.size}")
        present = {child.name for child in members}
        wanted = {f"{base}#{slot}" for slot in range(request.size)}
        added, removed = sorted(wanted - present), sorted(present - wanted)
        pattern = msgspec.structs.replace(members[0].spec, spares=0)
        for name in added:
            self._runtime.tell(events.AddChild(msgspec.structs.replace(pattern, id=name)))
        for name in reversed(removed):
            self._runtime.tell(events.RemoveChild(name))
        return Scaled(pool=base, before=len(present), after=len(wanted), added=added, removed=removed)

    def _nearest_pool(self, name: str) -> str:
        bases = {base_name(child.name) for child in self._runtime.core.children()}
        pools = sorted(base.removeprefix("tools.") for base in bases if base.startswith("tools."))
        near = difflib.get_close_matches(name, pools, n=1)
        return f"; did you mean {near[0]}?" if near else f"; there are: {', '.join(pools) or 'none'}"

    async def reload(self) -> Reloaded:
        """Read the configuration and the tool files anew. Raises `ConfigError`, and then nothing has changed."""
        async with self._reloading:
            wanted = await trio.to_thread.run_sync(self._load)
            running = {child.name for child in self._runtime.core.children() if not is_spare(child.name)}
            plan = plan_reload(self._settings, wanted, running)
            self._settings = plan.settings
            self._runtime.reconfigure(plan.settings, plan.order, plan.tree.off)
            self._on_reload(plan.settings, plan.tree)
            return plan.summary


def operation_methods(operations: Operations) -> dict[str, AdminMethod]:
    """The methods of the admin socket for these orders."""

    async def restart(body: msgspec.Raw) -> Message:
        order = msgspec.msgpack.decode(body, type=RestartRequest)
        operations.restart(order.name, drain=order.drain)
        return None

    async def drain(body: msgspec.Raw) -> Message:
        operations.drain(msgspec.msgpack.decode(body, type=ActorRequest).name)
        return None

    async def resume(body: msgspec.Raw) -> Message:
        operations.resume(msgspec.msgpack.decode(body, type=ActorRequest).name)
        return None

    async def scale(body: msgspec.Raw) -> Message:
        return operations.scale(msgspec.msgpack.decode(body, type=ScaleRequest))

    async def reload(_: msgspec.Raw) -> Message:
        return await operations.reload()

    return {"restart": restart, "drain": drain, "resume": resume, "scale": scale, "reload": reload}
