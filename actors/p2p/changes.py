# SPDX-License-Identifier: AGPL-3.0-or-later
"""Telling somebody which of many things changed, as fast as that one reads, and nothing twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NoReturn

import trio

from actors.calls import IncomingCall, Message

MOST_CHANGED: Final = 10_000
"""Ids in one message; more are told as "any"."""
SLOW_READER_S: Final = 0.05
"""Between two attempts to send to one who reads too slowly."""


class Watcher:
    """One who wants to hear of changes."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._any = False
        self._some = trio.Event()

    def add(self, ids: Iterable[str]) -> None:
        """These changed."""
        self._ids.update(ids)
        if len(self._ids) > MOST_CHANGED:
            self._any = True
            self._ids.clear()
        self._some.set()

    async def tell(self, call: IncomingCall, item: Callable[[list[str]], Message]) -> NoReturn:
        """Send what `item` makes of the ids, as items of the call; no ids = any may have changed. Until cancelled."""
        while True:
            await self._some.wait()
            if call.item(item([] if self._any else list(self._ids))):
                self._ids.clear()
                self._any = False
                self._some = trio.Event()
            else:
                await trio.sleep(SLOW_READER_S)
