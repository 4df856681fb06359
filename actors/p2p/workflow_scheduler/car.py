# SPDX-License-Identifier: AGPL-3.0-or-later
"""CAR files, version 1 (https://ipld.io/specs/transport/car/carv1/): roots, and blocks with their CIDs.

What is written and read here has the CIDs that are made here: version 1, SHA-256, of DAG-CBOR or of bytes as they are.
A file is read whole, within `CarLimits`: what it says of its lengths is not believed before the bytes are there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, Final

import libipld
import msgspec

from actors.errors import MCPServerError
from actors.p2p.cids import CID_BYTES, RAW, is_cid
from actors.workflow_report import MOST_EXPORT_BYTES

PIECE_BYTES: Final = 256 * 1024
_HEAD_BYTES: Final = len(RAW)
_VARINT_BYTES: Final = 9
"""The most that a number of 63 bits takes."""


class CarLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a reader takes."""

    header_bytes: int = 64 * 1024
    block_bytes: int = 80 << 20
    """The outputs of all items of a `for_each` are one block."""
    blocks: int = 3_000_000
    total_bytes: int = MOST_EXPORT_BYTES


class BadCarError(MCPServerError):
    """This is no CAR file, or none within the limits."""

    code = "BAD_CAR"


class Car(msgspec.Struct, frozen=True):
    """What a file holds."""

    roots: list[bytes]
    blocks: dict[bytes, bytes]
    """CID -> bytes, which are what their CID says."""
    damaged: list[bytes]
    """CIDs of blocks that are something else; they are not among `blocks`."""


def written(roots: Iterable[bytes], blocks: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
    """The pieces of a file, none of them larger than `PIECE_BYTES`."""
    header: bytes = libipld.encode_dag_cbor({"version": 1, "roots": list(roots)})
    piece = bytearray(_varint(len(header)) + header)
    for cid, block in blocks:
        piece += _varint(len(cid) + len(block))
        piece += cid
        piece += block
        if len(piece) >= PIECE_BYTES:
            whole = len(piece) - len(piece) % PIECE_BYTES
            for start in range(0, whole, PIECE_BYTES):
                yield bytes(piece[start : start + PIECE_BYTES])
            del piece[:whole]
    if piece:
        yield bytes(piece)


def read(data: bytes, limits: CarLimits | None = None) -> Car:
    """A file's roots and blocks. Raises `BadCarError`."""
    limits = limits or CarLimits()
    if len(data) > limits.total_bytes:
        raise BadCarError(f"the file has {len(data)} bytes; at most {limits.total_bytes} are read")
    length, at = _read_varint(data, 0)
    if length > limits.header_bytes:
        raise BadCarError(f"its header has {length} bytes; at most {limits.header_bytes} are read")
    roots = _roots(_part(data, at, length, "header"))
    at += length
    blocks: dict[bytes, bytes] = {}
    damaged: dict[bytes, None] = {}
    count = 0
    while at < len(data):
        start = at
        length, at = _read_varint(data, at)
        if count >= limits.blocks:
            raise BadCarError(f"it has more than {limits.blocks} blocks")
        if length > limits.block_bytes + CID_BYTES:
            raise BadCarError(f"the block at byte {start} is larger than {limits.block_bytes} bytes")
        part = _part(data, at, length, "block")
        cid, block = part[:CID_BYTES], part[CID_BYTES:]
        if not is_cid(cid):
            raise BadCarError(f"the block at byte {start} is named by a CID of another kind than Greenroom makes")
        if hashlib.sha256(block).digest() == cid[_HEAD_BYTES:]:
            blocks[cid] = block
        else:
            damaged[cid] = None
        count += 1
        at += length
    return Car(roots, blocks, list(damaged))


def _roots(header: bytes) -> list[bytes]:
    try:
        fields: Any = libipld.decode_dag_cbor(header)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict) or not isinstance(fields.get("roots"), list):
        raise BadCarError("it is no CAR file: its header can't be read")
    if fields.get("version") != 1:
        raise BadCarError(f"it is a CAR file of version {str(fields.get('version'))[:20]}; this reads version 1")
    if not all(is_cid(root) for root in fields["roots"]):
        raise BadCarError("one of its roots is a CID of another kind than Greenroom makes")
    roots: list[bytes] = fields["roots"]
    if libipld.encode_dag_cbor({"version": 1, "roots": roots}) != header:
        raise BadCarError("its header is not in the form that a CAR file's has")
    return roots


def _part(data: bytes, at: int, length: int, what: str) -> bytes:
    if length > len(data) - at:
        raise BadCarError(f"it ends within the {what} at byte {at}: it was cut off")
    return data[at : at + length]


def _varint(number: int) -> bytes:
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    made.append(number)
    return bytes(made)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """A number and where it ends. It has to be in its shortest form."""
    number = 0
    for place, byte in enumerate(data[at : at + _VARINT_BYTES]):
        number |= (byte & 0x7F) << (7 * place)
        if not byte & 0x80:
            if byte == 0 and place:
                break
            return number, at + place + 1
    raise BadCarError(f"it is no CAR file, or was cut off: there is no length at byte {at}")
