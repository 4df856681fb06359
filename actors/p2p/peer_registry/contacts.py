# SPDX-License-Identifier: AGPL-3.0-or-later
"""Gets in contact with peers, and stays: addresses one after the other, again and again with growing pauses for those
that should always be connected, and never more than a few dials at once."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

import msgspec
import trio

from actors.errors import InvalidArgumentsError, MCPServerError, PeerUnreachableError
from actors.logs import get_logger

LEAST_S: Final = 2.0
"""For one address; else all have an equal part of the time."""
FIRST_PAUSE_S: Final = 1.0
MOST_PAUSE_S: Final = 300.0
JITTER: Final = 0.3
"""Pauses are so much shorter or longer, by chance: nodes that lost the same peer do not come back at the same time."""
_STEADY_S: Final = 60.0
"""A connection that lasted for so long makes the next pause the first one again."""


class Dials(Protocol):
    """What this needs of the host."""

    async def dial(self, address: str, peer_id: str, timeout_s: float) -> None:
        """Connect, unless that is done. Raises `MCPServerError`."""

    def is_connected(self, peer_id: str) -> bool:
        """Whether there is a connection."""


class Known(Protocol):
    """What this needs of the book of peers."""

    def addresses(self, peer_id: str) -> list[str]:
        """Where it may be, the best place first."""

    def wanted(self) -> Iterable[str]:
        """Those that should always be connected."""

    def connecting(self, peer_id: str) -> None:
        """It is being dialled."""

    def failed(self, peer_id: str) -> None:
        """It could not be reached."""


class ContactRules(msgspec.Struct, frozen=True, kw_only=True):
    """What it goes by, from the settings."""

    timeout_s: float = 30.0
    """For one peer, all its addresses together, when it is dialled on our own account."""
    at_once: int = 16
    """Peers that are dialled at once."""


class Reached(msgspec.Struct, frozen=True):
    """A peer is connected."""

    address: str
    """At which; '' when it was connected already."""
    seconds: float
    attempts: int


class _Absence:
    __slots__ = ("due", "pause_s", "since")

    def __init__(self, due: float) -> None:
        self.due = due
        self.pause_s = FIRST_PAUSE_S
        self.since = 0.0
        """When it was connected last."""


class Contacts:
    """See the module's text."""

    def __init__(
        self, host: Dials, known: Known, rules: ContactRules, *, chance: Callable[[], float] = random.random
    ) -> None:
        self._host = host
        self._known = known
        self._rules = rules
        self._chance = chance
        self._limit = trio.CapacityLimiter(rules.at_once)
        self._most_own = max(1, rules.at_once // 2)
        """The rest is for peers that somebody asks for now."""
        self._absences: dict[str, _Absence] = {}
        self._dialling: set[str] = set()
        self._changed = trio.Event()

    async def reach(self, peer_id: str, given: Sequence[str] = (), *, timeout_s: float, retries: int = 0) -> Reached:
        """Connect to this peer, at one of the given addresses or of those that are known, within `timeout_s` in all.

        Raises the last address's error, `PeerUnreachableError` when there is none or the time is over.
        """
        addresses = list(dict.fromkeys([*given, *self._known.addresses(peer_id)]))
        began = trio.current_time()
        if self._host.is_connected(peer_id):
            return Reached("", 0.0, 0)
        if not addresses:
            raise PeerUnreachableError(f"no address of {peer_id} is known; name one", peer_id=peer_id)
        self._known.connecting(peer_id)
        error: MCPServerError = PeerUnreachableError(f"{peer_id}: no answer in {timeout_s:g} s", peer_id=peer_id)
        pause_s = FIRST_PAUSE_S
        tries = 0
        try:
            with trio.move_on_after(timeout_s):
                for left in range(retries, -1, -1):
                    for n, address in enumerate(addresses):
                        tries += 1
                        try:
                            async with self._limit:
                                rest_s = began + timeout_s - trio.current_time()
                                await self._host.dial(address, peer_id, max(LEAST_S, rest_s / (len(addresses) - n)))
                        except InvalidArgumentsError:
                            raise
                        except MCPServerError as failure:
                            error = failure
                        else:
                            return Reached(address, trio.current_time() - began, tries)
                    if left:
                        await trio.sleep(self._jittered(pause_s))
                        pause_s *= 2
        finally:
            if not self._host.is_connected(peer_id):
                self._known.failed(peer_id)
        raise error

    # --- those that should always be there -------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the wanted ones connected, until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                changed = self._changed
                now = trio.current_time()
                wanted = set(self._known.wanted())
                for peer_id in self._absences.keys() - wanted:
                    del self._absences[peer_id]
                for peer_id in wanted:
                    self._absences.setdefault(peer_id, _Absence(now))
                # Those that wait longest come first: there may be more of them than can be dialled.
                waiting = sorted(wanted, key=lambda peer_id: self._absences[peer_id].due)
                dues = [self._next(peer_id, now, nursery) for peer_id in waiting]
                with trio.move_on_at(min(dues, default=now + MOST_PAUSE_S)):
                    await changed.wait()

    def look(self) -> None:
        """A connection ended or began, or others are wanted."""
        self._changed.set()
        self._changed = trio.Event()

    def _next(self, peer_id: str, now: float, nursery: trio.Nursery) -> float:
        """When to look at this one again."""
        absence = self._absences[peer_id]
        if self._host.is_connected(peer_id):
            absence.since = absence.since or now
            return now + MOST_PAUSE_S
        if absence.since:
            if now - absence.since >= _STEADY_S:
                absence.pause_s = FIRST_PAUSE_S
            absence.since = 0.0
            absence.due = now + self._jittered(absence.pause_s)
        if peer_id in self._dialling:
            return now + MOST_PAUSE_S
        if absence.due <= now and len(self._dialling) >= self._most_own:
            return now + MOST_PAUSE_S  # the end of a dial makes `run` look again
        if absence.due <= now:
            self._dialling.add(peer_id)
            nursery.start_soon(self._dial, peer_id, absence)
            return now + MOST_PAUSE_S
        return absence.due

    async def _dial(self, peer_id: str, absence: _Absence) -> None:
        try:
            await self.reach(peer_id, timeout_s=self._rules.timeout_s)
        except MCPServerError as error:
            get_logger().debug("a peer can't be reached", peer=peer_id, reason=error.message)
        finally:
            self._dialling.discard(peer_id)
            absence.due = trio.current_time() + self._jittered(absence.pause_s)
            absence.pause_s = min(MOST_PAUSE_S, absence.pause_s * 2)
            self.look()

    def _jittered(self, pause_s: float) -> float:
        return pause_s * (1 + JITTER * (2 * self._chance() - 1))
