# SPDX-License-Identifier: AGPL-3.0-or-later
"""Who wants to hear that workflows changed."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import trio

from actors.p2p.changes import Watcher


class Watchers:
    """All of them."""

    def __init__(self) -> None:
        self._of_all: set[Watcher] = set()
        self._of_one: dict[str, set[trio.Event]] = {}

    def changed(self, workflow_id: str) -> None:
        """Tell them."""
        for watcher in self._of_all:
            watcher.add([workflow_id])
        for event in self._of_one.get(workflow_id, ()):
            event.set()

    @contextmanager
    def watch(self) -> Generator[Watcher, None, None]:
        """Hear of all."""
        watcher = Watcher()
        self._of_all.add(watcher)
        try:
            yield watcher
        finally:
            self._of_all.discard(watcher)

    @contextmanager
    def change_of(self, workflow_id: str) -> Generator[trio.Event, None, None]:
        """What is set with the next change of this workflow."""
        event = trio.Event()
        self._of_one.setdefault(workflow_id, set()).add(event)
        try:
            yield event
        finally:
            events = self._of_one[workflow_id]
            events.discard(event)
            if not events:
                del self._of_one[workflow_id]
