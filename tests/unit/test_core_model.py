# SPDX-License-Identifier: AGPL-3.0-or-later
"""Random histories against the supervisor's core: what must hold in every one of them, whatever the tree.

Each history is a random tree and up to 40 random events. The test plays the runtime (it keeps count of lives and
timers) and checks each command as it comes; at the end of a history it first lets everything settle, and checks that
all that should run does, then stops the tree.
"""

from __future__ import annotations

import os
import random

from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from supervisor.core import Core
from supervisor.events import (
    AddChild,
    CancelTimer,
    ChildExited,
    ChildHung,
    ChildReady,
    Drain,
    DrainChild,
    ExitReason,
    Kill,
    Reconfigure,
    RemoveChild,
    ReplaceChild,
    Report,
    RestartChild,
    Resume,
    ResumeChild,
    SetTimer,
    Spawn,
    Start,
    StopTree,
    Swap,
    Terminate,
    TimerFired,
    TreeStopped,
)
from supervisor.spec import Backoff, ChildSpec, GroupSpec, Intensity, Restart, Strategy

ENDS = [
    ExitReason(kind="normal", exit_code=0),
    ExitReason(kind="abnormal", exit_code=1),
    ExitReason(kind="killed", signal=9),
    ExitReason(kind="boot_death", exit_code=1),
]
GROUPS = {"root": None, "outer": "root", "inner": "outer", "other": "root"}
OTHERS = [Restart.TRANSIENT, Restart.TEMPORARY]
DRAIN_S = ChildSpec(id="any", entry="m:f").drain
BACKOFF = Backoff(first_s=1.0, cap_s=4.0, reset_after_s=20.0)

NAMES = ["a", "b", "c", "d", "pool#0", "pool#1", "pool#2"]
UNORDERED = "other"
"""The one group whose children may stand by."""


@st.composite
def child_specs(draw):
    name = draw(st.sampled_from(NAMES))
    of_a_pool = name.startswith("pool")
    stands_by = of_a_pool or draw(st.booleans())
    return ChildSpec(
        id=name,
        entry="some.module:main",
        group=UNORDERED if stands_by else draw(st.sampled_from(list(GROUPS))),
        restart=Restart.PERMANENT if stands_by else draw(st.sampled_from([Restart.PERMANENT] * 3 + OTHERS)),
        shutdown=draw(st.sampled_from([5.0, None, "kill"])),
        stands_by=stands_by,
        spares=draw(st.sampled_from([0, 1, 2])) if name in {"a", "pool#0"} and stands_by else 0,
    )


@st.composite
def trees(draw):
    groups = [
        GroupSpec(
            id=name,
            parent=parent,
            strategy=Strategy.ONE_FOR_ONE if name == UNORDERED else draw(st.sampled_from(list(Strategy))),
            intensity=Intensity(restarts=draw(st.sampled_from([1, 3, 100])), within_s=10.0),
            backoff=BACKOFF,
            escalates=draw(st.booleans()),
        )
        for name, parent in GROUPS.items()
    ]
    children = draw(st.lists(child_specs(), min_size=1, max_size=6, unique_by=lambda spec: spec.id))
    if draw(st.booleans()):
        made = ChildSpec(id="worker", entry="m:f", restart="transient", significant=True, group="inner")
        children.append(made)
    return groups, children


class History(RuleBasedStateMachine):
    """One tree and what happens to it."""

    @initialize(tree=trees(), number=st.integers(0, 2**32), whole=st.booleans())
    def begin(self, tree, number, whole):
        groups, children = tree
        self.core = Core(groups, children, random.Random(number))
        self.now = 0.0
        self.alive = {}
        """Name -> incarnation."""
        self.ready = set()
        self.asked = set()
        """Living children that were asked to end."""
        self.killed = set()
        self.finishing = set()
        """Those of them that may take their time."""
        self.drained = set()
        """Names that an operator took out of service."""
        self.told_to_drain = set()
        """Incarnations that know it."""
        self.timers = set()
        self.newest = 0
        self.stops = 0
        self.ends = 0
        self.done = set()
        """Names of those that ended by themselves and were left so."""
        self.down = set()
        """Names of those that need not run: their group gave up, or its significant child has ended."""
        self.give(Start())
        if whole:
            self.settle()

    # --- the runtime's part ----------------------------------------------------------------------------------------

    def give(self, event):
        commands = self.core.handle(event, self.now)
        assert not (self.ends and commands), "something happened after the end"
        for command in commands:
            self.check(command)

    def check(self, command):
        if isinstance(command, Spawn):
            name = command.spec.id
            assert not self.stops, "a start while the tree stops"
            assert name not in self.alive, "two lives of one child"
            assert command.incarnation > self.newest, "an incarnation is used again"
            assert self.timer_of(name) not in self.timers, "a start before its time"
            assert not self.core._children[name].group.failed, "a start in a group that gave up"
            assert name not in self.done, "it has done its work and starts again"
            self.newest = self.alive[name] = command.incarnation
        elif isinstance(command, Swap):
            self.check_swap(command)
        elif isinstance(command, (Drain, Resume)):
            assert self.alive.get(command.name) == command.incarnation, "an order to a life that is no more"
            assert command.name in self.ready
            self.told_to_drain.add(command.incarnation)
            if isinstance(command, Resume):
                self.told_to_drain.remove(command.incarnation)
        elif isinstance(command, (Terminate, Kill)):
            assert self.alive.get(command.name) == command.incarnation, "a stop of a life that is no more"
            self.check_stop(command)
        elif isinstance(command, SetTimer):
            assert command.key not in self.timers, "two timers for one child"
            assert command.key.removeprefix("restart ") not in self.alive
            assert 0 <= command.delay_s <= BACKOFF.cap_s
            self.timers.add(command.key)
        elif isinstance(command, CancelTimer):
            self.timers.remove(command.key)
        elif isinstance(command, TreeStopped):
            assert self.ends == 0, "two ends"
            assert not self.alive, "the end before the last child's"
            assert not self.timers, "a timer outlives the tree"
            self.ends += 1
        else:
            assert isinstance(command, Report)
            self.note(command)

    def check_swap(self, command):
        one, other = command.name, command.spare
        assert "#spare" not in one
        assert "#spare" in other
        assert other in self.ready, "a life that is not ready takes a place"
        assert not self.stops, "a promotion while the tree stops"
        self.alive = {exchanged(name, one, other): life for name, life in self.alive.items()}
        for names in (self.ready, self.asked, self.killed, self.finishing):
            moved = {exchanged(name, one, other) for name in names}
            names.clear()
            names.update(moved)

    def check_stop(self, command):
        name = command.name
        told = self.killed if isinstance(command, Kill) else self.asked
        if name in told and name in self.finishing:
            assert command.grace_s != DRAIN_S, "told the same twice"
            told.discard(name)
            self.finishing.discard(name)
        elif isinstance(command, Terminate) and command.grace_s == DRAIN_S:
            self.finishing.add(name)
        assert name not in told, "told twice"
        hung = isinstance(command, Kill) and command.cause == "hung"
        if self.stops == 1 and name not in self.asked and not hung:
            order = [view.name for view in self.core.children()]
            behind = {other for other in order[order.index(name) + 1 :] if base(other) != base(name)}
            assert not behind & set(self.alive), "not the reverse of the start order"
        told.add(name)

    def note(self, report):
        if report.decision == "stop the tree":
            self.stops = max(self.stops, 1)
        elif report.decision == "leave it":
            self.done.add(report.offender)
        elif report.decision in {"stop the group", "stay failed; others work on"}:
            self.down |= {view.name for view in self.core.children() if report.supervisor in lineage(view.spec.group)}

    @property
    def told(self):
        return self.asked | self.killed

    @staticmethod
    def timer_of(name):
        return f"restart {name}"

    def gone(self, name, reason):
        incarnation = self.alive.pop(name)
        self.ready.discard(name)
        self.asked.discard(name)
        self.killed.discard(name)
        self.finishing.discard(name)
        self.give(ChildExited(name, incarnation, reason))

    def settle(self):
        """Let everybody do what is wanted of them, until nothing is left to do."""
        for _ in range(1000):
            if self.told:
                self.gone(min(self.told), ExitReason(kind="shutdown", exit_code=0))
            elif self.timers:
                self.fire(min(self.timers))
            elif waiting := set(self.alive) - self.ready:
                self.becomes_ready(min(waiting))
            else:
                return
        raise AssertionError("it never settles")

    def fire(self, key):
        self.timers.remove(key)
        self.give(TimerFired(key))

    def becomes_ready(self, name):
        self.ready.add(name)
        self.give(ChildReady(name, self.alive[name]))

    # --- what may happen -------------------------------------------------------------------------------------------

    @precondition(lambda self: set(self.alive) - self.ready)
    @rule(data=st.data())
    def a_child_says_ready(self, data):
        self.becomes_ready(data.draw(st.sampled_from(sorted(set(self.alive) - self.ready))))

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), reason=st.sampled_from(ENDS))
    def a_child_ends(self, data, reason):
        self.gone(data.draw(st.sampled_from(sorted(self.alive))), reason)

    @precondition(lambda self: self.told)
    @rule(data=st.data())
    def a_child_ends_as_told(self, data):
        self.gone(data.draw(st.sampled_from(sorted(self.told))), ENDS[0])

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def a_child_hangs(self, data):
        name = data.draw(st.sampled_from(sorted(self.alive)))
        self.give(ChildHung(name, self.alive[name]))

    @precondition(lambda self: self.timers)
    @rule(data=st.data())
    def a_timer_fires(self, data):
        self.fire(data.draw(st.sampled_from(sorted(self.timers))))

    @rule(seconds=st.sampled_from([0.5, 3.0, 11.0, 25.0]))
    def time_goes_by(self, seconds):
        self.now += seconds

    @rule(name=st.sampled_from(["a", "pool#0", "nobody"]), incarnation=st.sampled_from([0, -1]))
    def an_old_life_is_heard_of(self, name, incarnation):
        before = self.core.children()
        self.give(ChildReady(name, incarnation))
        self.give(ChildExited(name, incarnation, ENDS[1]))
        assert self.core.children() == before

    @rule(name=st.sampled_from(["a", "b", "pool#1", "nobody"]))
    def an_operator_restarts(self, name):
        view = self.core.child(name)
        if view is not None and not self.is_leaving(name):
            again = {v.name for v in self.core.children() if v.spec.group == view.spec.group}
            again = again if self.is_failed(view.spec.group) else {name}
            self.down -= again
            self.done -= again
            self.drained.discard(name)
        self.give(RestartChild(name))

    def is_leaving(self, name):
        return self.core._children[name].forget

    def is_failed(self, group):
        return self.core._groups[group].failed

    @rule(spec=child_specs())
    def a_child_is_added(self, spec):
        if self.core.child(spec.id) is None and self.is_failed(spec.group):
            self.down.add(spec.id)
        elif self.core.child(spec.id) is None:
            self.down.discard(spec.id)
        self.give(AddChild(spec))

    @rule(name=st.sampled_from(["a", "c", "pool#2"]))
    def a_child_is_removed(self, name):
        self.give(RemoveChild(name))

    @rule(data=st.data(), only_this_life=st.booleans())
    def a_child_is_replaced(self, data, only_this_life):
        name = data.draw(st.sampled_from([view.name for view in self.core.children()] or ["nobody"]))
        self.give(ReplaceChild(name, "it is large", self.alive.get(name, 0) if only_this_life else None))

    @rule(name=st.sampled_from(["a", "b", "pool#1", "nobody"]), drained=st.booleans())
    def a_child_is_drained_or_resumed(self, name, drained):
        if self.core.child(name) is not None and not self.stops and not self.is_leaving(name):
            self.drained = self.drained | {name} if drained else self.drained - {name}
        self.give(DrainChild(name) if drained else ResumeChild(name))

    @rule(tree=trees(), replace=st.sets(st.sampled_from(NAMES)))
    def the_configuration_changes(self, tree, replace):
        _, children = tree
        known = {view.name: view.spec for view in self.core.children()}
        for spec in children:
            if not self.stops and spec.id not in known:
                self.down = self.down | {spec.id} if self.is_failed(spec.group) else self.down - {spec.id}
            stays = spec.id in known and known[spec.id].group == spec.group
            if stays and spec.restart is Restart.PERMANENT:
                self.done.discard(spec.id)
        self.give(Reconfigure((), tuple(children), frozenset(replace)))
        if not self.stops:
            left = {view.name for view in self.core.children() if "#spare" not in view.name}
            assert {spec.id for spec in children} <= left, "what is configured is part of the tree"

    @precondition(lambda self: self.now > 30)
    @rule()
    def the_tree_is_stopped(self):
        self.stops += 1
        self.give(StopTree("told to"))

    @rule()
    def all_settles(self):
        self.settle()
        self.check_that_all_run()

    # --- what must hold --------------------------------------------------------------------------------------------

    def check_that_all_run(self):
        for view in self.core.children():
            if "#spare" in view.name and self.is_failed(view.spec.group):
                continue
            if view.spec.restart is Restart.PERMANENT and not self.stops and view.name not in self.down:
                state = "draining" if view.name in self.drained else "spare" if "#spare" in view.name else "ready"
                assert view.state == state, f"{view.name} is {view.state} and nobody will start it"
                if view.name in self.drained:
                    assert view.incarnation in self.told_to_drain, "it does not know that it is out of service"

    @invariant()
    def nobody_changes_its_group(self):
        for child in self.core._children.values():
            assert child.spec.group == child.group.spec.id

    @invariant()
    def the_core_knows_who_lives(self):
        seen = {view.name: view.state for view in self.core.children()}
        self.drained &= set(seen)
        self.done &= set(seen)
        for name in self.alive:
            assert seen[name] in {"starting", "ready", "spare", "restarting", "draining"}
        for name in set(seen) - set(self.alive):
            assert seen[name] in {"starting", "restarting", "failed", "off"}

    @invariant()
    def the_tree_ends_with_its_last_child(self):
        assert bool(self.ends) == bool(self.stops and not self.alive)

    def teardown(self):
        if not hasattr(self, "core"):
            return
        self.settle()
        self.check_that_all_run()
        if not self.ends:
            self.stops += 1
            self.give(StopTree("the end of the history"))
            self.settle()
        assert self.ends == 1, "it never ends"
        self.give(StopTree("again"))


def exchanged(name, one, other):
    return {one: other, other: one}.get(name, name)


def base(name):
    return name.partition("#")[0]


def lineage(group):
    return [] if group is None else [group, *lineage(GROUPS[group])]


def test_every_rule_holds_in_every_history():
    number = int(os.environ.get("GREENROOM_TEST_SEED") or random.randrange(2**32))
    print(f"GREENROOM_TEST_SEED={number} repeats this run")
    run_state_machine_as_test(
        seed(number)(History),
        settings=settings(
            max_examples=250,
            stateful_step_count=40,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
