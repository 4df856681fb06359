# SPDX-License-Identifier: AGPL-3.0-or-later
"""The way to an actor of which there is one, and to which (almost) everything can be said twice without harm: it is
waited for while it restarts, and asked again, up to the deadline."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import msgspec
import trio

from actors.calls import Message
from actors.channel import Channel
from actors.client import COMING, why_off
from actors.errors import ActorDiedError, BusyError, DeadlineExceededError, DrainingError, RuntimeUnavailableError
from actors.messages import State
from actors.peers import Peers

_MAX_HELD: Final = 4096
_DRAINING_SHOWS_WITHIN_S: Final = 0.05
_WATCH_S: Final = 3600.0


class OneActor:
    """See the module's text. Connections are those of `peers`."""

    def __init__(self, peers: Peers, name: str, *, called: str, gives: str) -> None:
        """`called` and `gives`: the actor, and what it is for, in the words of errors."""
        self._peers = peers
        self._name = name
        self._called = called
        self._gives = gives
        self._held = 0

    async def call(
        self,
        method: str,
        body: Message,
        deadline: float,
        again: Callable[[], Message] | None = None,
        on_item: Callable[[msgspec.Raw], None] | None = None,
        *,
        once: bool = False,
    ) -> msgspec.Raw:
        """Ask, as often as it takes; `again` makes the body of a repeat. Raises what it answers,
        `DeadlineExceededError`, and `RuntimeUnavailableError` when it is off or not back in time. With `once`, nothing
        is repeated that may have taken effect: raises `ActorDiedError`, too."""
        while True:
            channel = self._ready_channel() or await self._hold(deadline)
            try:
                left = max(0.0, deadline - trio.current_time())
                return await channel.call(method, body, timeout_s=left, on_item=on_item)
            except (DrainingError, ActorDiedError) as error:
                if once and isinstance(error, ActorDiedError) and error.sent:
                    raise
                body = body if again is None else again()
                if isinstance(error, DrainingError):
                    # It knows before the directory tells; nothing was started there.
                    with trio.move_on_after(_DRAINING_SHOWS_WITHIN_S):
                        await self._peers.changed()

    async def watch(
        self, method: str, on_connected: Callable[[], None], on_item: Callable[[msgspec.Raw], None]
    ) -> None:
        """Hear what a method that never ends tells, for as long as the actor is part of this system. `on_connected` is
        called at the beginning and whenever something may have been missed. Raises `RuntimeUnavailableError` when it is
        off."""
        while True:
            channel = self._ready_channel() or await self._hold(math.inf)
            on_connected()
            try:
                await channel.call(method, None, timeout_s=_WATCH_S, on_item=on_item)
            except (ActorDiedError, DeadlineExceededError):
                continue
            except BusyError:
                with trio.move_on_after(_DRAINING_SHOWS_WITHIN_S):
                    await self._peers.changed()

    def _ready_channel(self) -> Channel | None:
        for entry in self._peers.processes(self._name):
            if entry.state == State.READY:
                return self._peers.connected(entry)
        return None

    async def _hold(self, deadline: float) -> Channel:
        """Wait for it, which may be restarting."""
        if self._held >= _MAX_HELD:
            raise BusyError(f"{self._held} calls wait for {self._called} already; try again")
        self._held += 1
        try:
            with trio.CancelScope(deadline=deadline):
                while True:
                    seen = self._peers.changes
                    entries = self._peers.processes(self._name)
                    if not any(entry.state in COMING for entry in entries):
                        raise RuntimeUnavailableError(why_off(self._name, entries, self._gives))
                    for entry in entries:
                        if entry.state == State.READY:
                            try:
                                return await self._peers.connect(entry)
                            except ActorDiedError:
                                break
                    await self._peers.changed(seen)
        finally:
            self._held -= 1
        raise RuntimeUnavailableError(f"{self._called} was not back before the deadline; try again")
