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

import hashlib
import sys
from collections.abc import Collection, Iterable
from typing import Annotated, Any, Final, Literal, Protocol

import libipld
import msgspec
from msgspec import Meta

from actors.errors import MCPServerError
from actors.p2p.cids import CID_BYTES, DAG_CBOR, cid_text, is_cid
from actors.p2p.identity import SIGNATURE_LENGTH, verify
from actors.p2p.workflow_scheduler.ancestry import Ancestry

MAX_NODE_BYTES: Final = 8 * 1024
MAX_PAYLOAD_BYTES: Final = 64 * 1024
MAX_PARENTS: Final = 100
MAX_EVENTS: Final = 1_000_000
"""Of one clock."""
MAX_WAITING: Final = 1000
"""Events that are kept while their parents are missing."""

Fault = Literal[
    "TOO_LARGE", "TOO_MANY", "MALFORMED", "NOT_CANONICAL", "CID", "PAYLOAD", "SIGNATURE", "PARENTS", "HEIGHT", "SEQ"
]
Link = Annotated[bytes, Meta(min_length=CID_BYTES, max_length=CID_BYTES)]


class BadEventError(MCPServerError):
    """This is no event of this clock. `fault` says what is wrong; nothing was changed."""

    code = "BAD_EVENT"

    def __init__(self, fault: Fault, message: str, cid: bytes = b"") -> None:
        self.fault: Fault = fault
        self.cid = cid
        super().__init__(f"event {cid_text(cid)}: {message}" if cid else message, fault=fault)
        if cid:
            self.details["cid"] = cid_text(cid)


class MissingParentsError(BadEventError):
    """It may be an event of this clock, but its parents are not there yet."""

    def __init__(self, cid: bytes, missing: Collection[bytes]) -> None:
        self.missing = frozenset(missing)
        super().__init__("PARENTS", f"{len(missing)} of its parents are not known", cid)


class Signer(Protocol):
    """Who makes events."""

    @property
    def peer(self) -> str:
        """Its peer id."""

    def sign(self, data: bytes) -> str:
        """The signature of these bytes, as text."""


class Event(msgspec.Struct, frozen=True, gc=False):
    """One event. Its content is in the two blocks; the other fields repeat what is in `node`."""

    cid: bytes
    kind: str
    parents: tuple[bytes, ...]
    height: int
    peer: str
    seq: int
    node: bytes
    payload_block: bytes

    @property
    def payload(self) -> dict[str, Any]:
        """What is in the payload, decoded anew each time: keep it while you need it."""
        decoded: dict[str, Any] = libipld.decode_dag_cbor(self.payload_block)
        return decoded

    @property
    def blocks(self) -> tuple[bytes, bytes]:
        """What others need to add it to their clock."""
        return self.node, self.payload_block


class Node(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The map in a node."""

    v: Literal[1]
    kind: Annotated[str, Meta(min_length=1, max_length=40)]
    payload: Link
    parents: Annotated[list[Link], Meta(max_length=MAX_PARENTS)]
    height: Annotated[int, Meta(ge=1)]
    peer: Annotated[str, Meta(max_length=100)]
    seq: Annotated[int, Meta(ge=1)]
    sig: Annotated[str, Meta(min_length=SIGNATURE_LENGTH, max_length=SIGNATURE_LENGTH)]


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
        self._waiting: dict[bytes, _Read] = {}

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
        block = _payload_block(payload)
        parents = self._next_parents()
        height = 1 + max((self[parent].height for parent in parents), default=0)
        seq = self._next_seq(signer.peer, parents)
        fields: dict[str, Any] = {
            "v": 1,
            "kind": kind,
            "payload": _cid(block),
            "parents": parents,
            "height": height,
            "peer": signer.peer,
            "seq": seq,
        }
        fields["sig"] = signer.sign(libipld.encode_dag_cbor(fields))
        node: bytes = libipld.encode_dag_cbor(fields)
        event = self._event(msgspec.convert(fields, Node), _cid(node), node, block)
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

    def _next_seq(self, peer: str, parents: Collection[bytes]) -> int:
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
        own = _cid(node)
        if cid is not None and cid != own:
            raise BadEventError("CID", "the CID is that of other bytes", cid)
        if own in self._number:
            return None
        return self._add(_read(own, node, payload_block, trusted=trusted))

    def merge(self, events: Iterable[tuple[bytes, bytes]]) -> Merged:
        """Take over events in any order, each as its two blocks (`Event.blocks`). One that is not sound does not keep
        the others out. Those whose parents are missing wait here, for a merge after their parents have come."""
        added: list[Event] = []
        refused: list[BadEventError] = []
        batch, self._waiting = self._waiting, {}
        for node, payload_block in events:
            cid = _cid(node)
            if cid in self._number or cid in batch:
                continue
            try:
                batch[cid] = _read(cid, node, payload_block, trusted=False)
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

    def _refuse_waiting(self) -> Iterable[BadEventError]:
        """Those that say they come before their own parents, and the last ones of too many."""
        for read in list(self._waiting.values()):
            if not self.missing(read.fields.parents):
                del self._waiting[read.cid]
                yield BadEventError("HEIGHT", "its height is not one more than its parents'", read.cid)
        for cid in list(self._waiting)[MAX_WAITING:]:
            del self._waiting[cid]
            yield BadEventError("TOO_MANY", f"{MAX_WAITING} others wait for their parents already", cid)

    def _add(self, read: _Read) -> Event:
        cid, fields = read.cid, read.fields
        if missing := self.missing(fields.parents):
            raise MissingParentsError(cid, missing)
        if fields.height != 1 + max((self[parent].height for parent in fields.parents), default=0):
            raise BadEventError("HEIGHT", "its height is not one more than its parents'", cid)
        if fields.seq != self._next_seq(fields.peer, fields.parents):
            raise BadEventError("SEQ", "its number does not follow that of its peer's event before it", cid)
        if len(self._events) >= MAX_EVENTS:
            raise BadEventError("TOO_MANY", f"there are {MAX_EVENTS} events", cid)
        event = self._event(fields, cid, read.node, read.payload_block)
        self._put(event)
        return event

    def _event(self, fields: Node, cid: bytes, node: bytes, payload_block: bytes) -> Event:
        # The same few texts and links again and again: one object for each.
        return Event(
            cid=cid,
            kind=sys.intern(fields.kind),
            parents=tuple(self[parent].cid for parent in fields.parents),
            height=fields.height,
            peer=sys.intern(fields.peer),
            seq=fields.seq,
            node=node,
            payload_block=payload_block,
        )

    def _put(self, event: Event) -> None:
        self._ancestry.add([self._number[parent] for parent in event.parents], event.height, event.peer)
        self._number[event.cid] = len(self._events)
        self._events.append(event)
        self._heads.difference_update(event.parents)
        self._heads.add(event.cid)
        if self._ordered and _place(event) < _place(self._ordered[-1]):
            self._in_order = False
        self._ordered.append(event)


class _Read(msgspec.Struct, frozen=True):
    """An event that is sound as far as it can be seen without its parents."""

    cid: bytes
    fields: Node
    node: bytes
    payload_block: bytes


def _read(cid: bytes, node: bytes, payload_block: bytes, *, trusted: bool) -> _Read:
    if len(node) > MAX_NODE_BYTES:
        raise BadEventError("TOO_LARGE", f"its node has {len(node)} bytes, the most are {MAX_NODE_BYTES}", cid)
    decoded = _decoded(node, cid, "node")
    try:
        fields = msgspec.convert(decoded, Node)
    except msgspec.ValidationError as error:
        raise BadEventError("MALFORMED", f"its node is none ({error})", cid) from None
    if any(not link.startswith(DAG_CBOR) for link in (fields.payload, *fields.parents)):
        raise BadEventError("MALFORMED", "it links to what is no DAG-CBOR block", cid)
    if any(a >= b for a, b in zip(fields.parents, fields.parents[1:], strict=False)):
        raise BadEventError("PARENTS", "its parents are not sorted, or one of them is there twice", cid)
    if _cid(payload_block) != fields.payload:
        raise BadEventError("PAYLOAD", "its payload is another", cid)
    if not trusted:
        del decoded["sig"]
        if not verify(fields.peer, libipld.encode_dag_cbor(decoded), fields.sig):
            raise BadEventError("SIGNATURE", "it is not signed by its peer", cid)
    _check_payload(payload_block, cid)
    return _Read(cid, fields, node, payload_block)


def _decoded(block: bytes, cid: bytes, what: str) -> dict[str, Any]:
    """The map in a block. What others write may be the same map in other bytes, which would have another CID."""
    try:
        decoded = libipld.decode_dag_cbor(block)
        again = libipld.encode_dag_cbor(decoded)
    except (ValueError, RecursionError) as error:
        raise BadEventError("MALFORMED", f"its {what} can't be read ({error})", cid) from None
    if again != block:
        raise BadEventError("NOT_CANONICAL", f"its {what} is not in canonical form", cid)
    if not isinstance(decoded, dict):
        raise BadEventError("MALFORMED", f"its {what} is no map", cid)
    return decoded


def _payload_block(payload: dict[str, Any]) -> bytes:
    try:
        block: bytes = libipld.encode_dag_cbor(payload)
    except (ValueError, RecursionError) as error:
        raise BadEventError("MALFORMED", f"the payload can't be written ({error})") from None
    _check_payload(block, b"")
    return block


def _check_payload(block: bytes, cid: bytes) -> None:
    if len(block) > MAX_PAYLOAD_BYTES:
        raise BadEventError("TOO_LARGE", f"its payload has {len(block)} bytes, the most are {MAX_PAYLOAD_BYTES}", cid)
    todo: list[Any] = [_decoded(block, cid, "payload")]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            todo += value.values()
        elif isinstance(value, list):
            todo += value
        elif isinstance(value, float):
            raise BadEventError("MALFORMED", "its payload holds a float", cid)
        elif isinstance(value, bytes) and not is_cid(value):
            raise BadEventError("MALFORMED", "its payload holds bytes that are no link", cid)


def _place(event: Event) -> tuple[int, bytes]:
    return event.height, event.cid


def _place_of_read(read: _Read) -> tuple[int, bytes]:
    return read.fields.height, read.cid


def _cid(block: bytes) -> bytes:
    return DAG_CBOR + hashlib.sha256(block).digest()
