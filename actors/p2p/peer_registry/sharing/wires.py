# SPDX-License-Identifier: AGPL-3.0-or-later
"""What sharing needs of the connections with other nodes."""

from __future__ import annotations

from typing import Protocol

from actors.p2p.peer_registry.sharing.messages import Answer, Note, Request


class Wire(Protocol):
    """A connection with one other node, whose identity is proven."""

    peer_id: str

    async def call(self, request: Request, timeout_s: float) -> Answer:
        """Ask. Raises `MCPServerError`: `OutcomeUnknownError` when it may have been heard."""

    def note(self, note: Note) -> None:
        """Tell without an answer; dropped when the connection ends."""


class Wires(Protocol):
    """All of them."""

    def get(self, peer_id: str) -> Wire | None:
        """The one with this node, while there is one."""

    async def changed(self) -> None:
        """Return when one came or went."""
