# SPDX-License-Identifier: AGPL-3.0-or-later
"""What is known of a peer. Nothing is invented: what was not measured is None. Times are Unix seconds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from actors.p2p.peer_registry.reputation import Track

MOST_ADDRESSES: Final = 8
MOST_NAMES: Final = 64
"""Capabilities of one peer, and as many protocols."""
NAME_CHARS: Final = 100
ADDRESS_CHARS: Final = 256
ID_CHARS: Final = 128
MOST_POINTS: Final = 144
"""Of one peer's history: the latest."""
POINT_S: Final = 600.0
"""The time that one point of the history sums up."""

_NEW: Final = 0.2
"""What the newest value counts in a moving average."""


class PeerRecord(msgspec.Struct, kw_only=True):
    """What is stored of a peer."""

    peer_id: str
    first_seen: float
    """When it was first heard of."""
    heard_at: float
    """When it was last here, or others told of it."""
    last_seen: float | None = None
    """When it was last here; None = only others told of it."""
    addresses: list[str] = []
    """Multiaddrs, the one that it was last reached at first."""
    capabilities: list[str] = []
    protocols: list[str] = []
    agent: str = ""
    latency_s: float | None = None
    bandwidth_bps: float | None = None
    answered: float | None = None
    task_s: float | None = None
    """Seconds for a task, divided by how many it did at once."""
    successes: int = 0
    failures: int = 0
    lies: int = 0
    track: Track = Track()
    persistent: bool = False


def moved(average: float | None, value: float) -> float:
    """A moving average with one value more."""
    return value if average is None else average + _NEW * (value - average)


def is_peer_id(text: str) -> bool:
    """Whether this may be a peer id: short and plain. Only the secure channel proves one."""
    return 0 < len(text) <= ID_CHARS and text.isascii() and text.isalnum()


def names(given: Iterable[str]) -> list[str]:
    """Capabilities or protocols as they are kept: each once, sorted; too long ones, and those above the number that is
    kept, are left out."""
    fitting = {name for name in given if 0 < len(name) <= NAME_CHARS and name.isprintable()}
    return sorted(fitting)[:MOST_NAMES]


def with_reached(addresses: list[str], address: str) -> list[str]:
    """The addresses, when the peer was just reached at this one."""
    if not _is_address(address):
        return addresses
    return [address, *(one for one in addresses if one != address)][:MOST_ADDRESSES]


def with_heard(addresses: list[str], heard: Iterable[str]) -> list[str]:
    """The addresses, when somebody says that these are the peer's: behind the best one, before older hearsay."""
    fresh = [one for one in dict.fromkeys(heard) if _is_address(one) and one not in addresses][: MOST_ADDRESSES - 1]
    return [*addresses[:1], *fresh, *addresses[1:]][:MOST_ADDRESSES]


def _is_address(text: str) -> bool:
    return text.startswith("/") and len(text) <= ADDRESS_CHARS and text.isascii() and text.isprintable()
