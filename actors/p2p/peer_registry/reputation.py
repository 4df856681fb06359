# SPDX-License-Identifier: AGPL-3.0-or-later
"""How far a peer can be relied upon, by what it did: a moving average of its outcomes that time draws back to the
middle. Pure; times are Unix seconds, a reputation is from 0 to 1."""

from __future__ import annotations

from typing import Final

import msgspec


class ReputationRules(msgspec.Struct, frozen=True, kw_only=True):
    """What an outcome weighs."""

    prior: float = 0.5
    """Of a peer that nothing is known of, and what time draws all others to."""
    prior_weight: float = 4.0
    """The prior counts like so many outcomes: a single failure is no verdict."""
    window: float = 50.0
    """About so many outcomes count; what was before fades."""
    half_life_s: float = 6 * 3600.0
    """After so long without an outcome the old ones count half."""
    slow_worth: float = 0.5
    """What a success is worth that took far longer than expected; one in time is worth 1."""
    lie_weight: float = 200.0
    """A result that proves wrong counts like so many failures."""


RULES: Final = ReputationRules()


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of something that a peer was given to do."""

    ok: bool
    """It was done. What the peer is not to blame for (a wrong argument, a cancellation) is no outcome at all."""
    seconds: float | None = None
    """From the offer to the result."""
    expected_s: float | None = None
    """What was expected of it."""
    in_flight: int = 1
    """Things that the peer had from us meanwhile, with this one: how much it does at once."""


class Track(msgspec.Struct, frozen=True, array_like=True):
    """The outcomes of a peer, summed up."""

    good: float = 0.0
    weight: float = 0.0
    """How many outcomes that are."""
    at: float = 0.0
    """When these numbers were right."""


def after(track: Track, outcome: Outcome, now: float, rules: ReputationRules = RULES) -> Track:
    """The track with one outcome more."""
    return _added(track, _worth(outcome, rules), 1.0, now, rules)


def after_lie(track: Track, now: float, rules: ReputationRules = RULES) -> Track:
    """The track of one whose result proved wrong."""
    return _added(track, 0.0, rules.lie_weight, now, rules)


def reputation(track: Track, now: float, rules: ReputationRules = RULES) -> float:
    """From 0 to 1; the prior while there is no outcome."""
    kept = _kept(track, now, rules)
    return (track.good * kept + rules.prior * rules.prior_weight) / (track.weight * kept + rules.prior_weight)


def _worth(outcome: Outcome, rules: ReputationRules) -> float:
    if not outcome.ok:
        return 0.0
    if outcome.seconds is None or not outcome.expected_s or outcome.seconds <= outcome.expected_s:
        return 1.0
    return rules.slow_worth + (1.0 - rules.slow_worth) * outcome.expected_s / outcome.seconds


def _added(track: Track, worth: float, weight: float, now: float, rules: ReputationRules) -> Track:
    kept = _kept(track, now, rules)
    good, whole = track.good * kept + worth * weight, track.weight * kept + weight
    scale = min(1.0, rules.window / whole)
    return Track(good * scale, whole * scale, now)


def _kept(track: Track, now: float, rules: ReputationRules) -> float:
    return float(0.5 ** (max(0.0, now - track.at) / rules.half_life_s))
