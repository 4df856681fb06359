# SPDX-License-Identifier: AGPL-3.0-or-later
"""The book of peers: what is known of each, at most so many, and none that was not heard of for too long. It knows no
network and no file: others tell it what happened, and `peer_keeper` stores what changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec

from actors.p2p.peer_registry.bans import Ban, Bans
from actors.p2p.peer_registry.peer_history import Gathering
from actors.p2p.peer_registry.peer_places import Places, Rank
from actors.p2p.peer_registry.peers import (
    MOST_POINTS,
    NAME_CHARS,
    PeerRecord,
    is_peer_id,
    moved,
    names,
    with_heard,
    with_reached,
)
from actors.p2p.peer_registry.reputation import RULES, Outcome, ReputationRules, after, after_lie, reputation
from actors.p2p.peer_registry.unsaved import Unsaved
from actors.peer_messages import KnownPeer, Point, Status

LEAST_TRANSFER_BYTES: Final = 64 * 1024
"""Smaller transfers measure the latency, not the bandwidth."""
_PERSISTENT_SHARE: Final = 2
HEARD_STORED_EVERY_S: Final = 60.0
"""A peer of which nothing is new but that it is alive is stored so often."""


class _Entry:
    __slots__ = ("address", "gathering", "history", "history_stored", "record", "since", "status", "stored_heard_at")

    def __init__(self, record: PeerRecord, history: list[Point]) -> None:
        self.record = record
        self.history = history
        self.history_stored = True
        self.gathering: Gathering | None = None
        self.status: Status = "disconnected"
        self.since: float | None = None
        self.address = ""
        self.stored_heard_at = -1.0

    @property
    def rank(self) -> Rank:
        record = self.record
        if record.persistent or self.status != "disconnected":
            return Rank.PINNED
        if record.successes:
            return Rank.USEFUL
        return Rank.HEARSAY if record.last_seen is None else Rank.SEEN


class Stored(msgspec.Struct, frozen=True):
    """A peer as it is stored and read again."""

    record: PeerRecord
    history: list[Point] | None
    """None = as it was stored before."""


class PeerBook:
    """See the module's text. What is told of a peer that is not in the book is ignored, unless it says otherwise."""

    def __init__(
        self,
        bans: Bans,
        *,
        max_peers: int,
        keep_s: float,
        now: Callable[[], float],
        rules: ReputationRules = RULES,
    ) -> None:
        """`now` is the clock, in Unix seconds."""
        self.bans = bans
        self.max_peers = max_peers
        self.max_persistent = -(-max_peers // _PERSISTENT_SHARE)
        """Peers that may be wanted: the rest of the book is for those that come by themselves."""
        self.turned_away = 0
        """Peers that there was no room for."""
        self.unsaved = Unsaved(max_peers)
        self._keep_s = keep_s
        self._now = now
        self._rules = rules
        self._entries: dict[str, _Entry] = {}
        self._places = Places()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, peer_id: object) -> bool:
        return peer_id in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    # --- who there is ------------------------------------------------------------------------------------------------

    def heard(self, peer_id: str, addresses: Iterable[str] = (), capabilities: Iterable[str] | None = None) -> bool:
        """Somebody says that there is this peer. False = it is not in the book: there is no room, or that is no peer
        id."""
        entry = self._known_or_new(peer_id, Rank.HEARSAY)
        if entry is None:
            return False
        record = entry.record
        changed = self._set(entry, "addresses", with_heard(record.addresses, addresses))
        if capabilities is not None and record.last_seen is None:
            changed |= self._set(entry, "capabilities", names(capabilities))
        self._alive(entry, changed=changed)
        return True

    def seen(
        self,
        peer_id: str,
        *,
        capabilities: Iterable[str] | None = None,
        protocols: Iterable[str] | None = None,
        agent: str | None = None,
    ) -> bool:
        """The peer itself is here, and says this of itself (None = nothing). False as for `heard`."""
        entry = self._known_or_new(peer_id, Rank.SEEN)
        if entry is None:
            return False
        changed = entry.record.last_seen is None
        if capabilities is not None:
            changed |= self._set(entry, "capabilities", names(capabilities))
        if protocols is not None:
            changed |= self._set(entry, "protocols", names(protocols))
        if agent is not None:
            changed |= self._set(entry, "agent", "".join(filter(str.isprintable, agent[:NAME_CHARS])))
        self._here(entry)
        self._alive(entry, changed=changed)
        return True

    def connecting(self, peer_id: str) -> bool:
        """A connection is being made. False as for `heard`."""
        entry = self._known_or_new(peer_id, Rank.SEEN)
        if entry is None:
            return False
        if entry.status == "disconnected":
            entry.status = "connecting"
            self._places.put(peer_id, entry.rank)
        return True

    def connected(self, peer_id: str, address: str = "", *, inbound: bool) -> bool:
        """There is a connection, with this multiaddr at its other end. False as for `heard`."""
        if not self.seen(peer_id):
            return False
        entry = self._entries[peer_id]
        if entry.status != "connected":
            entry.since = self._now()
        entry.status, entry.address = "connected", address
        # Where an inbound connection comes from is no place to be reached at.
        if not inbound and self._set(entry, "addresses", with_reached(entry.record.addresses, address)):
            self.unsaved.put(peer_id)
        self._places.put(peer_id, entry.rank)
        return True

    def disconnected(self, peer_id: str) -> None:
        """The last connection has ended, or none could be made."""
        entry = self._entries.get(peer_id)
        if entry is None or entry.status == "disconnected":
            return
        if entry.status == "connected":
            self._here(entry)
            self._changed(entry)
        entry.status, entry.since, entry.address = "disconnected", None, ""
        self._places.put(peer_id, entry.rank)

    def persist(self, peer_id: str, *, persistent: bool = True, addresses: Iterable[str] = ()) -> bool:
        """An operator wants it to be connected to again and again, at one of these addresses, or not any more. False
        as for `heard`, and when so many are wanted already; but any peer that is not here, and not persistent itself,
        makes room for it."""
        if persistent and not self.may_persist(peer_id):
            return False
        entry = self._known_or_new(peer_id, Rank.USEFUL) if persistent else self._entries.get(peer_id)
        if entry is None:
            return False
        entry.record.persistent = persistent
        self._set(entry, "addresses", with_heard(entry.record.addresses, addresses))
        self._alive(entry, changed=True)
        return True

    def may_persist(self, peer_id: str) -> bool:
        """Whether it is wanted already, or one more may be."""
        wanted = self.persistent()
        return len(wanted) < self.max_persistent or peer_id in wanted

    def forget(self, peer_id: str) -> bool:
        """Drop all that is known of it, but not its bans; False = there is nothing."""
        if peer_id not in self._entries:
            return False
        self._drop(peer_id)
        return True

    def sweep(self) -> int:
        """Forget those of which nothing was heard for too long, and bans that are forgiven; finish points of the
        history whose time is over. Call it about once a minute. Returns how many peers were forgotten."""
        self.bans.sweep()
        old, before = len(self._entries), self._now() - self._keep_s
        for rank in Rank:
            while rank is not Rank.PINNED and (peer_id := self._places.first(rank)) is not None:
                if self._entries[peer_id].record.heard_at >= before:
                    break
                self._drop(peer_id)
        for entry in self._entries.values():
            self._close_point(entry)
        return old - len(self._entries)

    # --- what was measured -------------------------------------------------------------------------------------------

    def latency(self, peer_id: str, seconds: float | None) -> None:
        """A ping took so long; None = it was not answered."""
        entry = self._entries.get(peer_id)
        if entry is None:
            return
        record, gathering = entry.record, self._gathering(entry)
        gathering.pings += 1
        record.answered = moved(record.answered, 0.0 if seconds is None else 1.0)
        if seconds is not None:
            gathering.answered += 1
            gathering.latency_s += seconds
            record.latency_s = moved(record.latency_s, seconds)
            self._here(entry)
        self._changed(entry)

    def transferred(self, peer_id: str, size: int, seconds: float) -> None:
        """So many bytes came from it, or went to it and were acknowledged, in that time. Small ones do not count."""
        entry = self._entries.get(peer_id)
        if entry is None or size < LEAST_TRANSFER_BYTES or seconds <= 0.0:
            return
        gathering = self._gathering(entry)
        gathering.bits += 8.0 * size
        gathering.transfer_s += seconds
        entry.record.bandwidth_bps = moved(entry.record.bandwidth_bps, 8.0 * size / seconds)
        self._here(entry)
        self._changed(entry)

    def outcome(self, peer_id: str, outcome: Outcome) -> None:
        """What became of something that it was given to do."""
        entry = self._entries.get(peer_id)
        if entry is None:
            return
        record, gathering = entry.record, self._gathering(entry)
        if outcome.ok:
            gathering.successes += 1
            record.successes += 1
            self._here(entry)
            if outcome.seconds is not None and outcome.seconds > 0.0:
                record.task_s = moved(record.task_s, outcome.seconds / max(1, outcome.in_flight))
        else:
            gathering.failures += 1
            record.failures += 1
        record.track = after(record.track, outcome, self._now(), self._rules)
        self._changed(entry)

    # --- what it did wrong -------------------------------------------------------------------------------------------

    def violated(self, peer_id: str, address: str, reason: str) -> Ban:
        """It broke a protocol, and came from this multiaddr. It need not be in the book. Its connection has to be
        ended by who tells."""
        return self.bans.violation(peer_id, address, reason)

    def lied(self, peer_id: str, address: str, reason: str) -> Ban:
        """A result of it proved wrong. The same holds."""
        entry = self._entries.get(peer_id)
        if entry is not None:
            entry.record.lies += 1
            entry.record.failures += 1
            self._gathering(entry).failures += 1
            entry.record.track = after_lie(entry.record.track, self._now(), self._rules)
            self._changed(entry)
        return self.bans.lie(peer_id, address, reason)

    # --- what is known -----------------------------------------------------------------------------------------------

    def get(self, peer_id: str) -> KnownPeer | None:
        """All that is known of a peer; None = nothing."""
        entry = self._entries.get(peer_id)
        return None if entry is None else self._view(entry)

    def record(self, peer_id: str) -> tuple[PeerRecord, Status]:
        """The same in short, to search by; not to be changed. Raises `KeyError`."""
        entry = self._entries[peer_id]
        return entry.record, entry.status

    def reputation(self, peer_id: str) -> float:
        """From 0 to 1; the prior for one that did nothing or is not known."""
        entry = self._entries.get(peer_id)
        return self._rules.prior if entry is None else reputation(entry.record.track, self._now(), self._rules)

    def persistent(self) -> list[str]:
        """Those that should always be connected."""
        return [peer_id for peer_id, entry in self._entries.items() if entry.record.persistent]

    def _view(self, entry: _Entry) -> KnownPeer:
        record = entry.record
        ban = self.bans.of_peer(record.peer_id)
        return KnownPeer(
            peer_id=record.peer_id,
            status=entry.status,
            connected_since=entry.since,
            address=entry.address,
            addresses=record.addresses,
            capabilities=record.capabilities,
            protocols=record.protocols,
            agent=record.agent,
            first_seen=record.first_seen,
            last_seen=record.last_seen,
            latency_s=record.latency_s,
            bandwidth_bps=record.bandwidth_bps,
            answered=record.answered,
            successes=record.successes,
            failures=record.failures,
            lies=record.lies,
            speed=None if record.task_s is None else 1.0 / record.task_s,
            reputation=self.reputation(record.peer_id) if record.successes or record.failures else None,
            banned_until=None if ban is None else ban.until,
            ban_reason="" if ban is None else ban.reason,
            persistent=record.persistent,
            history=list(entry.history),
        )

    # --- what is stored ----------------------------------------------------------------------------------------------

    def stored(self, peer_id: str) -> Stored:
        """A peer of the book, to be stored now."""
        entry = self._entries[peer_id]
        entry.stored_heard_at = entry.record.heard_at
        history = None if entry.history_stored else list(entry.history)
        entry.history_stored = True
        return Stored(entry.record, history)

    def not_stored(self, peer_id: str) -> bool:
        """That failed; False = the peer is not in the book any more."""
        entry = self._entries.get(peer_id)
        if entry is None:
            return False
        entry.history_stored = False
        return True

    def restore(self, stored: Iterable[Stored]) -> None:
        """Know these again, in an empty book; too many and too old ones are dropped."""
        now = self._now()
        for one in sorted(stored, key=lambda one: one.record.heard_at):
            record = one.record
            record.heard_at = min(record.heard_at, now)
            entry = _Entry(record, list(one.history or ())[-MOST_POINTS:])
            entry.stored_heard_at = record.heard_at
            if self._make_room(Rank.USEFUL):
                self._entries[record.peer_id] = entry
                self._places.put(record.peer_id, entry.rank)
            else:
                self.unsaved.drop(record.peer_id)
        self.sweep()

    # --- inside ------------------------------------------------------------------------------------------------------

    def _known_or_new(self, peer_id: str, drives_out: Rank) -> _Entry | None:
        entry = self._entries.get(peer_id)
        if entry is not None:
            return entry
        if not is_peer_id(peer_id):
            return None
        if not self._make_room(drives_out):
            self.turned_away += 1
            return None
        now = self._now()
        entry = self._entries[peer_id] = _Entry(PeerRecord(peer_id=peer_id, first_seen=now, heard_at=now), [])
        self._places.put(peer_id, entry.rank)
        self.unsaved.put(peer_id)
        return entry

    def _make_room(self, drives_out: Rank) -> bool:
        if len(self._entries) >= self.max_peers:
            goes = self._places.first_to_go(drives_out)
            if goes is None:
                return False
            self._drop(goes)
        return True

    def _drop(self, peer_id: str) -> None:
        del self._entries[peer_id]
        self._places.drop(peer_id)
        self.unsaved.drop(peer_id)

    def _set(self, entry: _Entry, name: str, value: object) -> bool:
        if getattr(entry.record, name) == value:
            return False
        setattr(entry.record, name, value)
        return True

    def _here(self, entry: _Entry) -> None:
        entry.record.last_seen = entry.record.heard_at = self._now()
        self._places.put(entry.record.peer_id, entry.rank)

    def _alive(self, entry: _Entry, *, changed: bool) -> None:
        entry.record.heard_at = self._now()
        self._places.put(entry.record.peer_id, entry.rank)
        if changed or entry.record.heard_at >= entry.stored_heard_at + HEARD_STORED_EVERY_S:
            self._changed(entry)

    def _changed(self, entry: _Entry) -> None:
        self.unsaved.put(entry.record.peer_id)

    def _gathering(self, entry: _Entry) -> Gathering:
        self._close_point(entry)
        if entry.gathering is None:
            entry.gathering = Gathering(since=self._now())
        return entry.gathering

    def _close_point(self, entry: _Entry) -> None:
        now = self._now()
        if entry.gathering is None or not entry.gathering.is_due(now):
            return
        point = entry.gathering.point(now)
        entry.gathering = None
        if point is not None:
            entry.history = [*entry.history, point][-MOST_POINTS:]
            entry.history_stored = False
            self._changed(entry)
