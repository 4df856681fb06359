# SPDX-License-Identifier: AGPL-3.0-or-later
"""A whole tree in one process, under trio's autojump clock.

    async def test_a_child_that_died_is_replaced(autojump_clock, tmp_path):
        async with tree(tmp_path, child("a"), child("b")) as t:
            t.process("a").crash(3)
            await t.until("a", "ready", lives=2)

Lives are tasks in this process and follow plans (`supervisor/spawn_fake.py`); core, runtime, control server and
channels are the real ones. Seconds are those of the mock clock: they cost nothing.
"""

from __future__ import annotations

import random
from contextlib import asynccontextmanager

import trio
from driving import root

from actors.settings import Settings
from supervisor.core import Core
from supervisor.runtime import Runtime
from supervisor.spawn_fake import FakeSpawner
from supervisor.spec import Backoff, GroupSpec, Heartbeat

PATIENCE_S = 100.0
"""Longer than anything here takes, unless it never comes."""
SLOW_RESTARTS = Backoff(first_s=10.0, cap_s=10.0)
SHORT = {"heartbeat": Heartbeat(every_s=1.0, hung_after_s=5.0), "shutdown": 5.0, "ready_timeout": 20.0}


class Always(random.Random):
    """Every delay is the longest possible one."""

    def uniform(self, a, b):
        return b


class Tree:
    """A runtime at work, its spawner, and everything that it told."""

    def __init__(self, runtime, spawner):
        self.runtime = runtime
        self.spawner = spawner
        self.reports = []
        self.stderr = []
        self.end = None
        self.ended = trio.Event()

    @property
    def log(self):
        return self.spawner.log

    def process(self, name):
        return self.spawner.process(name)

    def states(self):
        return {entry.name: str(entry.state) for entry in self.runtime.directory().entries}

    def said(self, event, name=""):
        """The decisions of the reports of this kind (about `name`)."""
        return [
            fields.get("decision", "")
            for _, kind, fields in self.reports
            if kind == event and name in ("", fields.get("offender"))
        ]

    def reason(self, name):
        """Why the latest life of `name` that ended did so, as reported."""
        return [f["reason"] for _, kind, f in self.reports if kind == "exited" and f["offender"] == name][-1]

    async def until(self, name, state, lives=0):
        """Wait until this child is in this state, in its life number `lives` (0 = any)."""
        with trio.fail_after(PATIENCE_S):
            while self.states().get(name) != state or (lives and self.spawner.lives(name) != lives):
                await trio.sleep(0.01)

    async def stopped(self, within_s=PATIENCE_S):
        """Wait for the end of the tree."""
        with trio.fail_after(within_s):
            await self.ended.wait()
        return self.end


@asynccontextmanager
async def tree(tmp_path, *specs, plans=None, off=(), up=True):
    """Run a tree of these groups and children, wait until it is up, and stop it at the end."""
    groups = [spec for spec in specs if isinstance(spec, GroupSpec)]
    if not any(spec.parent is None for spec in groups):
        groups.insert(0, root())
    core = Core(groups, [spec for spec in specs if not isinstance(spec, GroupSpec)], Always())
    async with trio.open_nursery() as nursery:
        spawner = FakeSpawner(nursery)
        for name, planned in (plans or {}).items():
            spawner.plan(name, *planned)
        found = Tree(None, spawner)
        found.runtime = Runtime(
            core,
            spawner,
            settings=Settings(),
            runtime_dir=tmp_path,
            data_dir=tmp_path,
            listen_fds={},
            report=lambda level, event, **fields: found.reports.append((level, event, fields)),
            on_stderr=lambda name, chunk: found.stderr.append((name, chunk)),
            off=off,
        )

        async def run():
            found.end = await found.runtime.run()
            found.ended.set()

        nursery.start_soon(run)
        if up:
            with trio.fail_after(PATIENCE_S):
                await found.runtime.up.wait()
        yield found
        if not found.ended.is_set():
            found.runtime.stop("the end of the test")
            found.runtime.stop("the end of the test, at once")
            await found.stopped()
        nursery.cancel_scope.cancel()
