# SPDX-License-Identifier: AGPL-3.0-or-later
"""This node's identity: an Ed25519 key on disk, readable by the user alone, the libp2p peer id that follows from it,
and what is signed with it.

The peer id is the base58 form of an identity multihash over the protobuf form of the public key
(https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md): so it is all that is needed to check a signature.
Signatures are written as base64url without padding.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Final

import base58
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from actors.errors import UnavailableError

SIGNATURE_LENGTH: Final = 86
"""Characters of a signature."""

_KEY_FILE = "peer.key"
_PROTOBUF_ED25519 = b"\x08\x01\x12\x20"
_IDENTITY_MULTIHASH = b"\x00\x24"
_PEER_ID_HEAD = _IDENTITY_MULTIHASH + _PROTOBUF_ED25519
_PEER_ID_LENGTH = 52


def load_or_create_key(data_dir: Path) -> Ed25519PrivateKey:
    """The node's key; made on first use. Raises `UnavailableError` when the file holds something else."""
    path = data_dir / _KEY_FILE
    if not path.exists():
        _create(path)
    try:
        return Ed25519PrivateKey.from_private_bytes(path.read_bytes())
    except ValueError:
        raise UnavailableError(
            f"{path} holds no key of 32 bytes; restore it, or remove it to become a new peer"
        ) from None


def _create(path: Path) -> None:
    """Put a new key there whole, unless another process was faster."""
    key = Ed25519PrivateKey.generate().private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=path.name)  # readable by this user alone
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(key)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        Path(draft).unlink()


def peer_id(key: Ed25519PrivateKey) -> str:
    """The peer id of this key, as others write it: `12D3KooW...`."""
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return base58.b58encode(_PEER_ID_HEAD + public).decode()


class NodeSigner:
    """Signs in the name of a node."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self.peer = peer_id(key)
        """Its peer id."""
        self._key = key

    def sign(self, data: bytes) -> str:
        """The signature of these bytes."""
        return _as_text(self._key.sign(data))


def verify(peer: str, data: bytes, signature: str) -> bool:
    """Whether the node with this peer id signed these bytes. False also for what is no peer id or no signature."""
    public = _public_key(peer)
    if public is None or len(signature) != SIGNATURE_LENGTH:
        return False
    try:
        raw = base64.urlsafe_b64decode(signature + "==")
    except (binascii.Error, ValueError):
        return False
    if _as_text(raw) != signature:  # the last character has bits that mean nothing
        return False
    try:
        public.verify(raw, data)
    except InvalidSignature:
        return False
    return True


def _as_text(signature: bytes) -> str:
    return base64.urlsafe_b64encode(signature).rstrip(b"=").decode()


@lru_cache(maxsize=1024)
def _public_key(peer: str) -> Ed25519PublicKey | None:
    if len(peer) != _PEER_ID_LENGTH:
        return None
    try:
        raw = base58.b58decode(peer)
        if raw[: len(_PEER_ID_HEAD)] != _PEER_ID_HEAD or base58.b58encode(raw).decode() != peer:
            return None
        return Ed25519PublicKey.from_public_bytes(raw[len(_PEER_ID_HEAD) :])
    except ValueError:
        return None
