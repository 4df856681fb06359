# SPDX-License-Identifier: AGPL-3.0-or-later
"""The runtime with a whole tree in one process: real core, real control socket, lives that are tasks, and a mock clock.

Each test says what the lives do (`supervisor/spawn_fake.py`) and looks at what the runtime did about it. Seconds are
those of the mock clock: they cost nothing.
"""

from __future__ import annotations

import random
import signal
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio
from driving import child, group, root
from trio.testing import wait_all_tasks_blocked

from actors.channel import Channel, ChannelClosedError
from actors.errors import MCPServerError
from actors.messages import Beat, DirectoryEntry, Drain, Ready, State
from actors.peers import hello
from actors.settings import Settings
from supervisor.core import Core
from supervisor.events import CancelTimer, SetTimer, TimerFired
from supervisor.lives import Life, Lives
from supervisor.rundir import CONTROL_SOCKET
from supervisor.runtime import Runtime, exit_reason, last_lines
from supervisor.spawn import ExitStatus
from supervisor.spawn_fake import NEVER, FakeSpawner, Plan
from supervisor.spec import Backoff, GroupSpec, Heartbeat, Intensity, Limits

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


# --- coming up -----------------------------------------------------------------------------------------------------


async def test_a_child_is_ready_when_it_says_so(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a"), plans={"a": [Plan(boot_s=3.0)]}, up=False) as t:
        await t.until("a", "starting")
        assert trio.current_time() < 1.0
        await t.runtime.up.wait()
        assert t.states() == {"a": "ready"}
        assert 3.0 <= trio.current_time() < 4.0


async def test_the_boot_message_says_who_the_child_is_and_what_it_needs(autojump_clock, tmp_path):
    spec = child("a", heartbeat=Heartbeat(every_s=0.5))
    async with tree(tmp_path, spec) as t:
        boot = t.process("a").boot
        assert (boot.actor, boot.incarnation, boot.entry) == ("a", 1, spec.entry)
        assert boot.beat_every_s == 0.5
        assert msgspec.json.decode(boot.settings, type=Settings) == Settings()
        assert len(boot.token) >= 32


async def test_ordered_children_start_one_after_the_other(autojump_clock, tmp_path):
    plans = {"a": [Plan(boot_s=2.0)]}
    async with tree(tmp_path, root(strategy="rest_for_one"), child("a"), child("b"), plans=plans, up=False) as t:
        await t.until("a", "starting")
        await trio.sleep(1.9)
        assert t.log == [("spawn", "a")]
        await t.runtime.up.wait()
        assert t.log == [("spawn", "a"), ("spawn", "b")]


async def test_every_child_is_told_the_whole_directory(autojump_clock, tmp_path):
    off = (DirectoryEntry(name="c", group="root", state=State.OFF, reason="not configured"),)
    async with tree(tmp_path, child("a"), child("b"), off=off) as t:
        await wait_all_tasks_blocked()
        for name in ("a", "b"):
            entries = {entry.name: entry for entry in t.process(name).directories[-1].entries}
            assert [(name, str(entry.state)) for name, entry in entries.items()] == [
                ("a", "ready"),
                ("b", "ready"),
                ("c", "off"),
            ]
            assert entries["a"].pid == t.process("a").pid
            assert entries["a"].socket.startswith(str(tmp_path))


async def test_a_child_that_dies_in_its_first_boot_ends_the_tree_and_the_reason_tells_who_how_and_why(
    autojump_clock, tmp_path
):
    lines = "\n".join(f"line {number}" for number in range(1, 6))
    plans = {"b": [Plan(boot_s=1.0, exits_in_boot=3, stderr=lines)]}
    async with tree(tmp_path, child("a"), child("b"), plans=plans, up=False) as t:
        end = await t.stopped()
    assert end.exit_code == 1
    assert end.reason == ("b could not be started: ended before it was ready, exit code 3: line 3 | line 4 | line 5")
    assert t.log[-2:] == [("stop", "a"), ("end", "a")]


async def test_a_process_that_can_not_be_made_ends_the_first_start_with_its_reason(autojump_clock, tmp_path):
    plans = {"a": [Plan(no_process="[Errno 12] Cannot allocate memory")]}
    async with tree(tmp_path, child("a"), plans=plans, up=False) as t:
        end = await t.stopped()
    assert end.reason == (
        "a could not be started: ended before it was ready: no process: [Errno 12] Cannot allocate memory"
    )


async def test_a_boot_that_takes_too_long_is_ended_and_tells_what_it_wrote(autojump_clock, tmp_path):
    plans = {"a": [Plan(boot_s=NEVER, stderr="waiting for the database\n")]}
    async with tree(tmp_path, child("a", ready_timeout=20.0), plans=plans, up=False) as t:
        end = await t.stopped()
    assert 20.0 <= trio.current_time() < 21.0
    assert end.reason == ("a could not be started: not ready in time: it had 20 s; it wrote: waiting for the database")


async def test_a_process_that_never_connects_is_ended_too(autojump_clock, tmp_path):
    plans = {"a": [Plan(connect_s=NEVER)]}
    async with tree(tmp_path, child("a", ready_timeout=20.0), plans=plans, up=False) as t:
        assert (await t.stopped()).exit_code == 1
    assert ("kill", "a") in t.log


# --- deaths --------------------------------------------------------------------------------------------------------


async def test_a_child_that_died_is_replaced_and_everybody_is_told(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a"), child("b")) as t:
        first = t.process("a")
        first.crash(3, stderr="ValueError: boom\n")
        await t.until("a", "ready", lives=2)
        await wait_all_tasks_blocked()
        told = [
            (str(entry.state), entry.incarnation)
            for directory in t.process("b").directories
            for entry in directory.entries
            if entry.name == "a"
        ]
        assert told[-1] == ("ready", t.process("a").incarnation)
        assert ("restarting", t.process("a").incarnation) in told
        assert t.process("a").incarnation > first.incarnation
        assert t.reason("a") == "exit code 3: ValueError: boom"
        assert t.said("exited", "a") == ["restart"]


async def test_a_new_life_has_a_token_and_a_socket_of_its_own(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a")) as t:
        first = t.process("a").boot
        socket = t.runtime.directory().entries[0].socket
        t.process("a").crash()
        await t.until("a", "ready", lives=2)
        assert t.process("a").boot.token != first.token
        assert t.runtime.directory().entries[0].socket != socket


async def test_the_socket_file_of_a_dead_life_is_removed(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a")) as t:
        left = tmp_path / f"a.{t.process('a').incarnation}.sock"
        left.touch()
        t.process("a").crash()
        await t.until("a", "ready", lives=2)
        assert not left.exists()


async def test_a_death_by_a_signal_from_outside_is_told_as_such(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a")) as t:
        t.process("a").crash(signal_number=signal.SIGKILL)
        await t.until("a", "ready", lives=2)
        assert t.reason("a") == "signal 9"


async def test_a_process_that_loses_its_connection_to_the_root_is_replaced(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a")) as t:
        t.process("a").disconnect()
        await t.until("a", "ready", lives=2)
        assert ("kill", "a") in t.log
        assert t.reason("a").startswith("signal 9: control connection lost: ")


async def test_a_process_that_dies_right_after_its_connection_ends_for_its_own_reason(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a")) as t:
        t.process("a").disconnect()
        await trio.sleep(0.05)
        t.process("a").crash(3, stderr="boom")
        await t.until("a", "ready", lives=2)
        assert ("kill", "a") not in t.log
        assert t.reason("a") == "exit code 3: boom"


async def test_what_a_child_writes_is_handed_on(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a"), plans={"a": [Plan(stderr="hello\n")]}) as t:
        assert t.stderr == [("a", b"hello\n")]


async def test_a_delayed_restart_waits_for_its_timer(autojump_clock, tmp_path):
    async with tree(tmp_path, root(backoff=SLOW_RESTARTS), child("a")) as t:
        t.process("a").crash()
        await t.until("a", "ready", lives=2)
        before = trio.current_time()
        t.process("a").crash()
        await t.until("a", "restarting")
        await t.until("a", "ready", lives=3)
        assert 10.0 <= trio.current_time() - before < 10.1


async def test_an_operator_need_not_wait_for_a_delayed_restart_and_its_timer_is_forgotten(autojump_clock, tmp_path):
    async with tree(tmp_path, root(backoff=SLOW_RESTARTS), child("a")) as t:
        t.process("a").crash()
        await t.until("a", "ready", lives=2)
        t.process("a").crash()
        await t.until("a", "restarting")
        before = trio.current_time()
        t.runtime.restart("a")
        await t.until("a", "ready", lives=3)
        assert trio.current_time() - before < 1.0
        await trio.sleep(60)
        assert t.spawner.lives("a") == 3


async def test_a_timer_that_is_forgotten_before_its_task_began_never_fires(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a")) as t:
        fired = []
        t.runtime.tell = fired.append
        t.runtime._carry_out(SetTimer("kept", 5.0))
        t.runtime._carry_out(SetTimer("forgotten", 5.0))
        t.runtime._carry_out(CancelTimer("forgotten"))
        await trio.sleep(10)
        assert fired == [TimerFired("kept")]
        del t.runtime.tell


async def test_a_group_that_gave_up_is_failed_and_the_rest_of_the_tree_works_on(autojump_clock, tmp_path):
    inner = group("inner", intensity=Intensity(restarts=0), escalates=False)
    async with tree(tmp_path, root(), inner, child("a", group="inner"), child("b")) as t:
        t.process("a").crash(3, stderr="boom")
        await t.until("a", "failed")
        assert t.states() == {"a": "failed", "b": "ready"}
        entry = t.runtime.directory().entries[0]
        assert entry.reason == "exit code 3: boom"
        assert entry.pid is None


async def test_a_root_that_gives_up_ends_with_exit_code_70(autojump_clock, tmp_path):
    async with tree(tmp_path, root(intensity=Intensity(restarts=0)), child("a"), child("b")) as t:
        t.process("a").crash(3)
        end = await t.stopped()
    assert end.exit_code == 70
    assert end.reason == "gave up: a: exit code 3; more than 0 restarts in 30 s"


# --- hangs ---------------------------------------------------------------------------------------------------------


async def test_a_child_that_beats_is_left_alone(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a", **SHORT)) as t:
        await trio.sleep(60)
        assert t.log == [("spawn", "a")]


async def test_a_child_without_a_beat_is_killed_in_time_and_replaced(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a", **SHORT), child("b", **SHORT)) as t:
        await trio.sleep(100)
        before = trio.current_time()
        t.process("a").hang()
        await t.until("a", "ready", lives=2)
        assert 4.0 <= trio.current_time() - before <= 5.5
        assert t.log.count(("kill", "a")) == 1
        assert t.said("hung", "a") == ["kill"]
        assert t.reason("a").startswith("hung: no beat for 5.")
        assert t.spawner.lives("b") == 1


async def test_a_hung_child_that_takes_long_to_die_is_reported_and_killed_once(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a", **SHORT), plans={"a": [Plan(kill_s=3.0)]}) as t:
        t.process("a").hang()
        await t.until("a", "ready", lives=2)
        assert t.log.count(("kill", "a")) == 1
        assert t.said("hung", "a") == ["kill"]


async def test_beats_are_due_from_ready_on_and_not_before(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a", **SHORT)) as t:
        silent = Life(child("b"), 99)
        await trio.sleep(30)
        t.runtime._control._told(silent, Ready(socket=""))
        assert silent.ready_at == silent.last_beat_at == trio.current_time()


async def test_a_child_that_hangs_in_its_boot_has_until_its_ready_timeout(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a", **SHORT)) as t:
        t.spawner.plan("a", Plan(boot_s=NEVER))
        t.process("a").crash()
        await t.until("a", "restarting")
        t.process("a").hang()
        before = trio.current_time()
        await t.until("a", "ready", lives=3)
        assert 20.0 <= trio.current_time() - before < 21.0


# --- the control socket --------------------------------------------------------------------------------------------


async def knock(tmp_path, greeting):
    """Connect to the control socket by oneself. Returns why the connection ended."""
    sock = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    with sock:
        await sock.connect(str(tmp_path / CONTROL_SOCKET))
        try:
            return await Channel(sock, me=greeting).run()
        except ChannelClosedError as error:
            return str(error)


@pytest.mark.parametrize("fault", ["wrong token", "older incarnation", "unknown actor", "second connection"])
async def test_only_the_life_that_was_started_may_connect_and_only_once(autojump_clock, tmp_path, fault):
    async with tree(tmp_path, child("a")) as t:
        token = t.process("a").boot.token
        greeting = {
            "wrong token": hello("a", 1, "x" * len(token)),
            "older incarnation": hello("a", 0, token),
            "unknown actor": hello("z", 1, token),
            "second connection": hello("a", 1, token),
        }[fault]
        await knock(tmp_path, greeting)
        assert [f["reason"] for _, event, f in t.reports if event == "control connection refused"] == [
            f"no connection: refused {greeting.actor}: it proved no life that was started here"
        ]
        assert t.states() == {"a": "ready"}
        assert not t.process("a").ended.is_set()


async def test_a_child_gets_the_directory_as_soon_as_it_has_connected(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a"), plans={"a": [Plan(connect_s=3.0, boot_s=10.0)]}, up=False) as t:
        await trio.sleep(3.5)
        assert [entry.name for entry in t.process("a").directories[0].entries] == ["a"]


async def test_the_control_socket_is_private(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a")):
        assert (tmp_path / CONTROL_SOCKET).stat().st_mode & 0o777 == 0o600


async def test_a_child_that_sends_nonsense_is_replaced_and_the_root_lives(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a"), child("b")) as t:
        t.process("a").control.post(hello("not", 1, "a control message"))
        await t.until("a", "ready", lives=2)
        assert "a bad message" in t.reason("a")
        assert t.spawner.lives("b") == 1


async def test_a_second_ready_and_orders_from_a_child_change_nothing(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a")) as t:
        started = t.said("started")
        t.process("a").tell(Ready(socket="/tmp/elsewhere"))
        t.process("a").tell(Drain())
        await wait_all_tasks_blocked()
        assert t.said("started") == started
        assert t.runtime.directory().entries[0].socket != "/tmp/elsewhere"


async def test_the_last_beat_of_a_child_is_kept(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a")) as t:
        t.process("a").tell(Beat(loop_lag_s=0.25, open_calls=7, rss_bytes=1))
        await wait_all_tasks_blocked()
        assert t.runtime.lives.get("a").beat.open_calls == 7


# --- stopping ------------------------------------------------------------------------------------------------------


async def test_children_stop_in_reverse_order_each_after_the_one_before(autojump_clock, tmp_path):
    plans = {name: [Plan(stop_s=1.0)] for name in "abc"}
    async with tree(tmp_path, child("a"), child("b"), child("c"), plans=plans) as t:
        t.runtime.stop("told to")
        end = await t.stopped()
    assert t.log[3:] == [(what, name) for name in "cba" for what in ("stop", "end")]
    assert (end.exit_code, end.reason) == (0, "told to")
    assert 3.0 <= trio.current_time() < 3.5


async def test_a_child_is_told_how_long_it_may_take_to_stop(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a", shutdown=7.5), child("b", shutdown=None)) as t:
        t.runtime.stop("told to")
        await t.stopped()
    assert t.process("a").stop_order.grace_s == 7.5
    assert t.process("b").stop_order.grace_s >= 3600


async def test_a_child_that_ignores_the_order_is_killed_after_its_grace_time_and_only_then(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a"), child("b", shutdown=5.0), plans={"b": [Plan(stop_s=NEVER)]}) as t:
        t.runtime.stop("told to")
        end = await t.stopped()
    assert end.exit_code == 0
    assert t.log[2:] == [("stop", "b"), ("kill", "b"), ("end", "b"), ("stop", "a"), ("end", "a")]
    assert 5.0 <= trio.current_time() < 5.5
    assert t.reason("b") == "stopped, signal 9: did not end within its 5 s of grace"


async def test_a_child_that_closes_its_connection_while_it_stops_may_finish(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a"), plans={"a": [Plan(stop_s=2.0)]}) as t:
        t.runtime.stop("told to")
        await t.until("a", "draining")
        await wait_all_tasks_blocked()
        t.process("a").disconnect()
        await t.stopped()
    assert t.log == [("spawn", "a"), ("stop", "a"), ("end", "a")]


async def test_a_child_that_may_take_as_long_as_it_needs_is_waited_for(autojump_clock, tmp_path):
    plans = {"a": [Plan(stop_s=200.0)]}
    async with tree(tmp_path, child("a", shutdown=None), plans=plans) as t:
        t.runtime.stop("told to")
        await t.stopped(within_s=201.0)
    assert t.log == [("spawn", "a"), ("stop", "a"), ("end", "a")]
    assert trio.current_time() >= 200


async def test_a_child_of_the_kind_that_is_killed_gets_no_order(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a", shutdown="kill")) as t:
        t.runtime.stop("told to")
        await t.stopped()
    assert t.log == [("spawn", "a"), ("kill", "a"), ("end", "a")]


async def test_a_second_stop_kills_what_is_left_at_once(autojump_clock, tmp_path):
    plans = {name: [Plan(stop_s=NEVER)] for name in "ab"}
    async with tree(tmp_path, child("a"), child("b"), plans=plans) as t:
        t.runtime.stop("first")
        await t.until("b", "draining")
        t.runtime.stop("second")
        end = await t.stopped()
    assert sorted(t.log[-4:]) == [("end", "a"), ("end", "b"), ("kill", "a"), ("kill", "b")]
    assert trio.current_time() < 1.0
    assert end.reason == "first"


async def test_a_child_that_hangs_does_not_delay_the_stop_for_longer_than_its_grace_time(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a", **SHORT)) as t:
        t.process("a").hang()
        before = trio.current_time()
        t.runtime.stop("told to")
        await t.stopped()
        assert trio.current_time() - before <= 5.5


async def test_a_stop_during_the_boot_reaches_a_child_that_has_not_connected_yet(autojump_clock, tmp_path):
    plans = {"a": [Plan(spawn_s=2.0)]}
    async with tree(tmp_path, child("a", shutdown=None), plans=plans, up=False) as t:
        await trio.sleep(1.0)
        t.runtime.stop("told to")
        assert (await t.stopped()).exit_code == 0
    assert t.log == [("spawn", "a"), ("stop", "a"), ("end", "a")]


async def test_a_stop_during_the_boot_of_a_process_that_never_connects_is_asked_through_the_spawner(
    autojump_clock, tmp_path
):
    plans = {"a": [Plan(connect_s=NEVER)]}
    async with tree(tmp_path, child("a"), plans=plans, up=False) as t:
        await wait_all_tasks_blocked()
        t.runtime.stop("told to")
        await t.stopped()
    assert t.log == [("spawn", "a"), ("stop", "a"), ("end", "a")]


async def test_a_process_that_is_killed_before_it_exists_is_killed_as_soon_as_it_does(autojump_clock, tmp_path):
    plans = {"a": [Plan(spawn_s=2.0, boot_s=NEVER, stop_s=NEVER)]}
    async with tree(tmp_path, child("a", shutdown="kill"), plans=plans, up=False) as t:
        await trio.sleep(1.0)
        t.runtime.stop("told to")
        assert (await t.stopped()).exit_code == 0
    assert t.log == [("spawn", "a"), ("kill", "a"), ("end", "a")]
    assert trio.current_time() < 2.5


async def test_a_stop_wins_over_a_delayed_restart(autojump_clock, tmp_path):
    async with tree(tmp_path, root(backoff=SLOW_RESTARTS), child("a"), child("b")) as t:
        t.process("a").crash()
        await t.until("a", "ready", lives=2)
        t.process("a").crash()
        await t.until("a", "restarting")
        before = trio.current_time()
        t.runtime.stop("told to")
        await t.stopped()
        assert trio.current_time() - before < 1.0
        assert t.spawner.lives("a") == 2


# --- operators -----------------------------------------------------------------------------------------------------


async def test_an_operator_gets_a_new_process_by_an_orderly_stop_of_the_old_one(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a")) as t:
        t.runtime.restart("a")
        await t.until("a", "ready", lives=2)
        assert t.log == [("spawn", "a"), ("stop", "a"), ("end", "a"), ("spawn", "a")]
        assert t.reason("a") == "stopped"


@pytest.mark.parametrize(
    ("name", "hint"),
    [("tools.generl#0", "; did you mean tools.general#0?"), ("routr", "; did you mean router?"), ("xyz", "")],
)
async def test_the_restart_of_an_unknown_name_suggests_the_nearest(autojump_clock, tmp_path, name, hint):
    async with tree(tmp_path, child("router"), child("tools.general#0")) as t:
        with pytest.raises(MCPServerError) as caught:
            t.runtime.restart(name)
        assert str(caught.value) == f"no actor matches {name!r}{hint}"


# --- reports and reasons -------------------------------------------------------------------------------------------


async def test_a_report_carries_only_what_it_has_to_say(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a")) as t:
        t.runtime.stop("told to")
        await t.stopped()
    assert t.reports[0] == ("INFO", "started", {"supervisor": "root", "offender": "a", "incarnation": 1})
    assert t.reports[-1] == ("INFO", "stopped", {"supervisor": "root", "reason": "told to"})


def life(**fields):
    found = Life(child("a"), 1)
    for name, value in ({"ready_at": 1.0} | fields).items():
        setattr(found, name, value)
    return found


def status(returncode=None, number=None, tail="", error=""):
    return ExitStatus(returncode=returncode, signal=number, stderr_tail=tail, error=error)


ASKED = {"stop": object()}
HUNG = {"kill_cause": "no beat for 5.1 s", "killed_as": "hung"}


@pytest.mark.parametrize(
    ("of", "ended", "kind", "text"),
    [
        ({}, status(0, tail="all is well"), "normal", ""),
        ({}, status(3, tail="boom"), "abnormal", "boom"),
        ({}, status(None, 9, tail="boom"), "killed", "boom"),
        ({}, status(None, 11), "killed", ""),
        ({"ready_at": None}, status(0, tail="bye"), "boot_death", "bye"),
        ({"ready_at": None}, status(error="no process: x"), "boot_death", "no process: x"),
        (ASKED, status(0, tail="stopping"), "shutdown", ""),
        (ASKED, status(3, tail="boom"), "shutdown", ""),
        (ASKED | {"kill_cause": "too slow"}, status(None, 9, tail="busy"), "shutdown", "too slow"),
        (ASKED | {"ready_at": None}, status(0), "shutdown", ""),
        (HUNG, status(None, 9, tail="busy"), "hung", "no beat for 5.1 s; it wrote: busy"),
        (HUNG | ASKED, status(None, 9), "hung", "no beat for 5.1 s"),
        (HUNG, status(3, tail="boom"), "abnormal", "boom"),
        ({"kill_cause": "control connection lost: x"}, status(None, 9), "killed", "control connection lost: x"),
        ({"kill_cause": "control connection lost: x"}, status(3, tail="boom"), "abnormal", "boom"),
    ],
)
async def test_why_a_life_ended(of, ended, kind, text):
    reason = exit_reason(life(**of), ended)
    assert (reason.kind, reason.text) == (kind, text)
    assert (reason.exit_code, reason.signal) == (ended.returncode, ended.signal)


def test_the_last_lines_are_short_and_have_no_empty_ones():
    assert last_lines("one\n\n  two  \nthree\n\nfour\n\n") == "two | three | four"
    assert last_lines("") == ""
    assert len(last_lines("x" * 10_000)) == 2000


async def test_there_is_one_life_for_each_name():
    lives = Lives()
    first = Life(child("a"), 1)
    lives.add(first)
    assert lives.get("a") is lives.get("a", 1) is first
    assert lives.get("a", 2) is lives.get("b") is None
    assert lives.by_token("a", 1, first.token) is first
    assert lives.by_token("a", 1, first.token + "x") is None
    with pytest.raises(AssertionError):
        lives.add(Life(child("a"), 2))
    lives.remove(first)
    assert list(lives) == []


async def test_the_limits_of_a_child_are_handed_to_the_spawner(autojump_clock, tmp_path):
    seen = []

    async with tree(tmp_path, child("a", limits=Limits(cpu_s=5))) as t:
        start = t.spawner.spawn

        async def spawn(boot, **fields):
            seen.append((boot.listen_fd, fields["listen_fd"], fields["limits"]))
            return await start(boot, **fields)

        t.spawner.spawn = spawn
        t.process("a").crash()
        await t.until("a", "ready", lives=2)
    assert seen == [(None, None, Limits(cpu_s=5))]
