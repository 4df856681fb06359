# SPDX-License-Identifier: AGPL-3.0-or-later
"""When lists and resources changed last, so that a client which had no stream for a while hears of what it missed.

News only say "read it again", so the last change of each thing is all that has to be known. An event's id is its time
by the clock that all processes of a machine share: any gateway can tell what changed since then. What it can't know,
because it started later or because more resources changed than are remembered, counts as changed: a client that reads
once too often is right, one that missed a change is not.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import Final

from actors.tool_messages import Kind

KINDS: Final[tuple[Kind, ...]] = ("tools", "prompts", "resources")
_ID: Final = re.compile(r"news-([0-9]{1,18})-([0-9]{1,19})")
_SLACK_NS: Final = 5_000_000_000
"""Other gateways may have heard of the same change so much earlier or later."""


class News:
    """The changes that one gateway heard of."""

    def __init__(self, gateway: int, most: int, clock: Callable[[], int]) -> None:
        """`gateway`: this process's incarnation. `most`: resources that are remembered. `clock`: nanoseconds, of one
        clock for all processes of this machine that is never set back while it is up."""
        self._gateway = gateway
        self._most = most
        self._clock = clock
        self._last = 0
        start = self.now()
        self._lists = dict.fromkeys(KINDS, start)
        self._uris: OrderedDict[str, int] = OrderedDict()
        self._others = start
        """When resources that are not in `_uris` may have changed last."""

    def now(self) -> int:
        """A time that is later than that of all news so far."""
        self._last = max(self._clock(), self._last + 1)
        return self._last

    def list_changed(self, kind: Kind) -> int:
        """A list is a new one. Returns when."""
        self._lists[kind] = self.now()
        return self._lists[kind]

    def resource_updated(self, uri: str) -> int:
        """A resource has other contents. Returns when."""
        self._uris[uri] = self.now()
        self._uris.move_to_end(uri)
        if len(self._uris) > self._most:
            self._others = self._uris.popitem(last=False)[1]
        return self._last

    def any_resource_updated(self) -> int:
        """Nobody knows which resources have other contents. Returns when."""
        self._uris.clear()
        self._others = self.now()
        return self._others

    def since(self, at: int, uris: Collection[str]) -> tuple[list[Kind], list[str]]:
        """The lists, and of these resources those, that may have changed after a time."""
        lists = [kind for kind, changed in self._lists.items() if changed > at]
        return lists, sorted(uri for uri in uris if self._uris.get(uri, self._others) > at)

    def event_id(self, at: int) -> str:
        """The id of an event that tells what happened up to this time."""
        return f"news-{self._gateway}-{at}"

    def read_event_id(self, text: str) -> int | None:
        """Since when a client that names this id may have missed something; None when the id is none of ours."""
        found = _ID.fullmatch(text)
        if found is None:
            return None
        gateway, at = int(found[1]), int(found[2])
        if at > self.now():
            return 0  # the machine was started again
        return at if gateway == self._gateway else at - _SLACK_NS
