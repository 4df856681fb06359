# SPDX-License-Identifier: AGPL-3.0-or-later
"""This node's identity: an Ed25519 key on disk, readable by the user alone, and the libp2p peer id that follows from
it.

The peer id is the base58 form of an identity multihash over the protobuf form of the public key
(https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md).
"""

from __future__ import annotations

import contextlib
import os
import tempfile
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
    return base58.b58encode(_IDENTITY_MULTIHASH + _PROTOBUF_ED25519 + public).decode()
