# SPDX-License-Identifier: AGPL-3.0-or-later
"""The record of exits: what is kept, what is skipped, and that it stays bounded."""

from __future__ import annotations

import time

import msgspec
import trio
from driving import CRASH, STOPPED, child

from actors.flight import FlightRecord, Flying
from actors.messages import Beat
from supervisor import incident_log
from supervisor.incident_log import FILE, Exit, IncidentLog, read_exits
from supervisor.incident_text import exit_line, exit_story, exits_of
from supervisor.lives import Life
from supervisor.spawn import ExitStatus


def ended(log, number, *, name="a", reason=CRASH, decision="restart", tail="ValueError: boom\n"):
    life = Life(child(name), number)
    log.ended(life, ExitStatus(returncode=3, signal=None, stderr_tail=tail, error=""), reason)
    log.observe("exited", name, number, decision)


async def written(log):
    """Let the log write all that it has."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.run)
        while log._waiting:
            await trio.sleep(0)
        nursery.cancel_scope.cancel()


async def test_an_exit_and_its_recovery_are_kept(tmp_path):
    log = IncidentLog(tmp_path)
    ended(log, 1)
    log.observe("started", "a", 2, "")
    await written(log)
    (one,) = read_exits(tmp_path)
    assert (one.number, one.actor, one.cause, one.exit_code, one.decision) == (1, "a", "abnormal", 3, "restart")
    assert one.stderr_tail == "ValueError: boom\n"
    assert one.back_ms is not None


async def test_what_was_asked_for_is_not_kept(tmp_path):
    log = IncidentLog(tmp_path)
    ended(log, 1, reason=STOPPED, decision="as asked")
    log.observe("started", "a", 2, "")
    await written(log)
    assert read_exits(tmp_path) == []


async def test_the_calls_that_were_running_are_kept_and_counted(tmp_path):
    log = IncidentLog(tmp_path)
    for number, flight in enumerate((flight_of(25, more=4), flight_of(3, damaged=True)), start=1):
        life = Life(child("a"), number)
        life.flight = flight
        life.beat = Beat(loop_lag_s=0.0, open_calls=7, rss_bytes=1)
        log.ended(life, ExitStatus(returncode=3, signal=None, stderr_tail="", error=""), CRASH)
        log.observe("exited", "a", number, "restart")
    await written(log)
    exact, damaged = read_exits(tmp_path)
    assert (exact.calls_in_flight, len(exact.calls)) == (29, 20)
    assert (exact.calls[0].tool, exact.calls[0].id, exact.calls[0].call_id) == ("divide", "ab" * 6, "1-0")
    assert 500 <= exact.calls[0].running_ms < 60_000
    assert (damaged.calls_in_flight, len(damaged.calls)) == (7, 3)
    assert f"    divide  {'ab' * 6}  call 1-0, for " in exit_story(exact)


def flight_of(count, **more):
    started = time.monotonic() - 0.5
    calls = [Flying(tool="divide", digest="ab" * 16, call_id=f"1-{number}", started=started) for number in range(count)]
    return FlightRecord(calls, **more)


async def test_numbers_go_on_in_a_new_root(tmp_path):
    for expected in (1, 2, 3):
        log = IncidentLog(tmp_path)
        ended(log, 1)
        await written(log)
        assert read_exits(tmp_path)[-1].number == expected


async def test_lines_that_can_not_be_read_are_skipped(tmp_path):
    log = IncidentLog(tmp_path)
    ended(log, 1)
    await written(log)
    with (tmp_path / FILE).open("ab") as file:
        file.write(b'{"number": 2, "at": "20\n\xff\xfe\nnull\n')
    log = IncidentLog(tmp_path)
    ended(log, 2)
    await written(log)
    assert [one.number for one in read_exits(tmp_path)] == [1, 2]


async def test_the_file_is_bounded_and_the_newest_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(incident_log, "_MAX_FILE_BYTES", 20_000)
    monkeypatch.setattr(incident_log, "KEPT", 10)
    log = IncidentLog(tmp_path)
    for number in range(1, 61):
        ended(log, number, tail="x" * 1000)
        await written(log)
        assert (tmp_path / FILE).stat().st_size < 25_000
    assert [one.number for one in read_exits(tmp_path)] == list(range(51, 61))


async def test_the_rest_is_written_at_the_end(tmp_path):
    log = IncidentLog(tmp_path)
    with trio.CancelScope() as scope:
        ended(log, 1)
        scope.cancel()
        await log.run()
    assert len(read_exits(tmp_path)) == 1


def test_no_file_is_no_exit(tmp_path):
    assert read_exits(tmp_path) == []


def known(**fields):
    return msgspec.structs.replace(
        Exit(
            number=1, at="2026-11-24T20:23:36.636Z", actor="tools.general#0", incarnation=4, cause="hung", reason="hung"
        ),
        **fields,
    )


def test_a_name_without_a_slot_means_all_its_processes():
    exits = [known(), known(actor="tools.general#1"), known(actor="router")]
    assert exits_of(exits, "tools.general") == exits[:2]
    assert exits_of(exits, "tools.general#1") == exits[1:2]


def test_a_story_has_what_there_is_to_tell():
    story = exit_story(
        known(decision="restart", back_ms=7.4, stderr_tail="one\ntwo\n", stacks="File x, line 3 in spin\n")
    )
    assert "hung  restart  back in 7 ms" in story
    assert "    two" in story
    assert "    File x, line 3 in spin" in story
    assert exit_line(known(decision="give up")).endswith("give up  not back")
    assert exit_line(known(decision="restart as a#spare0", back_ms=0.0)).endswith("a spare took its place")
