# SPDX-License-Identifier: AGPL-3.0-or-later
"""Opaque cursors over sorted lists.

A cursor holds the last name of the page before, so that it stays right when the list changes between two pages, and a
signature, so that only cursors that were given out are taken, by any gateway with the same secret.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

from actors.jsonrpc import INVALID_PARAMS
from gateway.mcp.jsonrpc import McpError

_MAC_BYTES: Final = 8
_PURPOSE: Final = b"greenroom mcp cursor 1\n"


class Pages:
    """Cuts a sorted list into pages."""

    def __init__(self, secret: bytes, size: int) -> None:
        self._key = secret
        self._size = size

    def bounds(self, names: Sequence[str], cursor: str | None) -> tuple[int, int]:
        """First and last + 1 index of the page that a cursor asks for; None and '' ask for the first one.

        `names` is the sorted list; it is not looked at for the first page. Raises INVALID_PARAMS.
        """
        start = bisect_right(names, self._last_name(cursor)) if cursor else 0
        return start, start + self._size

    def cursor(self, last_name: str) -> str:
        """The cursor for the page after this name."""
        name = last_name.encode()
        return base64.urlsafe_b64encode(self._mac(name) + name).decode()

    def _last_name(self, cursor: str) -> str:
        try:
            data = base64.b64decode(cursor, altchars=b"-_", validate=True)
            mac, name = data[:_MAC_BYTES], data[_MAC_BYTES:]
            if hmac.compare_digest(mac, self._mac(name)):
                return name.decode()
        except (binascii.Error, ValueError):
            pass
        raise McpError(INVALID_PARAMS, "unknown cursor; list again without one")

    def _mac(self, name: bytes) -> bytes:
        return hmac.digest(self._key, _PURPOSE + name, "sha256")[:_MAC_BYTES]
