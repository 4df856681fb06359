# SPDX-License-Identifier: AGPL-3.0-or-later
"""What is the same has the same name: CIDs (https://github.com/multiformats/cid), as they are made and read here.

All are CIDv1 with SHA-256: of canonical DAG-CBOR, or of bytes as they are (`raw`). Inside they are bytes, at the edge
text. The codec writes bytes that parse as a CID as a link, so links are the only bytes that `link` takes: nobody's data
becomes a link by chance. JSON tells -0.0 from 0.0, these blocks do not.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import libipld

DAG_CBOR: Final = b"\x01\x71\x12\x20"
"""How CIDs of DAG-CBOR begin: version 1, codec, SHA-256, 32 bytes."""
RAW: Final = b"\x01\x55\x12\x20"
CID_BYTES: Final = 36


def link(obj: Any) -> tuple[bytes, bytes]:  # noqa: ANN401 - JSON with links
    """CID and canonical DAG-CBOR of a value: JSON, and CIDs as bytes. Raises `ValueError` for anything else: other
    bytes, NaN and infinities, integers beyond 64 bits, keys that are no text, text that is no Unicode."""
    try:
        _check_bytes(obj)
        block: bytes = libipld.encode_dag_cbor(obj)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return DAG_CBOR + hashlib.sha256(block).digest(), block


def _check_bytes(obj: object) -> None:
    if isinstance(obj, dict):
        for part in obj.values():
            _check_bytes(part)
    elif isinstance(obj, list):
        for part in obj:
            _check_bytes(part)
    elif isinstance(obj, (bytes, bytearray, memoryview)) and not is_cid(obj):
        raise ValueError("it holds bytes that are no CID")


def is_cid(value: object) -> bool:
    """Whether these are the bytes of a CID as it is made here."""
    return isinstance(value, bytes) and len(value) == CID_BYTES and value.startswith((DAG_CBOR, RAW))


def raw_link(data: bytes) -> bytes:
    """The CID of bytes as they are."""
    return RAW + hashlib.sha256(data).digest()


def cid_text(cid: bytes) -> str:
    """A CID as text: `b` and base32."""
    text: str = libipld.encode_cid(cid)
    return text


def cid_of_text(text: str) -> bytes:
    """The CID that a text names. Raises `ValueError` when it is none of those that are made here."""
    try:
        cid: bytes = libipld.decode_multibase(text)[1]
    except Exception as error:
        raise ValueError(f"{text[:100]!r} is no CID") from error
    if not is_cid(cid) or cid_text(cid) != text:
        raise ValueError(f"{text[:100]!r} is no CID of version 1 with SHA-256, in base32")
    return cid
