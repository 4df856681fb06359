# SPDX-License-Identifier: AGPL-3.0-or-later
"""What peers use of the protocols that we answer on streams: how many streams and requests each has open, and how fast
its messages come. The same counts for a peer over all its streams, and outlive them."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

import msgspec
import trio

MOST_PEERS: Final = 10_000
"""That are remembered; a new one is refused while all of them are in use."""
_ROUNDING: Final = 1e-6
"""Of a message: so much may be missing for one, or whoever waited as long as it was told would be refused again."""


class UseLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Of one peer, unless it says otherwise."""

    streams: int = 32
    requests: int = 64
    """That are being answered."""
    requests_in_all: int = 256
    """That are being answered for all peers together."""
    burst: int = 100
    """Messages that may come at once after a pause."""
    per_s: float = 50.0
    """Messages in the long run."""


class _Use:
    """Of one peer."""

    __slots__ = ("at", "left", "requests", "streams")

    def __init__(self, burst: float, at: float) -> None:
        self.streams = 0
        self.requests = 0
        self.left = burst
        """Messages that may come now, as of `at`."""
        self.at = at


class StreamUse:
    """See the module's text."""

    def __init__(self, limits: UseLimits, now: Callable[[], float] = trio.current_time) -> None:
        self.limits = limits
        self._now = now
        self._peers: dict[str, _Use] = {}
        self._requests = 0

    @contextmanager
    def stream(self, peer_id: str) -> Generator[bool, None, None]:
        """Count a stream while it is open. Gives whether there was room for it; without that it must not be served."""
        use = self._known(peer_id)
        if use is None or use.streams >= self.limits.streams:
            yield False
            return
        use.streams += 1
        try:
            yield True
        finally:
            use.streams -= 1
            self._forget(peer_id, use)

    def spend(self, peer_id: str) -> float:
        """A message has come. 0 = it may be answered; else it may not, and the next one in so many seconds."""
        use = self._peers[peer_id]
        self._fill(use)
        if use.left < 1 - _ROUNDING:
            return (1 - use.left) / self.limits.per_s
        use.left = max(0.0, use.left - 1)
        return 0.0

    def begin(self, peer_id: str) -> bool:
        """A request is to be answered: whether there is room for it. Each that had room has its `end`."""
        use = self._peers[peer_id]
        if use.requests >= self.limits.requests or self._requests >= self.limits.requests_in_all:
            return False
        use.requests += 1
        self._requests += 1
        return True

    def end(self, peer_id: str) -> None:
        """It was answered, or nobody waits for that any more."""
        self._peers[peer_id].requests -= 1
        self._requests -= 1

    @property
    def requests(self) -> int:
        """That are being answered now."""
        return self._requests

    def __len__(self) -> int:
        return len(self._peers)

    def _known(self, peer_id: str) -> _Use | None:
        use = self._peers.get(peer_id)
        if use is None:
            if len(self._peers) >= MOST_PEERS:
                for other, its in list(self._peers.items()):
                    self._forget(other, its)
                if len(self._peers) >= MOST_PEERS:
                    return None
            use = self._peers[peer_id] = _Use(self.limits.burst, self._now())
        return use

    def _forget(self, peer_id: str, use: _Use) -> None:
        """Unless it matters: a peer must not get a new allowance by leaving."""
        self._fill(use)
        if not use.streams and use.left >= self.limits.burst:
            del self._peers[peer_id]

    def _fill(self, use: _Use) -> None:
        now = self._now()
        use.left = min(self.limits.burst, use.left + (now - use.at) * self.limits.per_s)
        use.at = now
