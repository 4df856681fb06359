# SPDX-License-Identifier: AGPL-3.0-or-later
"""Text that a client carries for us and must not change: signed with HMAC-SHA256, for one purpose.

The key is the same in all gateways and over restarts, so that any of them can open what another one sealed. The content
is not hidden from the client.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Final

_MAC_BYTES: Final = hashlib.sha256().digest_size


class Signer:
    """Seals and opens texts of one purpose. `max_length`: characters of a text that is looked at."""

    def __init__(self, secret: bytes, purpose: bytes, max_length: int) -> None:
        self._key = secret
        self._purpose = purpose
        self._max_length = max_length

    def seal(self, payload: bytes) -> str:
        """A text of letters, digits, `-` and `_`."""
        return base64.urlsafe_b64encode(payload + self._mac(payload)).decode().rstrip("=")

    def open(self, token: str) -> bytes | None:
        """What was sealed; None unless this is exactly what `seal` made."""
        if len(token) > self._max_length:
            return None
        try:
            data = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        payload, mac = data[:-_MAC_BYTES], data[-_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(payload)):
            return None
        # Several texts decode to the same bytes; only the one that was issued may pass.
        if base64.urlsafe_b64encode(data).decode().rstrip("=") != token:
            return None
        return payload

    def _mac(self, payload: bytes) -> bytes:
        return hmac.digest(self._key, self._purpose + payload, "sha256")
