# SPDX-License-Identifier: AGPL-3.0-or-later
"""The router actor: it asks every process for its tools, keeps the registry, and carries the calls that need counting.

Methods: `catalogue` -> `Catalogue`; `tools/call`, `resources/read`, `prompts/get` and `completion/complete` (`ToolCall`
and below) -> `ToolResult`, with the callee's items. Whoever is connected gets the new `Catalogue` as an event when the
registry changes. It owns no durable truth: a new router asks again.
"""

from __future__ import annotations

import msgspec
import trio

from actors.base import Actor, open_actor
from actors.calls import IncomingCall
from actors.catalogue_view import actor_of
from actors.client import ROUTER, ToolClient
from actors.errors import BusyError, MCPServerError
from actors.messages import Boot, DirectoryEntry, State
from actors.peers import base_name, is_spare
from actors.router.registry import Registry
from actors.tool_messages import (
    Catalogue,
    CompletionAsk,
    Offered,
    PromptGet,
    ResourceRead,
    ToolCall,
    ToolDescriptor,
    ToolResult,
)

_P2P_ACTORS = {"task_queue", "workflow_scheduler", "peer_registry"}
_FETCH_TIMEOUT_S = 10.0
_COMPLETE_TIMEOUT_S = 5.0
_decode_call = msgspec.msgpack.Decoder(ToolCall).decode
_decode_other = {kind.METHOD: msgspec.msgpack.Decoder(kind).decode for kind in (ResourceRead, PromptGet, CompletionAsk)}
_decode_catalogue = msgspec.msgpack.Decoder(Catalogue).decode


def offers_tools(name: str) -> bool:
    """Whether an actor of this name has a catalogue: pools and P2P actors do, but for those that stand by."""
    base = base_name(name)
    return not is_spare(name) and (
        base.startswith("tools.") or base in {"task_queue", "workflow_scheduler", "peer_registry"}
    )


class Router:
    """The actor's state: the registry, a client for the pools, and one limiter for each limited tool."""

    def __init__(self, actor: Actor) -> None:
        settings = actor.settings
        self.actor = actor
        self.registry = Registry(dict(settings.tools.max_concurrent))
        self.client = ToolClient(
            actor.peers,
            max_held_calls=settings.router.max_held_calls,
            max_calls_per_process=settings.channel.max_calls_at_once,
        )
        self._max_waiting = settings.router.max_held_calls
        self._limiters: dict[str, trio.CapacityLimiter] = {}
        self._asked: dict[str, int] = {}
        self._answered: dict[str, int] = {}

    async def catalogue(self, _: IncomingCall) -> Catalogue:
        """Method `catalogue`."""
        return self.registry.catalogue

    async def call(self, call: IncomingCall) -> ToolResult:
        """Method `tools/call`: admit, then pass on as any other caller would."""
        request = _decode_call(call.body)
        tool = self.client.find(request.name)
        limiter = self._limiter(tool)
        if limiter is None:
            return await self._pass_on(tool, request, call)
        if limiter.statistics().tasks_waiting >= self._max_waiting:
            raise BusyError(f"{tool.max_concurrent} calls of {tool.name} run and the queue is full; try again")
        async with limiter:
            return await self._pass_on(tool, request, call)

    async def pass_on_other(self, call: IncomingCall) -> ToolResult:
        """The methods beside `tools/call`: nothing of them is counted."""
        request = _decode_other[call.method](call.body)
        return await self._pass_on(self.client.find_other(request), request, call)

    async def _pass_on(self, tool: Offered, request: ToolCall, call: IncomingCall) -> ToolResult:
        return await self.client.call_actor(
            actor_of(tool),
            request,
            retry_safe=tool.retry_safe,
            timeout_s=call.timeout_s,
            on_item=call.item,
            on_ask=call.ask,
        )

    def _limiter(self, tool: ToolDescriptor) -> trio.CapacityLimiter | None:
        if tool.max_concurrent is None:
            return None
        limiter = self._limiters.setdefault(tool.name, trio.CapacityLimiter(tool.max_concurrent))
        limiter.total_tokens = tool.max_concurrent
        return limiter

    async def keep_registry(self) -> None:
        """Ask each new incarnation for its tools, in parallel, and publish what changed."""
        async with trio.open_nursery() as nursery:
            while True:
                for entry in list(self.actor.peers.entries.values()):
                    if entry.state == State.READY and offers_tools(entry.name) and self._is_news(entry):
                        self._asked[entry.name] = entry.incarnation
                        nursery.start_soon(self._fetch, entry)
                await self.actor.peers.changed()

    def _is_news(self, entry: DirectoryEntry) -> bool:
        return self._asked.get(entry.name) != entry.incarnation

    async def _fetch(self, entry: DirectoryEntry) -> None:
        try:
            channel = await self.actor.peers.connect(entry)
            offer = _decode_catalogue(await channel.call("catalogue", None, timeout_s=_FETCH_TIMEOUT_S))
        except MCPServerError as error:
            self.actor.log.warning("no catalogue", peer=entry.name, reason=str(error))
            self._asked.pop(entry.name, None)
            return
        self._answered[entry.name] = entry.incarnation
        self.actor.peers.wake()
        if self.registry.offer(base_name(entry.name), offer.tools, offer.resources, offer.prompts):
            self.client.take_catalogue(self.registry.catalogue)
            self.actor.post_to_all(self.registry.catalogue)
            self.actor.log.debug("catalogue changed", tools=len(self.registry.catalogue.tools))

    async def complete(self) -> None:
        """Wait until every process that is or will be there has told its tools, so that no tool is unknown for being
        slow; but not longer than `_COMPLETE_TIMEOUT_S`."""
        with trio.move_on_after(_COMPLETE_TIMEOUT_S):
            while any(
                entry.state in {State.STARTING, State.RESTARTING, State.READY}
                and offers_tools(entry.name)
                and self._answered.get(entry.name) != entry.incarnation
                for entry in self.actor.peers.entries.values()
            ):
                await self.actor.peers.changed()


async def main(boot: Boot) -> None:
    """The router's life."""
    async with open_actor(boot) as actor:
        router = Router(actor)
        others = dict.fromkeys(_decode_other, router.pass_on_other)
        await actor.serve({"catalogue": router.catalogue, ToolCall.METHOD: router.call, **others})
        actor.nursery.start_soon(router.keep_registry)
        actor.nursery.start_soon(router.client.keep_connections, offers_tools)
        await router.complete()
        actor.ready()
        await actor.stopping.wait()


__all__ = ["ROUTER", "Router", "main"]
