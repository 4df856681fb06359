# SPDX-License-Identifier: AGPL-3.0-or-later
"""What each log of the task queue promises: groups come back whole, in order, and nothing is dropped without a word."""

from __future__ import annotations

import os
import sqlite3

import pytest

from actors.errors import UnavailableError
from actors.p2p.task_queue.duckdb_log import DuckDBLog
from actors.p2p.task_queue.sqlite_log import SQLiteLog

EVENT = [3, "text", 7, 1.5, None, True, ["list"], {"a": {"b": "c"}}]


@pytest.fixture(params=[DuckDBLog, SQLiteLog])
def kind(request):
    return request.param


@pytest.fixture
def make(kind, tmp_path):
    """Open a log and read it; all are closed at the end."""
    made = []

    def open_log(**options):
        log = kind(tmp_path / "log.db", **options)
        made.append(log)
        opened = log.open()
        try:
            return log, list(opened.groups), opened.repairs
        except UnavailableError:
            log.close()
            raise

    yield open_log
    for log in made:
        log.close()


def group(text):
    return [[1, text]]


def fill(log, first, last):
    for number in range(first, last):
        log.append(group(f"event {number} " + 200 * "x"))


def events(groups):
    return [event[1].split(" x")[0] for _, group in groups for event in group]


def test_a_new_log_is_empty(make):
    log, groups, repairs = make()
    assert groups == []
    assert repairs == []
    assert log.segment() == log.oldest_segment()
    assert log.sizes()["groups"] == 0


def test_events_come_back_as_they_were(make):
    log, _, _ = make()
    log.append([EVENT, EVENT])
    log.append([[0]])
    log.append([])
    log.close()
    _, groups, repairs = make()
    assert groups == [(1, [EVENT, EVENT]), (1, [[0]]), (1, [])]
    assert repairs == []


def test_a_log_goes_on_where_it_ended(make):
    for life in range(4):
        log, groups, _ = make()
        assert events(groups) == [f"event {number}" for number in range(life * 3)]
        fill(log, life * 3, life * 3 + 3)
        log.close()


def test_nothing_is_appended_before_all_was_read(kind, tmp_path):
    log = kind(tmp_path / "log.db")
    opened = log.open()
    with pytest.raises(RuntimeError, match="read to its end"):
        log.append(group("early"))
    list(opened.groups)
    log.append(group("in time"))
    log.close()


def test_a_full_segment_is_due_to_be_changed(make):
    log, _, _ = make(segment_bytes=2000)
    fill(log, 0, 5)
    assert not log.rotation_due()
    fill(log, 5, 10)
    assert log.rotation_due()
    log.rotate([])
    assert not log.rotation_due()


def test_two_segments_are_kept(make):
    log, _, _ = make()
    fill(log, 0, 2)
    first = log.segment()
    log.rotate([])
    assert log.segment() == first + 1
    assert log.oldest_segment() == first
    fill(log, 2, 4)
    log.rotate([group("carried a"), group("carried b")])
    assert log.segment() == first + 2
    assert log.oldest_segment() == first + 1
    fill(log, 4, 5)
    assert log.sizes()["segments"] == 2
    assert log.sizes()["groups"] == 5
    log.close()
    _, groups, _ = make()
    assert events(groups) == ["event 2", "event 3", "carried a", "carried b", "event 4"]
    assert [segment for segment, _ in groups] == [first + 1] * 2 + [first + 2] * 3


def test_rotations_with_nothing_between_them_lose_nothing(make):
    log, _, _ = make()
    for number in range(5):
        log.rotate([group(f"carried {number}")] if number % 2 else [])
    log.close()
    log, groups, _ = make()
    assert events(groups) == ["carried 3"]
    fill(log, 0, 1)


def test_what_was_carried_does_not_fill_a_segment(make):
    """A state larger than a segment would be carried on and on."""
    log, _, _ = make(segment_bytes=2000)
    log.rotate([group(3000 * "y"), group(2000 * "y")])
    assert not log.rotation_due()
    log.close()
    log, _, _ = make(segment_bytes=2000)
    assert not log.rotation_due(), "a new life knows it too"
    fill(log, 0, 15)
    assert not log.rotation_due()
    fill(log, 15, 30)
    assert log.rotation_due()


def test_a_failed_rotation_ends_the_log_and_is_not_there(make):
    log, _, _ = make()
    fill(log, 0, 2)

    def carried():
        yield group("carried")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        log.rotate(carried())
    with pytest.raises(UnavailableError, match="failed before"):
        log.append(group("late"))
    log.close()
    log, groups, repairs = make()
    assert events(groups) == ["event 0", "event 1"]
    assert repairs == []
    assert log.sizes()["segments"] == 1


def test_what_cannot_be_written_ends_the_log(make):
    log, _, _ = make()
    with pytest.raises(Exception, match="out of range"):
        log.append([[float("nan")]])
    with pytest.raises(UnavailableError, match="failed before"):
        log.append(group("late"))


def test_a_checkpoint_is_due_after_enough_bytes_and_after_a_rotation(make):
    log, _, _ = make(checkpoint_bytes=400_000)
    fill(log, 0, 5)
    assert not log.checkpoint_due()
    log.append(group(420_000 * "x"))
    assert log.checkpoint_due()
    log.checkpoint()
    assert not log.checkpoint_due()
    assert log.sizes()["bytes"] > 420_000
    log.rotate([])
    assert log.checkpoint_due()


def test_groups_of_many_megabytes_are_kept(make):
    log, _, _ = make()
    log.append([[1, "z" * 3_000_000]])
    log.append(group("small"))
    log.close()
    _, groups, _ = make()
    assert [len(group[0][1]) for _, group in groups] == [3_000_000, 5]


def test_a_second_owner_is_told_who_has_the_file(make, kind, tmp_path):
    log, _, _ = make()
    with pytest.raises(UnavailableError, match=rf"in use by pid {os.getpid()}, this process"):
        kind(tmp_path / "log.db").open()
    fill(log, 0, 1)
    log.close()
    _, groups, _ = make()
    assert events(groups) == ["event 0"]


def test_another_file_is_no_log(kind, tmp_path):
    (tmp_path / "log.db").write_bytes(b"something else" * 500)
    with pytest.raises(UnavailableError, match=r"log\.db can't be used"):
        kind(tmp_path / "log.db").open()
    assert (tmp_path / "log.db").read_bytes() == b"something else" * 500


def _edit(kind, path, statement):
    if kind is SQLiteLog:
        con = sqlite3.connect(path)
        con.execute(statement)
        con.commit()
    else:
        import duckdb

        con = duckdb.connect(str(path), config={"storage_compatibility_version": "v1.5.0"})
        con.execute(statement)
    con.close()


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("DELETE FROM ev_1_1_0 WHERE seq = 3", "group 3 is missing"),
        ("DELETE FROM ev_1_1_0 WHERE seq = 1", "group 1 is missing"),
        ("DELETE FROM ev_1_1_0 WHERE seq > 4", "ends with group 4, but group 5 was stored"),
        ("DELETE FROM ev_1_1_0", "ends with group 0, but group 5 was stored"),
        ("DROP TABLE ev_1_1_0", "ends with group 0, but group 5 was stored"),
        ("UPDATE ev_1_1_0 SET seq = 9 WHERE seq = 5", "group 5 is missing"),
        ("UPDATE ev_1_1_0 SET n = 2 WHERE seq = 3", "group 3 is not what was written"),
        ("UPDATE ev_1_1_0 SET digest = 1 WHERE seq = 3", "group 3 is not what was written"),
        ("UPDATE ev_1_1_0 SET data = (SELECT data FROM ev_1_1_0 WHERE seq = 2) WHERE seq = 3", "group 3 is not what"),
        ("CREATE TABLE other(x INTEGER)", "no log of a task queue"),
        ("ALTER TABLE ev_1_1_0 RENAME TO ev_2_2_0", "group 2 is missing"),
    ],
)
def test_a_changed_log_is_refused(make, kind, tmp_path, statement, said):
    log, _, _ = make()
    fill(log, 0, 5)
    log.close()
    _edit(kind, tmp_path / "log.db", statement)
    for _ in range(2):
        with pytest.raises(UnavailableError, match=said):
            make()


def test_an_older_copy_is_refused_unless_its_owner_says_so(make, tmp_path):
    log, _, _ = make()
    fill(log, 0, 3)
    log.close()
    copy = (tmp_path / "log.db").read_bytes()
    log, _, _ = make()
    fill(log, 3, 5)
    log.close()
    (tmp_path / "log.db").write_bytes(copy)
    with pytest.raises(UnavailableError, match=r"group 5 was stored.*remove .*log\.db\.seq"):
        make()
    (tmp_path / "log.db.seq").unlink()
    log, groups, repairs = make()
    assert len(groups) == 3
    assert "unknown" in repairs[0]
    fill(log, 3, 6)
    log.close()
    newer = (tmp_path / "log.db.seq").read_bytes()
    log, groups, repairs = make()
    assert repairs == []
    log.close()
    assert (tmp_path / "log.db.seq").read_bytes() == newer


def test_a_copy_that_went_on_elsewhere_is_refused(make, tmp_path):
    log, _, _ = make()
    fill(log, 0, 3)
    log.close()
    announced = (tmp_path / "log.db.seq").read_bytes()
    (tmp_path / "log.db").unlink()
    (tmp_path / "log.db.seq").unlink()
    log, _, _ = make()
    fill(log, 10, 14)
    log.close()
    (tmp_path / "log.db.seq").write_bytes(announced)
    with pytest.raises(UnavailableError, match="another copy"):
        make()


def test_a_kill_right_after_the_first_group_looks_like_no_damage(make, tmp_path):
    log, _, _ = make()
    announced = (tmp_path / "log.db.seq").read_bytes()
    fill(log, 0, 1)
    log.close()
    # As it is when the process ends after the group is on disk and before it is announced.
    (tmp_path / "log.db.seq").write_bytes(announced)
    log, groups, repairs = make()
    assert (len(groups), repairs) == (1, [])
    log.close()
