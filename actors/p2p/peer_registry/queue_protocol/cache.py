# SPDX-License-Identifier: AGPL-3.0-or-later
"""Values that peers keep here for each other, in memory: gone with the process, and the longest unused go first when it
is full."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

MOST_KEY_CHARS: Final = 500
_ENTRY_BYTES: Final = 200
"""Of an entry beside its key and value."""


class _Entry(msgspec.Struct):
    text: bytes
    size: int
    until: float | None


class SharedCache:
    """See the module's text."""

    def __init__(self, most_entries: int, most_bytes: int, now: Callable[[], float]) -> None:
        """`most_bytes` of all keys and values; one value may take a quarter of it."""
        self._most_entries = most_entries
        self._most_bytes = most_bytes
        self._now = now
        self._entries: dict[str, _Entry] = {}
        """In the order of their latest use."""
        self._bytes = 0

    @property
    def most_value_bytes(self) -> int:
        """Of one value, as JSON, with its key."""
        return self._most_bytes // 4

    def set(self, key: str, value: Any, ttl_s: float | None) -> bool:  # noqa: ANN401 - JSON
        """Keep a value, for so many seconds or until there is no room. False: it is too large."""
        text = msgspec.json.encode(value)
        size = len(text) + len(key.encode()) + _ENTRY_BYTES
        if size > self.most_value_bytes:
            return False
        self.delete(key)
        self._entries[key] = _Entry(text, size, None if ttl_s is None else self._now() + ttl_s)
        self._bytes += size
        while self._bytes > self._most_bytes or len(self._entries) > self._most_entries:
            self.delete(next(iter(self._entries)))
        return True

    def get(self, key: str) -> tuple[bool, Any]:
        """Whether there is a value, and the value."""
        entry = self._entries.get(key)
        if entry is None:
            return False, None
        if entry.until is not None and entry.until <= self._now():
            self.delete(key)
            return False, None
        self._entries[key] = self._entries.pop(key)
        return True, msgspec.json.decode(entry.text)

    def delete(self, key: str) -> bool:
        """Forget a value; whether there was one."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return False
        self._bytes -= entry.size
        return entry.until is None or entry.until > self._now()

    def __len__(self) -> int:
        return len(self._entries)
