# SPDX-License-Identifier: AGPL-3.0-or-later
"""The limits of links."""

from __future__ import annotations

import msgspec


class LinkRules(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one link, and of all links of this node. Names that end in `_s` are seconds."""

    max_frame_bytes: int = 1 << 20
    """Of one frame, in either direction; towards the peer also its own limit counts."""
    max_hello_bytes: int = 32 * 1024
    """Of one frame before the peer is known."""
    hello_timeout_s: float = 5.0
    """For the whole hello, from the opened stream on."""

    max_serving: int = 32
    """Requests of the peer that are worked on at once; more are answered "busy"."""
    max_serving_bytes: int = 4 << 20
    """Of their frames together; a single one may exceed it."""
    serve_timeout_s: float = 300.0
    """A handler that takes longer is cancelled."""
    max_waiting: int = 256
    """Calls from here that wait because the peer works on as many as it takes."""
    place_wait_s: float = 1.0
    """So long such a call waits; then it is "busy". It ends the standstill of two peers whose handlers call each
    other."""

    outbox: int = 256
    """Frames that wait for the writer; above it calls and answers wait, notes are dropped."""
    max_queued_bytes: int = 4 << 20
    """The same in bytes; a single frame may exceed it."""
    frames_per_write: int = 64
    bytes_per_write: int = 256 * 1024
    """A single frame may exceed it."""
    stalled_after_s: float = 20.0
    """A peer that takes nothing of a write for so long is given up."""

    heartbeat_s: float = 5.0
    dead_after_s: float = 15.0
    """A peer of which nothing comes for so long is given up; three of its own heartbeats, if that is more."""
    frame_timeout_s: float = 60.0
    """From the first byte of a frame to its last."""
    linger_s: float = 1.0
    """For saying goodbye."""

    max_links: int = 256
    """Those in their hello count, too."""
    max_inbound_links: int = 192
    """Of them; the others are for peers that this node dials."""
    max_hellos: int = 32
    """Inbound links that are in their hello."""
    max_links_per_peer: int = 3
    """At once, while it is being settled which one is kept, or in their hello."""
    drain_s: float = 5.0
    """A link that another one replaces may finish its calls for so long."""
    dials_at_once: int = 8
    dial_timeout_s: float = 10.0
    retry_base_s: float = 0.5
    """Bound of the pause after the first failure; it doubles with each further one. A pause is drawn between half its
    bound and the bound."""
    retry_cap_s: float = 60.0
    steady_after_s: float = 30.0
    """A link that lived so long was a success: the pauses begin anew."""
