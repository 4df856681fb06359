# SPDX-License-Identifier: AGPL-3.0-or-later
"""The scheduler's file: what is written is there, wholly; who may not have it is told why."""

from __future__ import annotations

import os
import sqlite3
from collections import Counter

import pytest

from actors.errors import UnavailableError
from actors.p2p.workflow_scheduler.records import Batch, Change, EventRow, Head, Submission
from actors.p2p.workflow_scheduler.store import WorkflowStore
from actors.workflow_messages import ListWorkflows, StepView, WorkflowView


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(tmp_path, clock):
    made = WorkflowStore(tmp_path / "workflows.sqlite", now=clock)
    made.open()
    yield made
    made.close()


def view(workflow_id="w", status="running", **more):
    return WorkflowView(
        workflow_id=workflow_id, name="n", cid="c", owner="", status=status, version=1, created_at=1.0, **more
    )


def new(workflow_id="w", at=1.0, owner="", **more):
    """A new workflow with one event and two blocks."""
    return Change(
        id=workflow_id,
        new=Submission(id=workflow_id, owner=owner, workflow=b"{}", digest=b"d", cid=b"c", created_at=at),
        events=[EventRow(b"e1", b"n1", b"p1")],
        blocks={b"c": b"definition", b"o": b'"output"'},
        head=Head(view=view(workflow_id, **more)),
    )


def ended(workflow_id="w", drop_at=2000.0, steps=()):
    return Change(
        id=workflow_id,
        head=Head(
            view=view(workflow_id, "completed"),
            whole=view(workflow_id, "completed", steps=list(steps)),
            open=False,
            drop_at=drop_at,
        ),
    )


def again(store, clock):
    """As a new life finds the file."""
    store.close()
    store.open()
    return store


def test_all_that_was_written_is_there_in_another_life(store, clock):
    step = StepView(step_id="a", action="echo", status="completed", cid="s")
    store.write(Batch(changes=[new()], memos={b"k": '"memo"'}, tally=Counter(completed=2)))
    store.write(Batch(changes=[Change(id="w", events=[EventRow(b"e2", b"n2", b"p2")], workers={"me"})]))
    store.write(Batch(changes=[ended(steps=[step])], tally=Counter(completed=1)))
    store = again(store, clock)
    assert store.find("w").view.status == "completed"
    assert store.submission("w").workflow == b"{}"
    assert [row.cid for row in store.events("w")] == [b"e1", b"e2"]
    assert store.blocks("w", [b"o", b"c", b"nothing"]) == {b"c": b"definition", b"o": b'"output"'}
    assert store.block_sizes("w") == [(b"c", 10), (b"o", 8)]
    assert store.whole("w").steps == [step]
    assert store.memos([b"k", b"other"], 0.0) == {b"k": '"memo"'}
    assert store.tally() == {"completed": 3}
    assert store.counts() == {"completed": 1}
    assert store.open_ones() == []


def test_those_that_something_is_left_to_do_for_are_found_oldest_first(store):
    store.write(Batch(changes=[new("a"), new("b"), new("c")]))
    store.write(Batch(changes=[ended("b")]))
    assert [one.id for one in store.open_ones()] == ["a", "c"]


def test_a_batch_is_written_wholly_or_not_at_all(store, clock):
    store.write(Batch(changes=[new("a")]))
    with pytest.raises(sqlite3.IntegrityError):
        store.write(Batch(changes=[new("b"), new("a")], memos={b"k": "1"}))
    store = again(store, clock)
    assert store.find("b") is None
    assert store.memos([b"k"], 0.0) == {}


def test_the_same_output_twice_is_one_block(store):
    store.write(Batch(changes=[new()]))
    store.write(Batch(changes=[Change(id="w", blocks={b"o": b'"output"'}, workers={"me"})]))
    store.write(Batch(changes=[Change(id="w", workers={"me"})]))
    assert len(store.block_sizes("w")) == 2


def test_memos_grow_old_and_newer_ones_take_their_place(store, clock):
    store.write(Batch(memos={b"k": "1"}))
    assert store.memos([b"k"], clock.now) == {b"k": "1"}
    assert store.memos([b"k"], clock.now + 1.0) == {}
    clock.now += 10.0
    store.write(Batch(memos={b"k": "2"}))
    store.forget(clock.now - 5.0)
    assert store.memos([b"k"], 0.0) == {b"k": "2"}
    store.forget(clock.now + 1.0)
    assert store.memos([b"k"], 0.0) == {}


def test_what_is_dropped_leaves_nothing(store, clock):
    store.write(Batch(changes=[new("a"), new("b"), Change(id="b", workers={"me"})]))
    store.write(Batch(changes=[ended("b", drop_at=clock.now)]))
    assert store.forget(0.0) == 1
    assert store.forget(0.0) == 0
    assert store.find("b") is None
    for table, rows in {"workflow": 1, "event": 1, "block": 2, "step_worker": 0}.items():
        with store._reader.use() as con:
            assert con.execute(f"SELECT count(*) FROM {table}").fetchone() == (rows,), table


def test_lists_are_newest_first_within_all_that_is_asked(store):
    store.write(
        Batch(changes=[new(f"w{n}", float(n), owner="me" if n % 2 else "", tags=["t", f"n{n}"]) for n in range(6)])
    )
    store.write(Batch(changes=[Change(id="w3", workers={"x"}), ended("w5")]))

    def listed(**ask):
        found, total = store.page(ListWorkflows(**ask))
        return [one.id for one in found], total

    assert listed() == (["w5", "w4", "w3", "w2", "w1", "w0"], 6)
    assert listed(limit=2, offset=1) == (["w4", "w3"], 6)
    assert listed(owner="me") == (["w5", "w3", "w1"], 3)
    assert listed(owner="me", status="running") == (["w3", "w1"], 2)
    assert listed(tags=["t", "n2"]) == (["w2"], 1)
    assert listed(worker="x") == (["w3"], 1)
    assert listed(tags=["%"]) == ([], 0)


def test_one_whose_time_has_passed_is_in_no_list(store, clock):
    store.write(Batch(changes=[new("a"), new("b")]))
    store.write(Batch(changes=[ended("b", drop_at=clock.now)]))
    assert [one.id for one in store.page(ListWorkflows())[0]] == ["a"]


# --- whose file it is ------------------------------------------------------------------------------------------------


def test_a_file_that_a_process_has_is_refused_with_its_pid(store, clock):
    with pytest.raises(UnavailableError, match=f"in use by pid {os.getpid()}"):
        WorkflowStore(store.path, now=clock).open()
    store.write(Batch(changes=[new()]))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: path.write_bytes(b"no database" * 1000), "SQLite says"),
        (lambda path: sqlite3.connect(path).execute("CREATE TABLE x(y)").connection.close(), "another program's"),
        (
            lambda path: (
                sqlite3.connect(path)
                .executescript("CREATE TABLE x(y); PRAGMA application_id=1196578630; PRAGMA user_version=99")
                .connection.close()
            ),
            "version 99",
        ),
    ],
)
def test_a_foreign_file_is_refused_and_left_as_it_is(tmp_path, clock, make, why):
    path = tmp_path / "workflows.sqlite"
    make(path)
    before = path.read_bytes()
    with pytest.raises(UnavailableError, match=why):
        WorkflowStore(path, now=clock).open()
    assert path.read_bytes() == before


def test_a_folder_that_is_not_there_is_made(tmp_path, clock):
    store = WorkflowStore(tmp_path / "a" / "b" / "workflows.sqlite", now=clock)
    store.open()
    store.close()
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


def test_each_batch_is_synced(store):
    """Full: SQLite waits for the disk with each commit."""
    with store._writer.use() as con:
        assert con.execute("PRAGMA synchronous").fetchone() == (2,)
        assert con.execute("PRAGMA journal_mode").fetchone() == ("wal",)
