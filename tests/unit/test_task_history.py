# SPDX-License-Identifier: AGPL-3.0-or-later
"""The history of ended tasks: what was added is found by id, by key and by what lists ask for, until its time."""

from __future__ import annotations

import sqlite3

import msgspec
import pytest

from actors.errors import UnavailableError
from actors.messages import ErrorInfo
from actors.p2p.task_queue.history import SQLiteHistory
from actors.p2p.task_queue.log import Ended
from actors.task_messages import Task, TaskState
from actors.task_views import ScanTasks, TaskEvent

NOW = 1_000_000.0


class Clock:
    now = NOW

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def history(tmp_path, clock):
    made = SQLiteHistory(tmp_path / "history.db", now=clock)
    made.open()
    yield made
    made.close()


def ended(task_id, drop_at=NOW + 100, created_at=1.0, ended_at=2.0, state=TaskState.COMPLETED, **fields):
    times = {"created_at": created_at, "ended_at": ended_at}
    task = Task(id=task_id, type=fields.pop("type", "echo"), state=state, **times, **fields)
    return Ended(task=task, events=[TaskEvent(at=1.0, what="submitted")], drop_at=drop_at)


FULL = Ended(
    task=Task(
        id="full",
        type="echo",
        state=TaskState.FAILED,
        payload='{"a": "\u00e4"}',
        owner="me",
        key="k",
        tags=["x", "y"],
        logs=["line"],
        result='{"r": 1}',
        error=ErrorInfo(code="TOOL_FAILED", message="no", retryable=False, details={"x": 1}),
        answers={"q": "1"},
        created_at=5.0,
        ended_at=6.0,
        token=2**52,
    ),
    events=[TaskEvent(at=5.0, what="submitted"), TaskEvent(at=6.0, what="failed", note="no")],
    drop_at=NOW + 1,
)


def ids(history, most=100, **ask):
    tasks, total = history.scan(ScanTasks(**ask), most)
    assert total >= len(tasks)
    return [task.id for task in tasks]


def test_a_task_comes_back_whole(history):
    history.add([FULL])
    assert history.get("full") == FULL
    assert history.find(["full"], []) == [FULL.task]


def test_it_is_there_after_reopening(history, tmp_path, clock):
    history.add([FULL, ended("b")])
    history.close()
    again = SQLiteHistory(tmp_path / "history.db", now=clock)
    again.open()
    assert again.get("full") == FULL
    assert again.sizes()["history_tasks"] == 2
    again.close()


def test_a_task_that_is_added_again_is_replaced(history):
    history.add([ended("a"), ended("b")])
    history.add([ended("b", state=TaskState.FAILED), ended("c"), ended("c", type="other")])
    assert history.get("b").task.state == TaskState.FAILED
    assert history.counts() == {
        ("echo", TaskState.COMPLETED): 1,
        ("echo", TaskState.FAILED): 1,
        ("other", TaskState.COMPLETED): 1,
    }
    assert history.sizes()["history_tasks"] == 3


def test_nothing_is_known_of_others(history):
    history.add([ended("a", owner="me", key="k")])
    assert history.get("b") is None
    history.tell(["b"], pytest.fail)
    assert history.heads(["b"]) == []
    assert history.find(["b"], [("me", "other"), ("other", "k"), ("me", "")]) == []


def test_tasks_are_found_by_ids_and_keys_each_once(history):
    history.add([ended(f"t{n}", owner="me", key=f"k{n}") for n in range(5)] + [ended("no key", owner="me")])
    found = history.find(["t1", "t2", "nobody"], [("me", "k2"), ("me", "k3"), ("me", "")])
    assert {task.id for task in found} == {"t1", "t2", "t3"}


def test_many_are_found_at_once(history):
    history.add([ended(f"t{n}") for n in range(2100)])
    assert len(history.find([f"t{n}" for n in range(3000)], [])) == 2100


def test_heads_have_no_payloads_and_results(history):
    history.add([FULL, *(ended(f"t{n}", depends_on=["x"]) for n in range(1200))])
    [head] = history.heads(["full", "nobody"])
    assert head == msgspec.structs.replace(FULL.task, payload="{}", result=None)
    heads = history.heads([f"t{n}" for n in range(1200)])
    assert sorted(task.id for task in heads) == sorted(f"t{n}" for n in range(1200))
    assert {tuple(task.depends_on) for task in heads} == {("x",)}


def test_many_are_told_without_their_payloads_for_as_long_as_there_is_room(history):
    history.add([ended(f"t{n:04}", payload='{"a":1}', result=str(n)) for n in range(1200)])
    told = []

    def take(task):
        told.append(task)
        return len(told) % 700 != 0

    wanted = [f"t{n:04}" for n in range(1200)] + ["nobody"]
    history.tell(wanted, take)
    assert len(told) == 700
    history.tell([task_id for task_id in wanted if task_id not in {task.id for task in told}], take)
    assert {(task.id, task.payload, task.result) for task in told} == {(f"t{n:04}", "{}", str(n)) for n in range(1200)}


def test_lists_have_no_payloads_and_results(history):
    history.add([FULL])
    tasks, total = history.scan(ScanTasks(), 10)
    assert tasks == [msgspec.structs.replace(FULL.task, payload="{}", result=None)]
    assert total == 1


def test_lists_are_newest_first_or_oldest_first(history):
    history.add([ended(f"t{n}", created_at=float(n)) for n in (2, 1, 3)] + [ended("t0", created_at=2.0)])
    assert ids(history) == ["t3", "t0", "t2", "t1"]
    assert ids(history, oldest_first=True) == ["t1", "t2", "t0", "t3"]


def test_a_list_has_the_first_and_how_many_there_are(history):
    history.add([ended(f"t{n}", created_at=float(n)) for n in range(10)])
    tasks, total = history.scan(ScanTasks(limit=1, offset=7), 3)
    assert [task.id for task in tasks] == ["t9", "t8", "t7"]
    assert total == 10


@pytest.mark.parametrize(
    ("ask", "expected"),
    [
        ({"status": "completed"}, ["d", "a"]),
        ({"status": "failed"}, ["b"]),
        ({"status": "queued"}, []),
        ({"owner": "me"}, ["b", "a"]),
        ({"owner": ""}, ["d", "c"]),
        ({"worker": "w1"}, ["a"]),
        ({"types": ["echo", "other"]}, ["d", "c", "b", "a"]),
        ({"types": ["other"]}, ["d"]),
        ({"tags": ["red"]}, ["c", "b"]),
        ({"tags": ["red", "blue"]}, ["b"]),
        ({"tags": ["re"]}, []),
        ({"id_prefix": "b"}, ["b"]),
        ({"id_prefix": "%"}, []),
        ({"priority_min": 7.0}, ["c"]),
        ({"owner": "me", "status": "failed", "tags": ["blue"]}, ["b"]),
    ],
)
def test_lists_are_filtered(history, ask, expected):
    history.add(
        [
            ended("a", owner="me", worker="w1", created_at=1.0),
            ended("b", owner="me", tags=["red", "blue"], state=TaskState.FAILED, created_at=2.0),
            ended("c", tags=["red"], state=TaskState.CANCELLED, priority=8.0, created_at=3.0),
            ended("d", type="other", created_at=4.0),
        ]
    )
    assert ids(history, **ask) == expected
    assert history.scan(ScanTasks(**ask), 1)[1] == len(expected)


def test_a_tag_may_have_any_text(history):
    for number, tag in enumerate(['"', "\\", ",", '","', "ä%_"]):
        history.add([ended(f"t{number}", tags=[tag])])
        assert ids(history, tags=[tag]) == [f"t{number}"]


def test_what_has_had_its_time_is_unknown_and_then_forgotten(history, clock):
    history.add([ended("a", drop_at=NOW + 1, owner="me", key="k"), ended("b", drop_at=NOW + 5)])
    clock.now = NOW + 1
    assert history.get("a") is None
    assert history.find(["a"], [("me", "k")]) == []
    for ask in ({}, {"status": "completed"}, {"types": ["echo"]}, {"worker": ""}, {"id_prefix": "b"}):
        assert history.scan(ScanTasks(**ask), 10)[1] == 1
        assert ids(history, **ask) == ["b"]
    assert history.forget(clock.now, 100) == 1
    assert history.forget(clock.now, 100) == 0
    assert history.counts() == {("echo", TaskState.COMPLETED): 1}


def test_so_many_are_forgotten_and_no_more(history):
    history.add([ended(f"t{n}", drop_at=NOW + n) for n in range(10)])
    assert history.forget(NOW + 20, 4) == 4
    assert ids(history, oldest_first=True) == [f"t{n}" for n in range(4, 10)]


def test_clearing_takes_states_that_ended_by_a_time(history):
    history.add(
        [
            ended("a", state=TaskState.FAILED, ended_at=5.0),
            ended("b", state=TaskState.FAILED, ended_at=6.0),
            ended("c", state=TaskState.CANCELLED, ended_at=1.0),
            ended("d", ended_at=1.0),
        ]
    )
    assert history.clear([TaskState.FAILED, TaskState.CANCELLED], 5.0) == 2
    assert sorted(ids(history)) == ["b", "d"]
    assert history.clear([], 100.0) == 0


def test_another_file_is_no_history(tmp_path):
    path = tmp_path / "history.db"
    path.write_bytes(b"something else" * 500)
    with pytest.raises(UnavailableError, match="can't be used"):
        SQLiteHistory(path).open()
    path.unlink()
    con = sqlite3.connect(path)
    con.execute("CREATE TABLE t(x)")
    con.close()
    with pytest.raises(UnavailableError, match="another program"):
        SQLiteHistory(path).open()


def test_a_history_of_a_later_version_is_refused(history, tmp_path):
    history.close()
    con = sqlite3.connect(tmp_path / "history.db")
    con.execute("PRAGMA user_version=9")
    con.close()
    with pytest.raises(UnavailableError, match="version 9"):
        SQLiteHistory(tmp_path / "history.db").open()
