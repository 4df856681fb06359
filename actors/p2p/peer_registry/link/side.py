# SPDX-License-Identifier: AGPL-3.0-or-later
"""What all links of a node have in common on its own side."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from actors.errors import MCPServerError
from actors.p2p.peer_registry.link.hello import INSTANCE_BYTES, About, PeerHello
from actors.p2p.peer_registry.link.messages import Answer, Heartbeat, Note, Request
from actors.p2p.peer_registry.link.rules import LinkRules

if TYPE_CHECKING:
    from actors.p2p.peer_registry.link.link import Link

Handler: TypeAlias = "Callable[[Link, Request], Awaitable[Answer]]"
"""Answers one request of the peer, or raises; cancelled when the peer does not want the answer any more. An
`MCPServerError` is told to the peer, of another error only its type; a `LinkViolation` ends the link."""
OnNote: TypeAlias = "Callable[[Link, Note], None]"
"""Is given each note of the peer, heartbeats included, by the task that reads: it must not wait. A `LinkViolation` from
it ends the link."""


async def _answers_nothing(_: Link, request: Request) -> Answer:
    raise MCPServerError(f"this node answers no {type(request).__name__}")


@dataclass(frozen=True, kw_only=True)
class OwnSide:
    """This node, as its links need it."""

    peer_id: str
    rules: LinkRules = LinkRules()  # noqa: RUF009 - frozen
    secret: bytes | None = field(default=None, repr=False)
    """Shared by the nodes that trust each other; what is given here must be hard to guess, 32 random bytes."""
    instance: bytes = field(default_factory=lambda: os.urandom(INSTANCE_BYTES))
    """Of this process."""
    about: Callable[[str], About] = lambda _: About()
    """What this node offers the peer with this id."""
    accept: Callable[[PeerHello], None] = lambda _: None
    """Raises an `MCPServerError` when there should be no link with this peer; the peer is told its code."""
    handler: Handler = _answers_nothing
    on_note: OnNote = lambda *_: None
    beat: Callable[[], Heartbeat] = Heartbeat
    """What this node's heartbeats say."""
    on_error: Callable[[str, BaseException], None] = lambda *_: None
    """Hears of defects: what `handler`, `on_note`, ... raised by mistake, and during what."""


class LinkStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What is open on a link and what was seen; a snapshot."""

    age_s: float
    """Since the hello was done."""
    open_calls: int
    """Requests that the peer has not answered."""
    waiting_calls: int
    """Calls that this side waits for, those in line included."""
    serving: int
    """Requests of the peer that are worked on."""
    answered_calls: int
    late_answers: int
    """That nobody waited for any more."""
    served: int
    refused: int
    """Requests of the peer that were answered "busy"."""
    frames_in: int
    frames_out: int
    bytes_in: int
    bytes_out: int
    writes: int
    queued_bytes: int
    dropped_notes: int
    """Of this side, because the peer takes them too slowly."""
