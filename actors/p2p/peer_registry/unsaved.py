# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which entries of a bounded table differ from what is stored of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable


class Unsaved:
    """Keys that were changed or dropped. Bounded: with more than `most` dropped ones it is only remembered that what
    is stored has to be compared with the whole table."""

    def __init__(self, most: int, on_change: Callable[[], None] = lambda: None) -> None:
        self._most = most
        self.on_change = on_change
        self._put: dict[str, None] = {}
        self._gone: set[str] = set()
        self._many_gone = False

    def __bool__(self) -> bool:
        return bool(self._put or self._gone or self._many_gone)

    def put(self, key: str) -> None:
        """An entry is new or differs."""
        self._put[key] = None
        self._gone.discard(key)
        self.on_change()

    def drop(self, key: str) -> None:
        """An entry has gone."""
        self._put.pop(key, None)
        if not self._many_gone:
            self._gone.add(key)
            if len(self._gone) > self._most:
                self._many_gone = True
                self._gone.clear()
        self.on_change()

    def take(self, most: int, keys: Iterable[str]) -> tuple[list[str], list[str], list[str] | None]:
        """At most so many that were put, all that were dropped, and the table's `keys` if only those may stay stored.
        They count as saved."""
        put = [key for key, _ in zip(self._put, range(most), strict=False)]
        for key in put:
            del self._put[key]
        gone, only = list(self._gone), list(keys) if self._many_gone else None
        self._gone.clear()
        self._many_gone = False
        return put, gone, only

    def give_back(self, put: Iterable[str], gone: Iterable[str], *, many_gone: bool) -> None:
        """They could not be stored. What was put has to be in the table still, what was dropped must not."""
        self._put.update(dict.fromkeys(put))
        self._many_gone |= many_gone
        for key in gone:
            self.drop(key)
