# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which peer is offered a piece of work: of those that can do it, the ones that its data belongs to by weighted
rendezvous hashing, and of the first of these the one that will be done first. Pure.

Every node that knows the same of the same peers chooses the same, in whatever order it knows them. When a peer leaves,
only its own work goes elsewhere. Peers get work in proportion to their weight.

A choice is an offer, no assignment: only a claim in the queue assigns work.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from typing import Any, Final, Literal

import msgspec

LEAST_WEIGHT: Final = 1e-9
"""A peer that is worth less is not chosen at all."""
MOST_WEIGHT: Final = 1e9
MOST_SHOWN: Final = 8
"""Peers in what is stored of a choice."""
_U64: Final = float(1 << 64)

LeftOut = Literal["capabilities", "silent", "trust", "draining", "banned", "worthless"]
"""Why a peer is no candidate for some work; `silent`: no heartbeat for too long."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A peer, as its dispatcher sees it at this moment."""

    peer_id: str
    capabilities: frozenset[str] = frozenset()
    silent_s: float = 0.0
    """Since its last heartbeat."""
    reputation: float = 0.5
    """0 to 1."""
    success: float = 1.0
    """Moving average of its successes, 0 to 1."""
    draining: bool = False
    banned: bool = False
    speed: float | None = None
    """Tasks per second; None = not measured."""
    queue: int = 0
    """Tasks that it has, as its last heartbeat said."""
    in_flight: int = 0
    """What this dispatcher gave it since."""
    run_s: float = 0.0
    """How long the work is expected to run there."""
    fetch_s: float = 0.0
    """How long it takes it to get the data; 0 = it has them."""


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """What the work asks of a peer."""

    capabilities: frozenset[str] = frozenset()
    silent_most_s: float = 15.0
    """Three intervals of heartbeats."""
    trust_floor: float = 0.0
    """The least reputation."""
    unmeasured_speed: float = 1.0
    """What a peer is taken for, in tasks per second, whose speed was not measured. Where this follows the speeds of the
    others, work moves a little when they change."""


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate that may have the work."""

    peer_id: str
    weight: float
    score: float
    """Of the rendezvous; the largest has the first rank."""
    eta_s: float
    """When the work would be done there, in seconds from now."""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Who is offered a piece of work."""

    affinity: bytes
    d: int
    ranked: list[Scored]
    """All that may have it, by rank."""
    offers: list[str]
    """Whom to offer it, one after the other while they refuse: the soonest of the first `d`, then the others of these
    by rank. When all refused, the work goes back to the queue. Empty = nobody can have it."""
    left_out: dict[str, LeftOut]
    """Peers that can't have it."""

    @property
    def chosen(self) -> str | None:
        """Who is offered it first."""
        return self.offers[0] if self.offers else None

    def record(self) -> dict[str, Any]:
        """What is stored of it in the event of an assignment: JSON, bounded."""
        counts: dict[str, int] = {}
        for reason in self.left_out.values():
            counts[reason] = counts.get(reason, 0) + 1
        return {
            "rule": "weighted-rendezvous-1",
            "d": self.d,
            "candidates": [
                {"peer": one.peer_id, "weight": one.weight, "score": one.score, "eta_s": one.eta_s}
                for one in self.ranked[: max(self.d, MOST_SHOWN)]
            ],
            "ranked": len(self.ranked),
            "left_out": dict(sorted(counts.items())),
            "offers": self.offers,
        }


def choose(candidates: Iterable[Candidate], affinity: bytes, need: Need, *, d: int = 2) -> Choice:
    """Choose for work whose data have this CID. `d` is 2; 3 suits a single dispatcher, or loads that are at most 1 s
    old."""
    left_out: dict[str, LeftOut] = {}
    ranked: list[Scored] = []
    for one in candidates:
        reason = _unfit(one, need)
        if reason is not None:
            left_out[one.peer_id] = reason
            continue
        weight = weight_of(one, need)
        ranked.append(
            Scored(
                peer_id=one.peer_id,
                weight=weight,
                score=rendezvous(affinity, one.peer_id, weight),
                eta_s=eta(one, need),
            )
        )
    ranked.sort(key=lambda scored: (-scored.score, scored.peer_id))
    first = ranked[:d]
    soonest = min(first, key=lambda scored: scored.eta_s, default=None)  # of equal ones the first by rank
    offers = [] if soonest is None else [soonest.peer_id, *(one.peer_id for one in first if one is not soonest)]
    return Choice(affinity=affinity, d=d, ranked=ranked, offers=offers, left_out=left_out)


def _unfit(one: Candidate, need: Need) -> LeftOut | None:
    if one.banned:
        return "banned"
    if one.draining:
        return "draining"
    if not need.capabilities <= one.capabilities:
        return "capabilities"
    if not one.silent_s <= need.silent_most_s:
        return "silent"
    if not one.reputation >= need.trust_floor:
        return "trust"
    return None if weight_of(one, need) >= LEAST_WEIGHT else "worthless"


def _speed(one: Candidate, need: Need) -> float:
    return need.unmeasured_speed if one.speed is None else one.speed


def weight_of(one: Candidate, need: Need) -> float:
    """Its share of the work, against the other weights: speed x success; 0 for what is no number."""
    weight = _speed(one, need) * one.success
    return min(weight, MOST_WEIGHT) if weight > 0.0 else 0.0


def eta(one: Candidate, need: Need) -> float:
    """Seconds until the work would be done there."""
    return (one.queue + one.in_flight) / _speed(one, need) + one.run_s + one.fetch_s


def rendezvous(affinity: bytes, peer_id: str, weight: float) -> float:
    """`-weight / ln(u)`, where u is uniform in (0, 1) and follows from the CID and the peer alone."""
    text = len(affinity).to_bytes(4, "big") + affinity + peer_id.encode()
    number = int.from_bytes(hashlib.sha256(text).digest()[:8], "big")
    # Close to 1 the logarithm of the rounded u would be 0.
    if number >> 63:
        return -weight / math.log1p(-((1 << 64) - number - 0.5) / _U64)
    return -weight / math.log((number + 0.5) / _U64)
