# SPDX-License-Identifier: AGPL-3.0-or-later
"""This node's identity: an Ed25519 key on disk, readable by the user alone, and the libp2p peer id that follows from
it.

The peer id is the base58 form of an identity multihash over the protobuf form of the public key
(https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md).
"""

from __future__ import annotations

import os
from pathlib import Path

import base58
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from actors.errors import UnavailableError

_KEY_FILE = "peer.key"
_PROTOBUF_ED25519 = b"\x08\x01\x12\x20"
_IDENTITY_MULTIHASH = b"\x00\x24"


def load_or_create_key(data_dir: Path) -> Ed25519PrivateKey:
    """The node's key; made on first use. Raises `UnavailableError` when the file holds something else."""
    path = data_dir / _KEY_FILE
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        try:
            return Ed25519PrivateKey.from_private_bytes(path.read_bytes())
        except ValueError:
            raise UnavailableError(
                f"{path} holds no key of 32 bytes; restore it, or remove it to become a new peer"
            ) from None
    key = Ed25519PrivateKey.generate()
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()))
    return key


def peer_id(key: Ed25519PrivateKey) -> str:
    """The peer id of this key, as others write it: `12D3KooW...`."""
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return base58.b58encode(_IDENTITY_MULTIHASH + _PROTOBUF_ED25519 + public).decode()
