# SPDX-License-Identifier: AGPL-3.0-or-later
"""One event of a Merkle clock: how it is made, and how one that others made is read. What it is made of is told in
`event_clock.py`."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Annotated, Any, Final, Literal, Protocol

import libipld
import msgspec
from msgspec import Meta

from actors.errors import MCPServerError
from actors.p2p.cids import CID_BYTES, DAG_CBOR, cid_text, is_cid
from actors.p2p.identity import SIGNATURE_LENGTH, verify

MAX_NODE_BYTES: Final = 8 * 1024
MAX_PAYLOAD_BYTES: Final = 64 * 1024
MAX_PARENTS: Final = 100

Fault = Literal[
    "TOO_LARGE",
    "TOO_MANY",
    "MALFORMED",
    "NOT_CANONICAL",
    "CID",
    "PAYLOAD",
    "SIGNATURE",
    "PARENTS",
    "HEIGHT",
    "SEQ",
    "PEER",
    "WORK",
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


class Read(msgspec.Struct, frozen=True):
    """An event that is sound as far as it can be seen without its parents."""

    cid: bytes
    fields: Node
    node: bytes
    payload_block: bytes


def read_event(cid: bytes, node: bytes, payload_block: bytes, *, trusted: bool) -> Read:
    """What these blocks say, once it is sound as far as it can be seen without its parents. Of what is `trusted` the
    signature is not checked. Raises `BadEventError`."""
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
    if cid_of(payload_block) != fields.payload:
        raise BadEventError("PAYLOAD", "its payload is another", cid)
    if not trusted:
        del decoded["sig"]
        if not verify(fields.peer, libipld.encode_dag_cbor(decoded), fields.sig):
            raise BadEventError("SIGNATURE", "it is not signed by its peer", cid)
    _check_payload(payload_block, cid)
    return Read(cid, fields, node, payload_block)


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


def payload_of(payload: dict[str, Any]) -> bytes:
    """The block of a payload. Raises `BadEventError` when it can be none."""
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


def made(
    kind: str, payload: dict[str, Any], signer: Signer, *, parents: Collection[bytes], height: int, seq: int
) -> Event:
    """A new event. Whoever makes it knows its place: where others come before it, `height` and `seq` follow theirs.
    Raises `BadEventError` when it would be none: a payload that is too large, or holds a float or bytes that are no
    link."""
    block = payload_of(payload)
    fields: dict[str, Any] = {
        "v": 1,
        "kind": kind,
        "payload": cid_of(block),
        "parents": sorted(parents),
        "height": height,
        "peer": signer.peer,
        "seq": seq,
    }
    fields["sig"] = signer.sign(libipld.encode_dag_cbor(fields))
    node: bytes = libipld.encode_dag_cbor(fields)
    return event_of(Read(cid_of(node), msgspec.convert(fields, Node), node, block))


def event_of(read: Read) -> Event:
    """What was read, as an event."""
    fields = read.fields
    return Event(
        cid=read.cid,
        kind=fields.kind,
        parents=tuple(fields.parents),
        height=fields.height,
        peer=fields.peer,
        seq=fields.seq,
        node=read.node,
        payload_block=read.payload_block,
    )


def cid_of(block: bytes) -> bytes:
    """The CID of a block of DAG-CBOR."""
    return DAG_CBOR + hashlib.sha256(block).digest()
