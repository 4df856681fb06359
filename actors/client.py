# SPDX-License-Identifier: AGPL-3.0-or-later
"""The way to a tool: which process runs it, and what happens when that process dies. For the gateway, the router, the
CLI.

A `ToolClient` keeps a copy of the router's catalogue and sends a call straight to the least busy ready process of the
tool's pool; the pool enforces its own bound. Tools that have a limit for the whole system are carried by the router,
which alone can count them. While no process is ready, calls are held (bounded) up to their deadline. A call that had
not left yet is sent to the next process; one that was running is repeated once, elsewhere, if the tool is
`retry_safe`; any other ends as `OutcomeUnknownError`. When the router is dead, direct calls go on by the last
catalogue. A call whose process died while it waited for the client's answer to a question is repeated, too.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable

import msgspec
import trio

from actors.calls import Message, OnAsk, OnItem
from actors.catalogue_view import CatalogueView, actor_of
from actors.channel import Channel
from actors.errors import (
    ActorDiedError,
    BusyError,
    DeadlineExceededError,
    DrainingError,
    NotFoundError,
    OutcomeUnknownError,
    RuntimeUnavailableError,
    UnavailableError,
    UnknownToolError,
)
from actors.messages import DirectoryEntry, State
from actors.p2p_names import P2P_TOOLS, SWITCHES
from actors.peers import Peers, base_name
from actors.tool_messages import (
    ASK,
    Catalogue,
    CompletionAsk,
    Offered,
    PromptGet,
    ToolCall,
    ToolDescriptor,
    ToolResult,
)

ROUTER = "router"
_REPEATS_WHILE_ASKING = 3
"""Processes that may die on one call while it waits for the client's answers."""
_CATALOGUE_TIMEOUT_S = 5.0
_DRAINING_SHOWS_WITHIN_S = 0.05
_decode_result = msgspec.msgpack.Decoder(ToolResult).decode
_decode_catalogue = msgspec.msgpack.Decoder(Catalogue).decode
COMING = (State.STARTING, State.RESTARTING, State.READY, State.DRAINING)
"""States of a process that is there or will be: calls for it are held."""


class Asking:
    """The questions of one call over all its runs: `on_ask` of each of them.

    A process that dies while a question is open has done nothing yet (nothing may take effect before the last
    question), so that the call may be run again whatever it does.
    """

    def __init__(self, on_ask: OnAsk) -> None:
        self._on_ask = on_ask
        self._open = 0
        self._since = 0.0
        self._waited = 0.0
        self._repeats = 0

    async def __call__(self, method: str, body: msgspec.Raw) -> Message:
        """Answer one question. It stays open when this is cancelled: then the call has ended."""
        if method != ASK:
            return await self._on_ask(method, body)
        if not self._open:
            self._since = trio.current_time()
        self._open += 1
        try:
            return await self._on_ask(method, body)
        except trio.Cancelled:
            self._open += 1
            raise
        finally:
            self._open -= 1
            if not self._open:
                self._waited += trio.current_time() - self._since

    def may_repeat(self) -> bool:
        """The process died: whether a question was open, and the call was not repeated too often."""
        self._repeats += 1
        return self._open > 0 and self._repeats <= _REPEATS_WHILE_ASKING

    def restart(self) -> float:
        """A new run begins. Returns the seconds that the one before waited for answers."""
        if self._open:
            self._waited += trio.current_time() - self._since
        waited, self._waited, self._open = self._waited, 0.0, 0
        return waited


class ToolClient:
    """See the module's text. One per process."""

    def __init__(
        self,
        peers: Peers,
        *,
        max_held_calls: int,
        max_calls_per_process: int,
        carry: bool = False,
        on_catalogue: Callable[[CatalogueView], None] | None = None,
    ) -> None:
        """`carry` sends every call through the router; the router itself never does. `on_catalogue` hears of
        changes."""
        self.catalogue = CatalogueView(Catalogue(tools=[]))
        self._peers = peers
        self._max_held = max_held_calls
        self._max_per_process = max_calls_per_process
        self._carry = carry
        self._on_catalogue = on_catalogue
        self._told_by = 0
        """Incarnation of the router that the catalogue is from."""
        self._held = 0
        self._freed = trio.lowlevel.ParkingLot()

    @property
    def held_calls(self) -> int:
        """Calls that wait for a process now."""
        return self._held

    # --- the catalogue ---------------------------------------------------------------------------------------------

    async def keep_catalogue(self) -> None:
        """Fetch the catalogue from the router whenever there is a new one to talk to. Runs until cancelled."""
        while True:
            entry = self._router_entry()
            if entry is None:
                await self._peers.changed()
                continue
            try:
                channel = await self._peers.connect(entry)
                reply = await channel.call("catalogue", None, timeout_s=_CATALOGUE_TIMEOUT_S)
            except (ActorDiedError, BusyError, DeadlineExceededError):
                await self._changed_or_after(0.5)
                continue
            catalogue = _decode_catalogue(reply)
            if self._told_by != entry.incarnation or catalogue.version > self.catalogue.version:
                self._told_by = entry.incarnation
                self.take_catalogue(catalogue)
            while not channel.closed:
                await self._peers.changed()

    def catalogue_posted(self, entry: DirectoryEntry, catalogue: Catalogue) -> None:
        """A router says that there is a new catalogue; one that stands by knows less than the one at work."""
        router = self._router_entry()
        if router is None or router.incarnation != entry.incarnation:
            return
        if self._told_by != entry.incarnation or catalogue.version > self.catalogue.version:
            self._told_by = entry.incarnation
            self.take_catalogue(catalogue)

    def take_catalogue(self, catalogue: Catalogue) -> None:
        """Use a new list of tools."""
        self.catalogue = CatalogueView(catalogue)
        if self._on_catalogue is not None:
            self._on_catalogue(self.catalogue)
        self._peers.wake()

    def _router_entry(self) -> DirectoryEntry | None:
        ready = [entry for entry in self._peers.processes(ROUTER) if entry.state == State.READY]
        return ready[0] if ready else None

    async def _changed_or_after(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self._peers.changed()

    # --- calls -----------------------------------------------------------------------------------------------------

    def find(self, name: str) -> ToolDescriptor:
        """The tool of this name. Raises `UnknownToolError` with the nearest name, `UnavailableError` when it is
        broken, or `RuntimeUnavailableError` when the actor that has it is off."""
        tool = self.catalogue.get(name)
        if tool is None and name in P2P_TOOLS:
            base = P2P_TOOLS[name]
            raise RuntimeUnavailableError(_why_not_offered(base, self._peers.processes(base), name), tool=name)
        if tool is None:
            nearest = self.catalogue.nearest(name)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise UnknownToolError(f"there is no tool {name!r}{hint}", tool=name, nearest=nearest)
        if tool.broken:
            raise UnavailableError(f"tool {name} can't be called: {tool.broken}", tool=name)
        return tool

    def find_other(self, call: ToolCall) -> Offered:
        """The resource or prompt that a call of another kind is for. Raises `NotFoundError` with the nearest name."""
        found = self.catalogue.of(call)
        if found is not None:
            return found
        prompts = isinstance(call, PromptGet) or (isinstance(call, CompletionAsk) and call.of == "prompts")
        known = (
            [one.name for one in self.catalogue.prompts] if prompts else [one.uri for one in self.catalogue.resources]
        )
        nearest = difflib.get_close_matches(call.name[:200], known, n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        what = "prompt" if prompts else "resource"
        raise NotFoundError(f"there is no {what} {call.name[:200]!r}{hint}", name=call.name)

    async def call(
        self,
        call: ToolCall,
        *,
        timeout_s: float,
        on_item: OnItem | None = None,
        on_ask: OnAsk | None = None,
    ) -> ToolResult:
        """Run a tool, read a resource, get a prompt or a completion. Raises what that raised, and the errors of
        `actors.errors` for what happened on the way."""
        if type(call) is not ToolCall:
            other = self.find_other(call)
            base, safe = ROUTER if self._carry else actor_of(other), other.retry_safe
            return await self.call_actor(
                base, call, retry_safe=safe, timeout_s=timeout_s, on_item=on_item, on_ask=on_ask
            )
        tool = self.find(call.name)
        base = self.way_of(tool)
        return await self.call_actor(
            base, call, retry_safe=tool.retry_safe, timeout_s=timeout_s, on_item=on_item, on_ask=on_ask
        )

    def way_of(self, tool: ToolDescriptor) -> str:
        """Base name of the actor that calls of this tool are sent to."""
        return ROUTER if self._carry or tool.max_concurrent is not None else actor_of(tool)

    async def call_actor(
        self,
        base: str,
        call: ToolCall,
        *,
        retry_safe: bool,
        timeout_s: float,
        on_item: OnItem | None = None,
        on_ask: OnAsk | None = None,
    ) -> ToolResult:
        """Run a tool on a process of `base`, holding and retrying as the module says."""
        deadline = trio.current_time() + timeout_s
        died: ActorDiedError | None = None
        asking = Asking(on_ask) if on_ask is not None else None
        while True:
            if asking is not None:
                deadline += asking.restart()
            channel = self._ready_channel(base, avoid=died)
            if channel is None:
                channel = await self._hold(base, deadline, call.name)
            remaining = deadline - trio.current_time()
            try:
                reply = await channel.call(call.METHOD, call, timeout_s=remaining, on_item=on_item, on_ask=asking)
            except DrainingError:
                # It knows before the directory tells; nothing was started there.
                await self._changed_or_after(min(_DRAINING_SHOWS_WITHIN_S, max(0.0, remaining)))
                continue
            except ActorDiedError as error:
                if not error.sent:
                    continue
                if asking is not None and asking.may_repeat():
                    died = error
                    continue
                if died is None and retry_safe:
                    died = error
                    continue
                raise OutcomeUnknownError(
                    f"the process that ran {call.name} ({error.actor}) ended before it answered; the call may or may "
                    "not have taken effect: check before you repeat it",
                    tool=call.name,
                ) from None
            finally:
                if self._freed:
                    self._freed.unpark()
            return _decode_result(reply)

    def _ready_channel(self, base: str, avoid: ActorDiedError | None) -> Channel | None:
        """The open channel with the fewest calls of ours, with room for one more; None when there is none now."""
        best: Channel | None = None
        for entry in self._peers.processes(base):
            if entry.state != State.READY or (avoid is not None and entry.incarnation == avoid.incarnation):
                continue
            channel = self._peers.connected(entry)
            if channel is None or channel.other_leaves:
                continue
            if channel.in_flight < self._max_per_process and (best is None or channel.in_flight < best.in_flight):
                best = channel
        return best

    async def _hold(self, base: str, deadline: float, tool: str) -> Channel:
        """Wait for a process with room for the call."""
        if self._held >= self._max_held:
            raise BusyError(f"{self._held} calls wait for a process already (router.max_held_calls); try again")
        self._held += 1
        try:
            with trio.CancelScope(deadline=deadline):
                while True:
                    # What changes while a connection is tried must not be missed.
                    seen = self._peers.changes
                    channel = self._ready_channel(base, None) or await self._connect_one(base, tool)
                    channel = channel or self._ready_channel(base, None)
                    if channel is not None:
                        return channel
                    await self._changed_or_freed(seen)
        finally:
            self._held -= 1
        raise RuntimeUnavailableError(f"{base} had no process ready for {tool} before the call's deadline", tool=tool)

    async def _connect_one(self, base: str, tool: str) -> Channel | None:
        """Open a missing connection. None when all ready processes are full or none is ready yet."""
        entries = self._peers.processes(base)
        if not any(entry.state in COMING for entry in entries):
            raise RuntimeUnavailableError(why_off(base, entries, tool), tool=tool)
        for entry in entries:
            if entry.state == State.READY and self._peers.connected(entry) is None:
                try:
                    await self._peers.connect(entry)
                except ActorDiedError:
                    continue
                return self._ready_channel(base, None)
        return None

    async def _changed_or_freed(self, since: int) -> None:
        async with trio.open_nursery() as nursery:

            async def changed() -> None:
                await self._peers.changed(since)
                nursery.cancel_scope.cancel()

            nursery.start_soon(changed)
            await self._freed.park()
            nursery.cancel_scope.cancel()

    async def keep_connections(self, wanted: Callable[[str], bool]) -> None:
        """Connect to ready processes and to spares as they appear, so that no call pays for it. Runs until
        cancelled. `wanted` is asked with base names."""
        while True:
            missing = [
                entry
                for entry in self._peers.entries.values()
                if entry.state in {State.READY, State.SPARE}
                and wanted(base_name(entry.name))
                and self._peers.connected(entry) is None
            ]
            for entry in missing:
                try:
                    await self._peers.connect(entry)
                except ActorDiedError:
                    await self._changed_or_after(0.1)
            if not missing:
                await self._peers.changed()


def why_off(base: str, entries: list[DirectoryEntry], tool: str) -> str:
    """What an actor that is not there needs, in words for who wanted `tool`."""
    reasons = sorted({f"{entry.state}: {entry.reason}" if entry.reason else str(entry.state) for entry in entries})
    state = ", ".join(reasons) if reasons else "not part of this system"
    return f"{tool} needs {base}, which is {state}"


def _why_not_offered(base: str, entries: list[DirectoryEntry], tool: str) -> str:
    """The same for a tool that is not in the catalogue, whatever its actor does."""
    if tool in SWITCHES and any(entry.state == State.READY for entry in entries):
        return f"{tool} is not offered; {SWITCHES[tool]} switches it on"
    return why_off(base, entries, tool)
