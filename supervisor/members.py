# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the core remembers of each child and each group. No decisions."""

from __future__ import annotations

import random

from actors.messages import State
from supervisor.spec import ChildSpec, GroupSpec, Strategy


class Child:
    """What the core remembers of one child."""

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self.name = spec.id
        self.base = spec.id.partition("#")[0]
        self.wanted = True
        self.alive = False
        self.ready = False
        self.must_stop = False
        self.terminating = False
        self.forget = False
        self.timer = False
        self.incarnation = 0
        self.restarts = 0
        self.failures = 0
        self.ready_since = 0.0
        self.reason = ""

    @property
    def key(self) -> str:
        """Names the timer of its delayed restart."""
        return f"restart {self.name}"

    def state(self, *, group_failed: bool) -> State:
        """Its state, as others see it."""
        if self.alive and self.terminating:
            return State.DRAINING
        if self.alive:
            return State.READY if self.ready else (State.RESTARTING if self.restarts else State.STARTING)
        if group_failed:
            return State.FAILED
        if self.wanted:
            return State.RESTARTING if self.incarnation else State.STARTING
        return State.OFF


class Group:
    """What the core remembers of one group."""

    def __init__(self, spec: GroupSpec) -> None:
        self.spec = spec
        self.children: list[Child] = []
        self.nested: list[Group] = []
        self.attempts: list[float] = []
        self.failed = False

    def all(self) -> list[Child]:
        """Its children and those of nested groups, in start order."""
        return [child for group in self.nested for child in group.all()] + self.children

    def count(self, now: float) -> bool:
        """Note one restart attempt; False when that is one too many."""
        intensity = self.spec.intensity
        self.attempts = [at for at in self.attempts if now - at < intensity.within_s] + [now]
        return len(self.attempts) <= intensity.restarts

    def delay(self, child: Child, rng: random.Random) -> float:
        """Seconds before this child's restart: none for the first, then full jitter below a bound that doubles
        (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/)."""
        if child.failures == 0:
            return 0.0
        backoff = self.spec.backoff
        bound: float = min(backoff.cap_s, backoff.first_s * 2 ** min(child.failures - 1, 30))
        return rng.uniform(0.0, bound)

    def affected(self, child: Child) -> list[Child]:
        """The siblings that go down with a child that is restarted."""
        if self.spec.strategy is Strategy.ONE_FOR_ONE:
            return []
        siblings = self.all()
        if self.spec.strategy is Strategy.REST_FOR_ONE:
            siblings = siblings[siblings.index(child) + 1 :]
        return [sibling for sibling in siblings if sibling is not child]

    def below(self) -> list[Group]:
        """This group and all nested ones."""
        return [self] + [group for nested in self.nested for group in nested.below()]
