# SPDX-License-Identifier: AGPL-3.0-or-later
"""The record of running calls: exact while it is sound, harmless whatever is in it."""

from __future__ import annotations

import os
import random
import time

import pytest

from actors.flight import _SLOT_BYTES, _STATE, MAX_SLOTS, FlightRecorder, flight_path, read_flight, short_id

DIGEST = bytes(range(16))


@pytest.fixture
def path(tmp_path):
    return flight_path(tmp_path, 7)


def begin(recorder, number):
    return recorder.begin(b"echo", DIGEST, f"1-{number}")


def seen(path):
    return sorted(one.call_id for one in read_flight(path).calls)


def test_what_runs_is_on_record_and_what_has_ended_is_not(path):
    recorder = FlightRecorder.create(path, 4)
    before = time.monotonic()
    first, second = begin(recorder, 1), begin(recorder, 2)
    (one, _) = read_flight(path).calls
    assert (one.tool, one.digest, one.call_id) == ("echo", DIGEST.hex(), "1-1")
    assert before <= one.started <= time.monotonic()
    assert short_id(one.digest) == DIGEST.hex()[:12]
    recorder.end(first)
    assert seen(path) == ["1-2"]
    recorder.end(second)
    assert (read_flight(path).count, read_flight(path).damaged) == (0, False)


def test_a_call_that_waits_is_told_from_one_that_runs(path):
    recorder = FlightRecorder.create(path, 2)
    slots = [begin(recorder, number) for number in range(3)]
    recorder.waits(slots[1], True)
    recorder.waits(slots[2], True)  # it has no slot
    assert [one.waiting for one in read_flight(path).calls] == [False, True]
    recorder.waits(slots[1], False)
    assert [one.waiting for one in read_flight(path).calls] == [False, False]
    assert not read_flight(path).damaged


def test_slots_are_used_again_for_ever(path):
    recorder = FlightRecorder.create(path, 3)
    running = []
    for number in range(1000):
        running.append((number, begin(recorder, number)))
        if len(running) == 3:
            recorder.end(running.pop(number % 3)[1])
        assert seen(path) == sorted(f"1-{number}" for number, _ in running)


def test_calls_beyond_the_slots_are_counted(path):
    recorder = FlightRecorder.create(path, 2)
    slots = [begin(recorder, number) for number in range(5)]
    record = read_flight(path)
    assert (len(record.calls), record.more, record.count, record.damaged) == (2, 3, 5, False)
    for slot in slots:
        recorder.end(slot)
    assert read_flight(path).count == 0


def test_the_file_is_bounded_private_and_really_there(path):
    FlightRecorder.create(path, 10**6)
    info = path.stat()
    assert info.st_size == _SLOT_BYTES * (MAX_SLOTS + 1)
    assert info.st_blocks * 512 >= info.st_size
    assert info.st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        FlightRecorder.create(path, 1)


def test_odd_ids_are_cut_and_shown_as_unknown_and_the_longest_name_fits(path):
    recorder = FlightRecorder.create(path, 4)
    recorder.begin(b"t" * 128, DIGEST, "x" * 1000)
    recorder.begin(b"a", DIGEST, "new\nline")
    recorder.begin(b"b", DIGEST, "ü" * 40)
    record = read_flight(path)
    assert [(one.tool, one.call_id) for one in record.calls] == [("t" * 128, "x" * 64), ("a", "?"), ("b", "?")]
    assert not record.damaged


def test_no_file_is_no_record(path):
    assert read_flight(path) is None


def test_a_recorder_without_a_file_works_as_well():
    recorder = FlightRecorder.without_file(2)
    for number in range(5):
        recorder.end(begin(recorder, number))


@pytest.mark.parametrize("length", [0, 1, 100, _SLOT_BYTES, _SLOT_BYTES + 1, _SLOT_BYTES * 2 + 100])
def test_a_torn_file_is_told_as_damaged(path, length):
    recorder = FlightRecorder.create(path, 4)
    for number in range(4):
        begin(recorder, number)
    os.truncate(path, length)
    record = read_flight(path)
    assert record.damaged
    assert len(record.calls) <= 1


def test_a_slot_that_can_not_be_right_costs_itself_only(path):
    recorder = FlightRecorder.create(path, 4)
    slots = [begin(recorder, number) for number in range(4)]
    with path.open("r+b") as file:
        file.seek(slots[1] + 24)
        file.write(b"\xff" * 40)
        file.seek(slots[2])
        file.write(b"\xff" * 8)  # not a number
        file.seek(slots[3] + _STATE)
        file.write(b"\x07")
    record = read_flight(path)
    assert record.damaged
    assert [one.call_id for one in record.calls] == ["1-0"]


def test_garbage_is_read_without_an_error_and_bounded(path):
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    for _ in range(50):
        path.write_bytes(chance.randbytes(chance.randrange(4000)))
        record = read_flight(path)
        assert record.damaged
        assert record.count <= 1_000_000 + MAX_SLOTS
    path.write_bytes(b"\xff" * (_SLOT_BYTES * (MAX_SLOTS + 100)))
    assert read_flight(path).damaged


@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
def test_what_is_no_file_is_not_waited_for(path, kind):
    {"pipe": os.mkfifo, "link": lambda at: at.symlink_to("/dev/zero"), "folder": os.mkdir}[kind](path)
    record = read_flight(path)
    assert (record.calls, record.damaged) == ([], True)
