# SPDX-License-Identifier: AGPL-3.0-or-later
"""What this package needs of the place that keeps the subscriptions of sessions beyond the life of a gateway."""

from __future__ import annotations

from typing import Protocol


class NotKeptError(Exception):
    """The subscriptions can't be read or written at the moment. The text says why."""


class KeptSubscriptions(Protocol):
    """All gateways' subscriptions, by the session's nonce. Every method may raise `NotKeptError`."""

    async def add(self, session: bytes, uri: str, ends_at: float, /) -> None:
        """Keep one. `ends_at`: seconds since 1970; the session's id is stale then."""
        ...

    async def remove(self, session: bytes, uri: str, /) -> None:
        """Forget one, if it is there."""
        ...

    async def end(self, session: bytes, /) -> None:
        """Forget all of a session."""
        ...

    async def read(self, session: bytes, /) -> set[str]:
        """The URIs of a session."""
        ...
