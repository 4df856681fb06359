# SPDX-License-Identifier: AGPL-3.0-or-later
"""What libp2p counts: whatever peers did, all of it goes back when they are gone."""

from __future__ import annotations

from typing import Any

import msgspec


class Counters(msgspec.Struct, frozen=True):
    """How much of its limits a host uses."""

    inbound: int
    """Connections that others opened, those in their handshake among them."""
    connections: int
    """Places taken in the resource manager."""
    streams: int
    """Places taken in the resource manager."""


def counters(network: Any) -> Counters:  # noqa: ANN401
    """The counters of a swarm."""
    resources = network._resource_manager
    return Counters(
        inbound=network._inbound_limiter.borrowed_tokens,
        connections=resources._current_connections,
        streams=resources._current_streams,
    )
