# SPDX-License-Identifier: AGPL-3.0-or-later
"""Values that older nodes encrypt with the shared secret: `{"enc": "fernet-v1", "ct": ...}`. They are only read."""

from __future__ import annotations

import base64
import hashlib
from typing import Any, Final

import msgspec
from cryptography.fernet import Fernet, InvalidToken

from actors.p2p.peer_registry.queue_protocol.words import INVALID_MESSAGE, Refusal

_KIND: Final = "fernet-v1"
_SALT: Final = b"ipfs-accelerate-task-p2p-fernet-v1"


class Opener:
    """Reads what was encrypted with one secret."""

    def __init__(self, secret: str) -> None:
        key = hashlib.sha256(_SALT + secret.encode()).digest()
        self._fernet = Fernet(base64.urlsafe_b64encode(key))

    def opened(self, value: Any) -> Any:  # noqa: ANN401 - JSON
        """What is in it; any other value as it is. Raises `Refusal`."""
        if isinstance(value, str) and value.startswith("{") and _KIND in value[:200]:
            try:
                value = msgspec.json.decode(value)
            except msgspec.DecodeError:
                return value
        if not isinstance(value, dict) or value.get("enc") != _KIND:
            return value
        sealed = value.get("ct")
        if not isinstance(sealed, str):
            raise Refusal(INVALID_MESSAGE, "ct must be text")
        try:
            return msgspec.json.decode(self._fernet.decrypt(sealed.encode()))
        except (InvalidToken, msgspec.DecodeError, UnicodeError, RecursionError):
            raise Refusal(INVALID_MESSAGE, "it was not encrypted with the secret of this node") from None
