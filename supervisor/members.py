# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the core remembers of each child and each group, and how they lie in the tree. No decisions."""

from __future__ import annotations

import itertools
import random
from collections.abc import Container, Iterable, Iterator

import msgspec

from actors.messages import State
from supervisor.spec import ChildSpec, GroupSpec, SpecError, Strategy


class Child:
    """What the core remembers of one child."""

    def __init__(self, spec: ChildSpec, group: Group, replaces: Child | None = None) -> None:
        self.spec = spec
        self.group = group
        self.replaces = replaces
        """It is a successor: it exists to take the place of this child's present life, then it is forgotten."""
        self.replaces_incarnation: int = replaces.incarnation if replaces is not None else 0
        self.name = spec.id
        self.base, _, slot = spec.id.partition("#")
        self.spare = slot.startswith("spare")
        """A warm standby: it does no work until its life takes the place of another's."""
        self.wanted = not group.failed
        """It is to be started again after its end."""
        self.done = False
        """It ended by itself and its restart type left it so: not wanted, but not put down by anybody either."""
        self.alive = False
        self.ready = False
        self.must_stop = False
        """It lives and is to end; `terminating` once it was told, `killed` once it was killed."""
        self.terminating = False
        self.killed = False
        self.finishing = False
        """What must stop may take its time (`ChildSpec.drain`) to finish its calls."""
        self.drained = False
        """An operator took it out of service."""
        self.forget = replaces is not None
        """It is no part of the tree any more once it has ended."""
        self.timer = False
        self.incarnation: int = 0
        self.restarts = 0
        self.failures = 0
        self.ready_since = 0.0
        self.reason = ""

    @property
    def key(self) -> str:
        """Names the timer of its delayed restart."""
        return f"restart {self.name}"

    @property
    def state(self) -> State:
        """Its state, as others see it."""
        if self.alive and (self.terminating or (self.ready and self.drained)):
            return State.DRAINING
        if self.alive and self.ready:
            return State.SPARE if self.spare else State.READY
        if self.alive:
            return State.RESTARTING if self.restarts else State.STARTING
        if self.wanted:
            return State.RESTARTING if self.incarnation else State.STARTING
        return State.FAILED if self.group.failed else State.OFF

    def siblings(self) -> list[Child]:
        """Those of the same base name, spares or not; without itself."""
        return [other for other in self.group.children if other.base == self.base and other is not self]

    def ready_spare(self) -> Child | None:
        """A spare of its base name whose life could take its place now; a spare itself has none."""
        found = (other for other in self.siblings() if other.spare and other.ready and not other.must_stop)
        return None if self.spare else next(found, None)

    def successor(self) -> Child | None:
        """The child that is to take the place of this one's present life."""
        found = (other for other in self.siblings() if other.replaces is self and not other.must_stop)
        return next(found, None)

    def take_life_of(self, spare: Child) -> None:
        """Change places with a ready spare. What is left of this child's own life must stop, as the spare."""
        for field in ("alive", "ready", "incarnation", "ready_since", "terminating", "killed", "finishing"):
            mine, others = getattr(self, field), getattr(spare, field)
            setattr(self, field, others)
            setattr(spare, field, mine)
        self.must_stop = False
        spare.must_stop = spare.alive
        self.restarts += 1

    def levels(self) -> Iterator[tuple[Group, list[Child], list[Child]]]:
        """Each group that holds it, from the inside out, with those of that group before it and behind it."""
        member: Member = self
        group: Group | None = self.group
        while group is not None:
            members = group.members()
            at = members.index(member)
            yield group, flat(members[:at]), flat(members[at + 1 :])
            member, group = group, group.parent


class Group:
    """What the core remembers of one group."""

    def __init__(self, spec: GroupSpec, parent: Group | None) -> None:
        self.spec = spec
        self.parent = parent
        self.children: list[Child] = []
        self.nested: list[Group] = []
        self.attempts: list[float] = []
        self.failed = False
        self.closing = False
        """It is being taken down as a whole."""

    @property
    def ordered(self) -> bool:
        """Its children depend on those before them."""
        return self.spec.strategy != Strategy.ONE_FOR_ONE

    def members(self) -> list[Member]:
        """Its nested groups and its own children, in start order."""
        return [*self.nested, *self.children]

    def all(self) -> list[Child]:
        """Its children and those of nested groups, in start order."""
        return flat(self.members())

    def below(self) -> list[Group]:
        """This group and all nested ones."""
        return [self] + [group for nested in self.nested for group in nested.below()]

    def affected(self, member: Member) -> list[Member]:
        """Those that are restarted when this member is, itself included."""
        members = self.members()
        if self.spec.strategy == Strategy.ONE_FOR_ONE:
            return [member]
        return members[members.index(member) :] if self.spec.strategy == Strategy.REST_FOR_ONE else members

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


Member = Group | Child


def spare_specs(spec: ChildSpec, taken: Container[str]) -> list[ChildSpec]:
    """The specs of a child's spares: `router#spare0`. Spares serve all children of their base name, so the numbers go
    on where those of an earlier sibling ended."""
    base = spec.id.partition("#")[0]
    free = (name for number in itertools.count() if (name := f"{base}#spare{number}") not in taken)
    return [msgspec.structs.replace(spec, id=name, spares=0) for name in itertools.islice(free, spec.spares)]


def flat(members: Iterable[Member]) -> list[Child]:
    """The children among these and below them, in start order."""
    return [child for member in members for child in (member.all() if isinstance(member, Group) else [member])]


class Roster:
    """All groups and children of one tree, by name."""

    def __init__(self, groups: Iterable[GroupSpec], children: Iterable[ChildSpec]) -> None:
        """Raises `SpecError` for duplicate names, unknown groups, or anything but one root."""
        self.groups: dict[str, Group] = {}
        self.children: dict[str, Child] = {}
        for group in groups:
            self._add_group(group)
        for child in children:
            self.add(child)
        self.root = self._only_root()

    def add(self, spec: ChildSpec, replaces: Child | None = None) -> None:
        """A new child at the end of its group, and its spares. Raises `SpecError`."""
        if spec.id in self.children:
            raise SpecError(f"child {spec.id!r}", "id", "is used twice")
        if spec.group not in self.groups:
            raise SpecError(f"child {spec.id!r}", "group", f"{spec.group!r} is not part of the tree")
        group = self.groups[spec.group]
        if (spec.spares or spec.stands_by) and group.ordered:
            field = "spares" if spec.spares else "stands_by"
            raise SpecError(f"child {spec.id!r}", field, f"makes no sense in {group.spec.id!r}, an ordered group")
        child = self.children[spec.id] = Child(spec, group, replaces)
        group.children.append(child)
        for spare in spare_specs(spec, taken=self.children):
            self.add(spare)

    def remove(self, child: Child) -> None:
        """This child is no part of the tree any more."""
        del self.children[child.name]
        child.group.children.remove(child)

    def _add_group(self, spec: GroupSpec) -> None:
        if spec.id in self.groups:
            raise SpecError(f"group {spec.id!r}", "id", "is used twice")
        parent = self.groups.get(spec.parent) if spec.parent is not None else None
        if parent is None and spec.parent is not None:
            raise SpecError(f"group {spec.id!r}", "parent", f"{spec.parent!r} is no group before this one")
        group = self.groups[spec.id] = Group(spec, parent)
        if parent is not None:
            parent.nested.append(group)

    def _only_root(self) -> Group:
        roots = [group for group in self.groups.values() if group.spec.parent is None]
        if len(roots) != 1:
            raise SpecError("the tree", "groups", f"must have one group without a parent, not {len(roots)}")
        return roots[0]
