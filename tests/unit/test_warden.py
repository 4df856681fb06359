# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the root makes of a death with calls in flight: whom it tells, when, and what it keeps.

Lives are tasks in this process (`supervisor/spawn_fake.py`); their records are written by the test.
"""

from __future__ import annotations

import msgspec
import pytest
import trio
from driving import child
from fake_tree import tree

from actors.flight import FlightRecorder, flight_path
from actors.messages import ControlMessage, Marks, QuarantinedCall, Survived
from supervisor.events import RestartChild
from supervisor.quarantine import Call
from supervisor.rundir import CONTROL_SOCKET
from supervisor.warden import FILE, NotQuarantinedError, blamed

POISON, OTHER = b"\x01" * 16, b"\x02" * 16
_decode = msgspec.msgpack.Decoder(ControlMessage).decode


@pytest.fixture(autouse=True)
def writes_without_threads(monkeypatch):
    """A mock clock would run on while a thread writes."""

    async def at_once(function, *arguments):
        await trio.lowlevel.checkpoint()
        return function(*arguments)

    monkeypatch.setattr(trio.to_thread, "run_sync", at_once)


async def hears(process):
    """What the root pushes to this life from now on, in order."""
    await trio.sleep(0.1)
    heard = []
    take = process.control._on_event
    process.control._on_event = lambda body: (heard.append(_decode(body)), take(body))
    return heard


def runs(tmp_path, process, *digests):
    """This life runs these calls."""
    recorder = FlightRecorder.create(flight_path(tmp_path, process.incarnation), 8)
    for digest in digests:
        recorder.begin(b"divide", digest, "call-1")


async def dies(t, tmp_path, *digests, name="a", end=lambda process: process.crash(3)):
    process, lives = t.process(name), t.spawner.lives(name)
    runs(tmp_path, process, *digests)
    end(process)
    await t.until(name, "ready", lives=lives + 1)
    await trio.sleep(0.1)


def kept(t):
    return [(one.tool, one.deaths) for one in t.runtime.warden.marks().quarantined]


async def test_two_deaths_quarantine_the_call_and_everybody_is_told(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a"), child("b")) as t:
        heard = await hears(t.process("b"))
        await dies(t, tmp_path, POISON, OTHER)
        assert [one.watched for one in heard if isinstance(one, Marks)][-1] == [POISON.hex(), OTHER.hex()]
        t.process("b").tell(Survived(tool="divide", digest=OTHER.hex()))
        await trio.sleep(0.1)
        assert [one.watched for one in heard if isinstance(one, Marks)][-1] == [POISON.hex()]
        await dies(t, tmp_path, POISON, OTHER)
        marks = [one for one in heard if isinstance(one, Marks)][-1]
        assert [one.digest for one in marks.quarantined] == [POISON.hex()]
        assert marks.quarantined[0].cause == "exit code 3"
        assert [fields["id"] for _, event, fields in t.reports if event == "quarantined"] == [POISON.hex()[:12]]


async def test_the_list_comes_before_the_directory_that_follows_from_the_death(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a"), child("b")) as t:
        heard = await hears(t.process("b"))
        await dies(t, tmp_path, POISON)
        assert isinstance(heard[0], Marks)


async def test_records_are_removed_with_their_life(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a")) as t:
        await dies(t, tmp_path, POISON)
        assert list(tmp_path.glob("*.flight")) == []


@pytest.mark.parametrize("end", ["exit code 0", "signal", "hung", "disconnected"])
async def test_every_end_that_nobody_ordered_counts(autojump_clock, tmp_path, end):
    ends = {
        "exit code 0": lambda process: process.crash(0),
        "signal": lambda process: process.crash(signal_number=11),
        "hung": lambda process: process.hang(),
        "disconnected": lambda process: process.disconnect(),
    }
    async with tree(tmp_path, child("a")) as t:
        for _ in range(2):
            await dies(t, tmp_path, POISON, end=ends[end])
        assert kept(t) == [("divide", 2)]


async def test_a_call_that_only_waited_for_its_client_is_not_to_blame(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a")) as t:
        await t.until("a", "ready")
        for _ in range(3):
            process, lives = t.process("a"), t.spawner.lives("a")
            recorder = FlightRecorder.create(flight_path(tmp_path, process.incarnation), 8)
            recorder.waits(recorder.begin(b"asks", OTHER, "call-1"), True)
            recorder.begin(b"divide", POISON, "call-2")
            process.crash(3)
            await t.until("a", "ready", lives=lives + 1)
        await trio.sleep(0.1)
        assert kept(t) == [("divide", 3)]
        assert [one.tool for one in t.runtime.warden.marks().breakers] == ["divide"]


async def test_no_end_that_was_ordered_counts(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a"), child("b", shutdown="kill")) as t:
        for name in ("a", "b"):
            for _ in range(3):
                restart = RestartChild(name)
                await dies(t, tmp_path, POISON, name=name, end=lambda _, order=restart: t.runtime.order(order))
        assert t.runtime.warden.marks() == Marks()


async def test_a_record_of_nonsense_quarantines_nothing_and_disturbs_nobody(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a")) as t:
        for _ in range(3):
            flight_path(tmp_path, t.process("a").incarnation).write_bytes(b"\xff" * 5000)
            lives = t.spawner.lives("a")
            t.process("a").crash(3)
            await t.until("a", "ready", lives=lives + 1)
        assert t.runtime.warden.marks() == Marks()


async def test_what_is_quarantined_is_known_to_the_next_root_and_what_is_released_is_not(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a")) as t:
        for digest in (POISON, OTHER):
            for _ in range(2):
                await dies(t, tmp_path, digest)
        before = t.runtime.warden.marks().quarantined
    assert len(before) == 2
    (tmp_path / CONTROL_SOCKET).unlink()
    async with tree(tmp_path, child("a")) as t:
        assert t.runtime.warden.marks().quarantined == before
        (released,) = t.runtime.warden.release([POISON.hex()[:12]])
        assert released.id == POISON.hex()[:12]
    (tmp_path / CONTROL_SOCKET).unlink()
    async with tree(tmp_path, child("a")) as t:
        assert t.runtime.warden.marks().quarantined == before[1:]
        t.runtime.warden.release([], everything=True)
    (tmp_path / CONTROL_SOCKET).unlink()
    async with tree(tmp_path, child("a")) as t:
        assert t.runtime.warden.marks() == Marks()


async def test_a_wrong_name_releases_nothing_and_names_the_nearest(autojump_clock, tmp_path):
    one = QuarantinedCall(id="3f2a91c04b7d", digest="3f2a91c04b7d" + "0" * 20, tool="t", deaths=2, last_at="", cause="")
    (tmp_path / FILE).write_bytes(msgspec.json.encode([one]))
    async with tree(tmp_path, child("a")) as t:
        with pytest.raises(NotQuarantinedError, match="did you mean 3f2a91c04b7d"):
            t.runtime.warden.release(["3f2a91c04b7d", "3f2a91c04b7e"])
        with pytest.raises(NotQuarantinedError, match="greenroom quarantine list"):
            t.runtime.warden.release(["zzz"])
        assert len(kept(t)) == 1


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b'[{"id": 1}]'])
async def test_a_file_that_can_not_be_read_is_told_and_nothing_more(autojump_clock, tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    async with tree(tmp_path, child("a")) as t:
        assert kept(t) == []
        assert [event for level, event, _ in t.reports if level == "ERROR"] == ["quarantine not read"]


async def test_a_disk_that_takes_nothing_costs_the_file_only(autojump_clock, tmp_path):
    (tmp_path / "quarantine.new").mkdir()
    async with tree(tmp_path, child("a")) as t:
        for _ in range(2):
            await dies(t, tmp_path, POISON)
        await t.until("a", "ready")
        assert kept(t) == [("divide", 2)]
    assert "quarantine not written" in [event for _, event, _ in t.reports]


async def test_a_breaker_opens_and_half_opens_by_the_clock(autojump_clock, tmp_path):
    async with tree(tmp_path, child("a"), child("b")) as t:
        for number in range(3):
            await dies(t, tmp_path, bytes([number]) * 16)
        (breaker,) = t.runtime.warden.marks().breakers
        assert not breaker.half_open
        heard = await hears(t.process("b"))
        await trio.sleep(31)
        assert [one.breakers[0].half_open for one in heard if isinstance(one, Marks)] == [True]
        t.process("b").tell(Survived(tool="divide", digest=OTHER.hex()))
        await trio.sleep(0.1)
        assert [one.breakers for one in heard if isinstance(one, Marks)][-1] == []


STACKS = """Thread 0x00007f1 (most recent call first):
  File "/x/pool.py", line 3 in other

Current thread 0x00007f0 (most recent call first):
  File "/x/helper.py", line 9 in deep
  File "/x/spin.py", line 7 in spin
  File "/g/actors/tools/execution.py", line 130 in _value
  File "/g/actors/tools/host.py", line 60 in echo
"""
SPIN, OTHER_CALL = Call("spin", "01" * 16), Call("other", "02" * 16)


def test_of_a_process_that_hung_the_calls_of_the_tool_on_its_stack_are_to_blame():
    assert blamed([SPIN, OTHER_CALL, Call("echo", "03" * 16)], STACKS) == [SPIN]


@pytest.mark.parametrize(
    "stacks",
    [
        "",
        "Current thread",
        STACKS.replace("execution.py", "another.py"),
        STACKS.replace("in spin", "in spin_"),
        "x\n\n",
    ],
)
def test_where_the_stacks_do_not_tell_all_calls_are_to_blame(stacks):
    assert blamed([SPIN, OTHER_CALL], stacks) == [SPIN, OTHER_CALL]
