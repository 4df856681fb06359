# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which fault comes when, and to whom: a pure function of the seed, the time, the faults and the tree's shape.

Faults come one at a time, each with the time that it is expected to take. No group is given more deaths than its
restart intensity allows, less one for what may happen besides: the run must test the tree, not make it give up.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec

from actors.errors import MCPServerError
from supervisor.chaos.faults import FAULTS, FaultKind

FORK_SERVER = "fork server"
WARM_UP_S = 1.0
_GAP_S = (0.3, 1.0)
_QUICK_S = 0.5
_HANG_EXTRA_S = 1.0
_PATIENCE_S = 3.0
"""A fault that would have to wait longer for its group lets others go first."""
_MARGIN_S = 0.1


class NoFaultFitsError(MCPServerError):
    """The tree's restart intensity, or its parts, allow none of the wanted faults."""

    code = "NO_FAULT_FITS"


class Process(msgspec.Struct, frozen=True):
    """A process of the tree that faults may be aimed at."""

    name: str
    group: str
    spare: bool = False


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What the schedule knows of the tree: names only, no pids, so that the same tree gives the same schedule."""

    processes: list[Process]
    pool: str
    """Base name of the processes that run the chaos tools; '' when there are none."""
    fork_server: bool
    intensity: dict[str, tuple[int, float]]
    """Group -> restarts and seconds, as `supervisor.spec.Intensity`."""
    hung_after_s: float
    ready_timeout_s: float
    own: bool = False


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One fault to come."""

    number: int
    at_s: float
    """From the beginning of the run."""
    fault: str
    target: str = ""
    """A process's name; '' = nobody in particular."""
    parameter: str = ""


class _Budget:
    """Deaths that were given to each group, in the order of time."""

    def __init__(self, intensity: dict[str, tuple[int, float]]) -> None:
        self._intensity = intensity
        self._deaths: dict[str, list[float]] = {}

    def allows(self, group: str, deaths: int) -> bool:
        return not deaths or deaths <= self._allowed(group)

    def _allowed(self, group: str) -> int:
        restarts, _ = self._intensity[group]
        return restarts - 1 if restarts > 1 else restarts

    def earliest(self, group: str, at: float, deaths: int) -> float:
        """The first time from `at` on when the group can take so many deaths."""
        if not deaths:
            return at
        room = self._allowed(group) - deaths
        _, within_s = self._intensity[group]
        earlier = self._deaths.get(group, [])
        if len(earlier) <= room:
            return at
        # The oldest ones have to be forgotten by then.
        return max(at, earlier[len(earlier) - room - 1] + within_s + _MARGIN_S)

    def spend(self, group: str, at: float, deaths: int) -> None:
        self._deaths.setdefault(group, []).extend([at] * deaths)


def make_schedule(seed: int, seconds: float, faults: Sequence[str], shape: Shape) -> list[Step]:
    """All faults of a run of so many seconds, in order. The same arguments give the same list.

    Raises `NoFaultFitsError` when there is nothing to inject.
    """
    chance = random.Random(seed)  # noqa: S311
    budget = _Budget(shape.intensity)
    kinds = [FAULTS[name] for name in FAULTS if name in faults and _fits(FAULTS[name], shape, budget)]
    if not kinds:
        raise NoFaultFitsError(
            "none of these faults can be injected here: the tree lacks the part that they need, or "
            "supervisor.restarts leaves no room for a death; try --own"
        )
    steps: list[Step] = []
    bag: list[tuple[FaultKind, Process | None]] = []
    at = WARM_UP_S
    while True:
        at += chance.uniform(*_GAP_S)
        if not bag or min(_times(bag, budget, at)) > at + _PATIENCE_S:
            # Harmless ones go on while the deadly ones wait for their group.
            fresh = [kind for kind in kinds if not any(kind is waiting for waiting, _ in bag)]
            bag += [(kind, _target(kind, shape, budget, chance)) for kind in chance.sample(fresh, len(fresh))]
        kind, target, at = _next(bag, budget, at)
        if at + duration_s(kind, shape) > seconds:
            return steps
        budget.spend(_group(target), at, _deaths(kind, target))
        steps.append(
            Step(
                number=len(steps) + 1,
                at_s=round(at, 3),
                fault=kind.name,
                target=target.name if target is not None else "",
                parameter=chance.choice(kind.parameters) if kind.parameters else "",
            )
        )
        at += duration_s(kind, shape)


def _next(
    bag: list[tuple[FaultKind, Process | None]], budget: _Budget, at: float
) -> tuple[FaultKind, Process | None, float]:
    """The first of the bag that need not wait long for its group, else the one that waits least."""
    when = _times(bag, budget, at)
    place = next((place for place, time in enumerate(when) if time <= at + _PATIENCE_S), when.index(min(when)))
    kind, target = bag.pop(place)
    return kind, target, when[place]


def _times(bag: list[tuple[FaultKind, Process | None]], budget: _Budget, at: float) -> list[float]:
    """When each of the bag may come."""
    return [budget.earliest(_group(target), at, _deaths(kind, target)) for kind, target in bag]


def _group(target: Process | None) -> str:
    return target.group if target is not None else ""


def _counts(target: Process | None) -> bool:
    """Whether its death is a restart that counts: a spare's and the fork server's are none."""
    return target is not None and not target.spare


def _deaths(kind: FaultKind, target: Process | None) -> int:
    return kind.deaths if _counts(target) else 0


def _candidates(kind: FaultKind, shape: Shape) -> list[Process]:
    if kind.where == "pool":
        return [one for one in shape.processes if _base(one.name) == shape.pool and not one.spare]
    if kind.where == "process" and shape.fork_server:
        return [*shape.processes, Process(FORK_SERVER, "", spare=True)]
    return shape.processes if kind.where in {"process", "actor"} else []


def _base(name: str) -> str:
    return name.partition("#")[0]


def _fits(kind: FaultKind, shape: Shape, budget: _Budget) -> bool:
    if kind.where == "root":
        return shape.own
    if kind.where == "none":
        return bool(shape.pool)
    return bool(_affordable(kind, shape, budget))


def _affordable(kind: FaultKind, shape: Shape, budget: _Budget) -> list[Process]:
    return [one for one in _candidates(kind, shape) if not _counts(one) or budget.allows(one.group, kind.deaths)]


def _target(kind: FaultKind, shape: Shape, budget: _Budget, chance: random.Random) -> Process | None:
    able = sorted(_affordable(kind, shape, budget), key=lambda one: one.name)
    return chance.choice(able) if able else None


def duration_s(kind: FaultKind, shape: Shape) -> float:
    """How long a fault is expected to take until the tree is whole again; the next one is planned after it."""
    if kind.hangs:
        return shape.hung_after_s + _HANG_EXTRA_S
    return shape.ready_timeout_s + _HANG_EXTRA_S if kind.boots else _QUICK_S
