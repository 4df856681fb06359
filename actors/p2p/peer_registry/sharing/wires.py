# SPDX-License-Identifier: AGPL-3.0-or-later
"""What sharing needs of the connections with other nodes."""

from __future__ import annotations

from typing import Protocol, overload

from actors.p2p.peer_registry.link.messages import Accepted, Note, Offer, Refused, ResultTaken, TaskResult


class Wire(Protocol):
    """A connection with one other node, whose identity is proven."""

    peer_id: str

    @overload
    async def call(self, request: Offer, timeout_s: float) -> Accepted | Refused: ...
    @overload
    async def call(self, request: TaskResult, timeout_s: float) -> ResultTaken: ...

    def note(self, message: Note) -> bool:
        """Tell without an answer. False when it was dropped."""


class Wires(Protocol):
    """All of them."""

    def get(self, peer_id: str) -> Wire | None:
        """The one with this node, while there is one."""

    async def changed(self) -> None:
        """Return when one came or went."""
