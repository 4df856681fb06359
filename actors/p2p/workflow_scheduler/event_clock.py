# SPDX-License-Identifier: AGPL-3.0-or-later
"""A Merkle clock: the events of one workflow as a graph in which each one names those before it by their content.

An event is two blocks of canonical DAG-CBOR. Its *payload* is a map without floats, and without bytes that are not
links. Its *node* is `{v, kind, payload, parents, height, peer, seq, sig}`: links to the payload and to the events that
were newest when it was made (sorted), its height (1 + the greatest of its parents'), who made it (a peer id), its
number among that peer's events before it (from 1), and that peer's signature over the node without `sig`. The CID of
the node names the event and all that came before it.

What comes before what is ancestry. Two clocks that have the same events have the same heads and the same total order
(height, then CID), whatever way the events came.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable
from typing import Any, Final

import msgspec

from actors.p2p.workflow_scheduler.ancestry import Ancestry
from actors.p2p.workflow_scheduler.events import (
    MAX_PARENTS,
    BadEventError,
    Event,
    MissingParentsError,
    Read,
    Signer,
    cid_of,
    event_of,
    made,
    read_event,
)

MAX_EVENTS: Final = 1_000_000
"""Of one clock."""
MAX_WAITING: Final = 1000
"""Events that are kept while their parents are missing."""


class Merged(msgspec.Struct, frozen=True):
    """What became of the events of a merge."""

    added: list[Event]
    """New ones, parents first; with them those that had waited for them."""
    missing: frozenset[bytes]
    """CIDs of events that others wait for."""
    refused: list[BadEventError]


class EventClock:
    """The events of one workflow."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._number: dict[bytes, int] = {}
        self._ancestry = Ancestry()
        self._heads: set[bytes] = set()
        self._ordered: list[Event] = []
        self._in_order = True
        self._waiting: dict[bytes, Read] = {}
        self._last_seq: dict[str, int] = {}
        """Peer -> the greatest number of its events."""

    def __len__(self) -> int:
        return len(self._events)

    def __contains__(self, cid: bytes) -> bool:
        return cid in self._number

    def __getitem__(self, cid: bytes) -> Event:
        return self._events[self._number[cid]]

    @property
    def heads(self) -> frozenset[bytes]:
        """The events that no other comes after: this clock's time."""
        return frozenset(self._heads)

    def ordered(self) -> list[Event]:
        """All events by height, then CID: causes before effects, and the same order everywhere."""
        if not self._in_order:
            self._ordered.sort(key=_place)
            self._in_order = True
        return self._ordered.copy()

    def before(self, a: bytes, b: bytes) -> bool:
        """Whether `a` happened before `b`. When neither did before the other, they are concurrent (or the same).
        Raises KeyError for an event that is not here."""
        return self._ancestry.before(self._number[a], self._number[b])

    def missing(self, cids: Iterable[bytes]) -> list[bytes]:
        """Those of these events that are not here."""
        return [cid for cid in cids if cid not in self._number]

    # --- own events --------------------------------------------------------------------------------------------

    def append(self, kind: str, payload: dict[str, Any], signer: Signer) -> Event:
        """Make the next event, after all that are here. Raises BadEventError when it would be none: a payload that is
        too large, or holds a float or bytes that are no link."""
        if len(self._events) >= MAX_EVENTS:
            raise BadEventError("TOO_MANY", f"there are {MAX_EVENTS} events")
        parents = self._next_parents()
        height = 1 + max((self[parent].height for parent in parents), default=0)
        seq = self.next_seq(signer.peer, parents)
        event = self._shared(made(kind, payload, signer, parents=parents, height=height, seq=seq))
        self._put(event)
        return event

    def merged(self, signer: Signer, *, at: int) -> Event:
        """The one head, made when there are several. `at` is the time in milliseconds."""
        if not self._heads:
            raise BadEventError("PARENTS", "there is no event yet")
        while len(self._heads) > 1:
            self.append("merged", {"at": at}, signer)
        return self[next(iter(self._heads))]

    def _next_parents(self) -> list[bytes]:
        if len(self._heads) <= MAX_PARENTS:
            return sorted(self._heads)
        highest = sorted(self._heads, key=lambda cid: (-self[cid].height, cid))
        return sorted(highest[:MAX_PARENTS])

    def next_seq(self, peer: str, parents: Collection[bytes]) -> int:
        """The number of this peer's next event, if it comes right after these."""
        if len(parents) == 1:
            (parent,) = map(self.__getitem__, parents)
            if parent.peer == peer:
                return parent.seq + 1
        reach = self._ancestry.reach(self._number[parent] for parent in parents)
        return 1 + max((self._events[number].seq for number in self._ancestry.last_of(reach, peer)), default=0)

    # --- events of others --------------------------------------------------------------------------------------

    def add(
        self, node: bytes, payload_block: bytes, *, cid: bytes | None = None, trusted: bool = False
    ) -> Event | None:
        """Take an event over; None when it is here already. `cid` is what it is said to be. Of what is `trusted` (it
        comes from the own store) the signature is not checked again.

        Raises MissingParentsError when its parents have to come first, and BadEventError when it is not sound.
        """
        own = cid_of(node)
        if cid is not None and cid != own:
            raise BadEventError("CID", "the CID is that of other bytes", cid)
        if own in self._number:
            return None
        return self._add(read_event(own, node, payload_block, trusted=trusted))

    def merge(self, events: Iterable[tuple[bytes, bytes]]) -> Merged:
        """Take over events in any order, each as its two blocks (`Event.blocks`). One that is not sound does not keep
        the others out. Those whose parents are missing wait here, for a merge after their parents have come."""
        added: list[Event] = []
        refused: list[BadEventError] = []
        batch, self._waiting = self._waiting, {}
        for node, payload_block in events:
            cid = cid_of(node)
            if cid in self._number or cid in batch:
                continue
            try:
                batch[cid] = read_event(cid, node, payload_block, trusted=False)
            except BadEventError as error:
                refused.append(error)
        # Parents before children, if the heights are true; _add sees to that.
        for read in sorted(batch.values(), key=_place_of_read):
            try:
                added.append(self._add(read))
            except MissingParentsError:
                self._waiting[read.cid] = read
            except BadEventError as error:
                refused.append(error)
        refused += self._refuse_waiting()
        missing = {parent for read in self._waiting.values() for parent in self.missing(read.fields.parents)}
        return Merged(added, frozenset(missing - self._waiting.keys()), refused)

    def following(self, peer: str, events: Iterable[tuple[bytes, bytes]]) -> list[Event]:
        """What this peer made since its last event that is here, from its blocks, oldest first; those that are here
        already are left out. Nothing is taken over yet. Raises `BadEventError` when one of them is not sound, is not
        this peer's, comes after what is not here, or does not come after all that the peer made before."""
        found: dict[bytes, Event] = {}
        for node, payload_block in events:
            cid = cid_of(node)
            if cid in self._number or cid in found:
                continue
            event = event_of(read_event(cid, node, payload_block, trusted=False))
            if event.peer != peer:
                raise BadEventError("PEER", f"it was made by {event.peer}, not by {peer}", cid)
            before = [self[parent] if parent in self._number else found.get(parent) for parent in event.parents]
            parents = [parent for parent in before if parent is not None]
            if len(parents) < len(before):
                raise MissingParentsError(
                    cid, [parent for parent in self.missing(event.parents) if parent not in found]
                )
            if event.height != 1 + max((parent.height for parent in parents), default=0):
                raise BadEventError("HEIGHT", "its height is not one more than its parents'", cid)
            reached = max((parent.seq for parent in parents if parent.cid in found), default=0)
            here = [parent.cid for parent in parents if parent.cid not in found]
            last = self._last_seq.get(peer, 0) + len(found)
            if not event.seq == last + 1 == max(reached + 1, self.next_seq(peer, here)):
                raise BadEventError("SEQ", "it does not come after all that its peer made before", cid)
            found[cid] = event
        if len(self._events) + len(found) > MAX_EVENTS:
            raise BadEventError("TOO_MANY", f"there are {MAX_EVENTS} events")
        return list(found.values())

    def follow(self, events: Iterable[Event]) -> list[Event]:
        """Take over what `following` has just given."""
        added = []
        for event in events:
            added.append(self._shared(event))
            self._put(added[-1])
        return added

    def _refuse_waiting(self) -> Iterable[BadEventError]:
        """Those that say they come before their own parents, and the last ones of too many."""
        for read in list(self._waiting.values()):
            if not self.missing(read.fields.parents):
                del self._waiting[read.cid]
                yield BadEventError("HEIGHT", "its height is not one more than its parents'", read.cid)
        for cid in list(self._waiting)[MAX_WAITING:]:
            del self._waiting[cid]
            yield BadEventError("TOO_MANY", f"{MAX_WAITING} others wait for their parents already", cid)

    def _add(self, read: Read) -> Event:
        cid, fields = read.cid, read.fields
        if missing := self.missing(fields.parents):
            raise MissingParentsError(cid, missing)
        if fields.height != 1 + max((self[parent].height for parent in fields.parents), default=0):
            raise BadEventError("HEIGHT", "its height is not one more than its parents'", cid)
        if fields.seq != self.next_seq(fields.peer, fields.parents):
            raise BadEventError("SEQ", "its number does not follow that of its peer's event before it", cid)
        if len(self._events) >= MAX_EVENTS:
            raise BadEventError("TOO_MANY", f"there are {MAX_EVENTS} events", cid)
        event = self._shared(event_of(read))
        self._put(event)
        return event

    def _shared(self, event: Event) -> Event:
        """The same few texts and links again and again: one object for each."""
        return msgspec.structs.replace(
            event,
            kind=sys.intern(event.kind),
            parents=tuple(self[parent].cid for parent in event.parents),
            peer=sys.intern(event.peer),
        )

    def _put(self, event: Event) -> None:
        self._ancestry.add([self._number[parent] for parent in event.parents], event.height, event.peer)
        self._number[event.cid] = len(self._events)
        self._events.append(event)
        self._last_seq[event.peer] = max(event.seq, self._last_seq.get(event.peer, 0))
        self._heads.difference_update(event.parents)
        self._heads.add(event.cid)
        if self._ordered and _place(event) < _place(self._ordered[-1]):
            self._in_order = False
        self._ordered.append(event)


def _place(event: Event) -> tuple[int, bytes]:
    return event.height, event.cid


def _place_of_read(read: Read) -> tuple[int, bytes]:
    return read.fields.height, read.cid
