# SPDX-License-Identifier: AGPL-3.0-or-later
"""Peers with keys, and events made by hand."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

import libipld
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from actors.p2p.identity import NodeSigner


@cache
def signer(name: str) -> NodeSigner:
    """Always the same key for a name."""
    return NodeSigner(Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest()))


def cid(block: bytes, codec: int = 0x71) -> bytes:
    return bytes([1, codec, 0x12, 0x20]) + hashlib.sha256(block).digest()


def made(
    kind: str = "made",
    payload: Any = None,
    *,
    parents: list[bytes] = [],  # noqa: B006
    height: int = 1,
    by: str = "ann",
    seq: int = 1,
    **other: Any,
) -> tuple[bytes, bytes]:
    """The two blocks of an event with a good signature, whatever else is wrong with it."""
    block = libipld.encode_dag_cbor({"at": 1} if payload is None else payload)
    fields = {"v": 1, "kind": kind, "payload": cid(block), "parents": parents, "height": height}
    fields |= {"peer": signer(by).peer, "seq": seq} | other
    if "sig" not in fields:
        fields["sig"] = signer(by).sign(libipld.encode_dag_cbor(fields))
    return libipld.encode_dag_cbor(fields), block
