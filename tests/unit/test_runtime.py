# SPDX-License-Identifier: AGPL-3.0-or-later
"""The runtime carries out what the core decides: starts, deaths, hangs, restarts, and the reasons that it tells.

Lives are tasks in this process and follow plans (`supervisor/spawn_fake.py`); core, runtime, control server and
channels are the real ones. Seconds are those of the mock clock: they cost nothing.
"""

from __future__ import annotations

import signal

import msgspec
import pytest
import trio
from driving import child, group, root
from fake_tree import SHORT, SLOW_RESTARTS, tree
from trio.testing import wait_all_tasks_blocked

from actors.errors import MCPServerError
from actors.messages import DirectoryEntry, Ready, State
from actors.settings import Settings
from supervisor.events import CancelTimer, RestartChild, SetTimer, TimerFired
from supervisor.exits import exit_reason, last_lines
from supervisor.lives import Life, Lives
from supervisor.spawn import ExitStatus
from supervisor.spawn_fake import NEVER, Plan
from supervisor.spec import Heartbeat, Intensity, Limits

# --- coming up -------------------------------------------------------------------------------------------------------


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


# --- deaths ----------------------------------------------------------------------------------------------------------


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
        t.runtime.order(RestartChild("a"))
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


# --- hangs -----------------------------------------------------------------------------------------------------------


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


# --- operators -------------------------------------------------------------------------------------------------------


async def test_an_operator_gets_a_new_process_by_an_orderly_stop_of_the_old_one(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a")) as t:
        t.runtime.order(RestartChild("a"))
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
            t.runtime.order(RestartChild(name))
        assert str(caught.value) == f"no actor matches {name!r}{hint}"


# --- reports and reasons ---------------------------------------------------------------------------------------------


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
            seen.append((boot.listen_fds, fields["limits"]))
            return await start(boot, **fields)

        t.spawner.spawn = spawn
        t.process("a").crash()
        await t.until("a", "ready", lives=2)
    assert seen == [({}, Limits(cpu_s=5))]
