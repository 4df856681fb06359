# SPDX-License-Identifier: AGPL-3.0-or-later
"""News for clients from any code of a pool process: a resource has other contents, a list should be read again.

`resource_changed` and `list_changed` may be called from any thread and never wait. What was said is gathered, so that a
hundred changes of one resource in a moment are one piece of news, and sent at most every `PAUSE_S` by the process's
actor. Nothing is lost when much changes at once: beyond `MAX_URIS` "any resource" is sent. There is one collection per
process, because code that knows of a change need not know of a call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import trio

from actors.tool_messages import Changed, Kind
from actors.uris import check_uri

PAUSE_S: Final = 0.05
"""Seconds between two pieces of news."""
MAX_URIS: Final = 256
"""URIs in one piece of news. 256 of the longest possible ones are far less than a frame may have."""


class Notices:
    """What has changed and was not sent yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._uris: dict[str, None] = {}
        self._any = False
        self._lists: set[Kind] = set()
        self._loop: trio.lowlevel.TrioToken | None = None
        self._some = trio.Event()

    def resource(self, uri: str) -> None:
        """Note a change. Raises `actors.uris.UriError` for what is no URI."""
        check_uri(uri)
        with self._lock:
            if len(self._uris) < MAX_URIS:
                self._uris[uri] = None
            elif uri not in self._uris:
                self._any = True
        self._rouse()

    def list(self, kind: Kind) -> None:
        """Note that a list should be read again."""
        if kind not in ("tools", "resources", "prompts"):
            raise ValueError(f"there is no list of {kind!r}; there are: tools, resources, prompts")
        with self._lock:
            self._lists.add(kind)
        self._rouse()

    def take(self) -> Changed | None:
        """All that was noted, once. None when there is nothing."""
        with self._lock:
            if not (self._uris or self._lists):
                return None
            uris, lists, any_uri = list(self._uris), sorted(self._lists), self._any
            self._uris, self._lists, self._any = {}, set(), False
        return Changed(uris=[] if any_uri else uris, any_uri=any_uri, lists=lists)

    def _rouse(self) -> None:
        loop = self._loop
        if loop is not None:
            # The process is about to end, and with it its connections.
            with suppress(trio.RunFinishedError):
                loop.run_sync_soon(self._some.set, idempotent=True)

    async def send(self, post: Callable[[Changed], object], has_room: Callable[[], bool] = lambda: True) -> None:
        """Hand all news to `post`, until cancelled. One at a time per process. While `has_room` denies they gather."""
        self._loop = trio.lowlevel.current_trio_token()
        try:
            while True:
                if not has_room():
                    await trio.sleep(PAUSE_S)
                    continue
                news = self.take()
                if news is not None:
                    post(news)
                    await trio.sleep(PAUSE_S)
                    continue
                await self._some.wait()
                self._some = trio.Event()
        finally:
            self._loop = None


notices: Final = Notices()
"""Those of this process."""


def resource_changed(uri: str) -> None:
    """Tell all clients that subscribed to this resource that it has other contents now.

    For any code in a pool process; `ToolContext.resource_changed` does the same. Outside of one it does nothing.
    """
    notices.resource(uri)


def list_changed(kind: Kind) -> None:
    """Have all clients list the tools, resources or prompts again. What a new process offers is announced by itself."""
    notices.list(kind)
