# SPDX-License-Identifier: AGPL-3.0-or-later
"""Drives the supervisor's core by hand: a tree without processes and without a clock.

    drive = Drive(child("a"), child("b"))
    drive.start()                           # every child was spawned and said ready
    drive.dies("a")                         # the commands of that one event, in short words
    ["start a"]

What the core wants is not carried out by itself: a test says `ready`, `dies`, `ends` when it is time.
"""

from __future__ import annotations

import random

from supervisor.core import Core
from supervisor.events import (
    AddChild,
    CancelTimer,
    ChildExited,
    ChildHung,
    ChildReady,
    Drain,
    ExitReason,
    Kill,
    RemoveChild,
    Report,
    RestartChild,
    Resume,
    SetTimer,
    Spawn,
    Start,
    StopTree,
    Swap,
    Terminate,
    TimerFired,
    TreeStopped,
)
from supervisor.spec import Backoff, ChildSpec, GroupSpec, Intensity

NEVER_GIVES_UP = Intensity(restarts=1000, within_s=1.0)
CRASH = ExitReason(kind="abnormal", exit_code=3, text="ValueError: boom")
NORMAL = ExitReason(kind="normal", exit_code=0)
KILLED = ExitReason(kind="killed", signal=9)
STOPPED = ExitReason(kind="shutdown", exit_code=0)
ENDS = {
    "normal": NORMAL,
    "abnormal": CRASH,
    "killed": KILLED,
    "hung": ExitReason(kind="hung", signal=9),
    "boot_death": ExitReason(kind="boot_death", exit_code=0),
    "boot_timeout": ExitReason(kind="boot_timeout", signal=9),
}
"""Every way in which a child may end without being asked."""
QUICK = Backoff(first_s=1.0, cap_s=8.0, reset_after_s=30.0)
"""A back-off of easy numbers."""
TWICE = Intensity(restarts=2, within_s=10.0)


def child(name, **fields):
    """A child spec of which only the name matters, unless told otherwise."""
    return ChildSpec(id=name, entry="some.module:main", **({"stands_by": "spares" in fields} | fields))


def group(name, **fields):
    """A group of the root that is never tired of restarting, unless told otherwise."""
    return GroupSpec(id=name, **({"intensity": NEVER_GIVES_UP} | fields))


def root(**fields):
    """The root group."""
    return group("root", parent=None, **fields)


class Highest(random.Random):
    """Draws the upper bound each time, so that a test sees the bound of a jitter."""

    def uniform(self, a, b):
        return b


class Drive:
    """One tree and its clock, which only the test moves (`drive.now += 1`)."""

    def __init__(self, *specs, rng=None):
        """`specs`: groups and children; without a group of them that has no parent, `root()` is added."""
        groups = [spec for spec in specs if isinstance(spec, GroupSpec)]
        if not any(spec.parent is None for spec in groups):
            groups.insert(0, root())
        self.core = Core(groups, [spec for spec in specs if isinstance(spec, ChildSpec)], rng or Highest())
        self.now = 100.0
        self.reports = []
        """All reports so far."""
        self.end = None
        """The `TreeStopped`, once it came."""
        self.alive = set()
        """Names of the children that were spawned and have not ended."""
        self.incarnations = {}
        """Child name -> number of its latest life."""
        self.grace = {}
        """Child name -> the grace time of its last stop."""

    # --- events; each returns what the core wants done, in short words -----------------------------------------------

    def give(self, event):
        """Hand one event to the core."""
        return [words for command in self.core.handle(event, self.now) if (words := self._words(command))]

    def boot(self):
        """Start the tree, and say nothing for the children yet."""
        return self.give(Start())

    def start(self):
        """Start the tree and let each child become ready as soon as it was spawned."""
        self.settle(self.boot())
        return self

    def settle(self, wanted):
        """Carry out what is wanted, and what follows: spawned children become ready, stopped ones end. Timers don't
        fire. Returns all that was wanted."""
        done = []
        while wanted:
            words = wanted.pop(0)
            done.append(words)
            verb, _, name = words.partition(" ")
            if verb == "start" and name in self.alive:
                wanted += self.ready(name)
            elif verb in {"stop", "kill"} and name in self.alive:
                wanted += self.ends(name)
        return done

    def ready(self, name):
        """The child says ready."""
        return self.give(ChildReady(name, self.incarnations[name]))

    def dies(self, name, reason=CRASH):
        """The child ends by itself."""
        self.alive.discard(name)
        return self.give(ChildExited(name, self.incarnations[name], reason))

    def ends(self, name):
        """The child ends because it was asked to."""
        return self.dies(name, STOPPED)

    def hangs(self, name):
        """No beat came in time."""
        return self.give(ChildHung(name, self.incarnations[name]))

    def timer(self, name):
        """The delay before this child's restart is over."""
        return self.give(TimerFired(f"restart {name}"))

    def stop(self, reason="told to"):
        """Stop the tree; a second time: at once."""
        return self.give(StopTree(reason))

    def restart(self, name):
        """An operator restarts a child."""
        return self.give(RestartChild(name))

    def add(self, spec):
        """A pool grows."""
        return self.give(AddChild(spec))

    def remove(self, name):
        """A pool shrinks."""
        return self.give(RemoveChild(name))

    # --- what can be seen ------------------------------------------------------------------------------------------

    def states(self):
        """`a=ready b=off` for the whole tree."""
        return " ".join(f"{view.name}={view.state}" for view in self.core.children())

    def said(self, context):
        """`offender or group: decision` of each report of this kind."""
        return [f"{r.offender or r.supervisor}: {r.decision}" for r in self.reports if r.context == context]

    def _words(self, command):
        if isinstance(command, Spawn):
            self.alive.add(command.spec.id)
            self.incarnations[command.spec.id] = command.incarnation
            return f"start {command.spec.id}"
        if isinstance(command, Swap):
            lives = self.incarnations
            lives[command.name], lives[command.spare] = lives[command.spare], lives[command.name]
            lived = {command.name: command.spare, command.spare: command.name}
            self.alive = {lived.get(name, name) for name in self.alive}
            return f"swap {command.name} and {command.spare}"
        if isinstance(command, Terminate):
            self.grace[command.name] = command.grace_s
            return f"stop {command.name}"
        if isinstance(command, (Drain, Resume)):
            return f"{type(command).__name__.lower()} {command.name}"
        if isinstance(command, Kill):
            return f"kill {command.name}"
        if isinstance(command, SetTimer):
            return f"wait {command.delay_s:g} s for {command.key.removeprefix('restart ')}"
        if isinstance(command, CancelTimer):
            return f"forget timer of {command.key.removeprefix('restart ')}"
        if isinstance(command, TreeStopped):
            self.end = command
            return f"end {command.exit_code}"
        assert isinstance(command, Report)
        self.reports.append(command)
        return ""


def three(strategy, **fields):
    """root[ a, b, c ], with all three ready."""
    return Drive(root(strategy=strategy, **fields), child("a"), child("b"), child("c")).start()


def nested(**fields):
    """root[ inner[ a, b ], c ]; the third death within 10 s is too much for either group."""
    inner = group("inner", **({"intensity": TWICE} | fields))
    return Drive(root(intensity=TWICE), inner, child("a", group="inner"), child("b", group="inner"), child("c")).start()


def die_until_the_group_is_tired(drive, name, times=2):
    """Use up the attempts of `name`'s group, all at the present time."""
    for _ in range(times):
        for words in drive.dies(name):
            if words.startswith("wait"):
                drive.timer(name)
        drive.ready(name)
