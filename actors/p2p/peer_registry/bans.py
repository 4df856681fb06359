# SPDX-License-Identifier: AGPL-3.0-or-later
"""Who is kept out, and for how long: by peer id and, since ids are free, by IP address. Each further violation bans for
longer, and time forgives. Pure, but for the clock that is given; times are Unix seconds.

The loopback address is never banned: all neighbours on this machine would be shut out, and everybody who comes through
a tunnel that ends here.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec

from actors.p2p.peer_registry.addresses import is_own_machine, neighbour
from actors.p2p.peer_registry.unsaved import Unsaved

MOST_SUBJECTS: Final = 10_000
"""Peer ids, and as many addresses, of which violations are remembered; those that are forgiven soonest go first."""
_REASON_CHARS: Final = 200


class BanRules(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds; `settings_p2p.PeerRegistrySettings` says what each means."""

    ban_s: float = 60.0
    ban_max_s: float = 86400.0
    forgive_s: float = 3600.0

    @property
    def top_level(self) -> float:
        """More violations than that make no ban longer, and do not have to be forgiven."""
        return 1.0 + max(0.0, math.log2(self.ban_max_s / self.ban_s))


class Offence(msgspec.Struct, frozen=True):
    """What is remembered of somebody's violations."""

    subject: str
    """A peer id, or an address as `neighbour` names it."""
    level: float
    """Violations that were not forgiven when the ban began."""
    until: float
    """When the ban ends; from then on violations are forgiven."""
    reason: str


class Ban(msgspec.Struct, frozen=True):
    """Somebody is kept out."""

    subject: str
    until: float
    reason: str


class Bans:
    """See the module's text."""

    def __init__(self, rules: BanRules, now: Callable[[], float], *, most: int = MOST_SUBJECTS) -> None:
        self._rules = rules
        self._now = now
        self.unsaved = Unsaved(2 * most)
        self._peers = _Table(most, rules, self.unsaved)
        self._addresses = _Table(most, rules, self.unsaved)

    def __len__(self) -> int:
        return len(self._peers) + len(self._addresses)

    def violation(self, peer_id: str, address: str, reason: str) -> Ban:
        """This peer broke a protocol, and came from this multiaddr (empty = unknown). Returns the peer's ban."""
        self._worse_address(address, reason)
        return self._worse(self._peers, peer_id, reason)

    def lie(self, peer_id: str, address: str, reason: str) -> Ban:
        """A result of this peer proved wrong: it is banned for the longest time at once. Its neighbours at the same
        address are banned as for any violation."""
        self._worse_address(address, reason)
        until = self._now() + self._rules.ban_max_s
        return _ban(self._peers.put(Offence(peer_id, self._rules.top_level, until, _cut(reason))))

    def _worse_address(self, address: str, reason: str) -> None:
        subject = neighbour(address)
        if subject and not is_own_machine(subject):
            self._worse(self._addresses, subject, reason)

    def _worse(self, table: _Table, subject: str, reason: str) -> Ban:
        now, rules = self._now(), self._rules
        old = table.get(subject)
        if old is not None and old.until > now:
            # What it had sent before it was cut off: streams that end together are one violation.
            return _ban(old)
        level = min(rules.top_level, self._level(old, now) + 1.0)
        length = min(rules.ban_max_s, rules.ban_s * 2.0 ** (level - 1.0))
        return _ban(table.put(Offence(subject, level, now + length, _cut(reason))))

    def _level(self, old: Offence | None, now: float) -> float:
        return 0.0 if old is None else max(0.0, old.level - max(0.0, now - old.until) / self._rules.forgive_s)

    def of_peer(self, peer_id: str) -> Ban | None:
        """The ban of this peer that holds now."""
        return self._holding(self._peers.get(peer_id))

    def of_address(self, address: str) -> Ban | None:
        """The same for whoever comes from this multiaddr."""
        return self._holding(self._addresses.get(neighbour(address)))

    def _holding(self, offence: Offence | None) -> Ban | None:
        return None if offence is None or offence.until <= self._now() else _ban(offence)

    def forgive(self, subject: str) -> bool:
        """Forget all that a peer id, or an address (as bans name it, or as a multiaddr), did; False = nothing was
        remembered."""
        here = neighbour(subject) if subject.startswith("/") else subject
        return self._peers.drop(here) or self._addresses.drop(here)

    def holding(self) -> list[Ban]:
        """All bans that hold, those that end first at the beginning."""
        found = [ban for ban in map(self._holding, self.all()) if ban is not None]
        return sorted(found, key=lambda ban: (ban.until, ban.subject))

    def sweep(self) -> None:
        """Forget what is forgiven."""
        now = self._now()
        self._peers.sweep(now)
        self._addresses.sweep(now)

    # --- what is stored ----------------------------------------------------------------------------------------------

    def get(self, subject: str) -> Offence | None:
        """What is remembered of a peer id or an address."""
        return self._peers.get(subject) or self._addresses.get(subject)

    def all(self) -> Iterator[Offence]:
        """Everything that is remembered."""
        yield from self._peers.values()
        yield from self._addresses.values()

    def restore(self, offences: Iterable[Offence]) -> None:
        """Remember these again. None of them lasts longer than a new one could: the clock may have been wrong."""
        latest = self._now() + self._rules.ban_max_s
        for one in offences:
            is_address = "." in one.subject or ":" in one.subject
            offence = Offence(
                one.subject, min(one.level, self._rules.top_level), min(one.until, latest), _cut(one.reason)
            )
            (self._addresses if is_address else self._peers).put(offence, stored=offence == one)
        self.sweep()


class _Table:
    """Offences by subject; when there are too many, those go that would be forgotten first."""

    def __init__(self, most: int, rules: BanRules, unsaved: Unsaved) -> None:
        self._most = most
        self._forgive_s = rules.forgive_s
        self._unsaved = unsaved
        self._offences: dict[str, Offence] = {}
        self._ends: list[tuple[float, str]] = []
        """A heap of when each is forgotten; what does not fit to `_offences` any more is skipped."""

    def __len__(self) -> int:
        return len(self._offences)

    def get(self, subject: str) -> Offence | None:
        return self._offences.get(subject)

    def values(self) -> Iterable[Offence]:
        return self._offences.values()

    def _end(self, offence: Offence) -> float:
        return offence.until + offence.level * self._forgive_s

    def put(self, offence: Offence, *, stored: bool = False) -> Offence:
        self._offences[offence.subject] = offence
        heapq.heappush(self._ends, (self._end(offence), offence.subject))
        if not stored:
            self._unsaved.put(offence.subject)
        if len(self._offences) > self._most:
            self._drop_first()
        if len(self._ends) > 2 * self._most:
            self._ends = [(self._end(one), one.subject) for one in self._offences.values()]
            heapq.heapify(self._ends)
        return offence

    def _drop_first(self) -> None:
        while True:
            end, subject = heapq.heappop(self._ends)
            one = self._offences.get(subject)
            if one is not None and self._end(one) == end:
                self.drop(subject)
                return

    def drop(self, subject: str) -> bool:
        if self._offences.pop(subject, None) is None:
            return False
        self._unsaved.drop(subject)
        return True

    def sweep(self, now: float) -> None:
        while self._ends and self._ends[0][0] <= now:
            end, subject = heapq.heappop(self._ends)
            one = self._offences.get(subject)
            if one is not None and self._end(one) == end:
                self.drop(subject)


def _ban(offence: Offence) -> Ban:
    return Ban(offence.subject, offence.until, offence.reason)


def _cut(reason: str) -> str:
    return "".join(filter(str.isprintable, reason[:_REASON_CHARS]))
