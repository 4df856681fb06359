# SPDX-License-Identifier: AGPL-3.0-or-later
"""Random histories against a simple model: what a store answers and shows must be what the model says, always.

The model keeps plain records and looks through all of them for whatever it wants to know. The store crashes and is
opened again at any step; all that it acknowledged has to be there, and nothing else.
"""

from __future__ import annotations

import os
import random
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
import trio
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from task_boxes import BIG, KINDS, code

from actors.messages import ErrorInfo
from actors.task_messages import (
    AckCancel,
    Beat,
    Cancel,
    Claim,
    Complete,
    Enqueue,
    Expire,
    Fail,
    Release,
    Reprioritise,
    Retry,
    Submitted,
)
from actors.task_views import GetTask, ScanTasks

LIMITS = msgspec.structs.replace(BIG, lease_s=30.0, ageing_s=10.0, max_queue_size=8)
IDS = [f"t{n}" for n in range(12)]
TYPES = ["one", "two"]
WAITING = {"blocked", "scheduled", "ready"}
FINAL = {"completed", "failed", "cancelled", "skipped"}


@dataclass
class Known:
    """A task as the model sees it."""

    id: str
    type: str
    state: str
    created_at: float
    seq: int
    priority: float
    depends_on: list[str]
    most: int
    run_at: float = 0.0
    deadline: float | None = None
    queue_timeout_s: float | None = None
    ready_at: float = 0.0
    started: bool = False
    attempt: int = 0
    token: int = 0
    lease_until: float = 0.0
    lapsed: bool = False
    """Its last lease ran out, and nobody was given another one."""
    stop: bool = False
    result: str | None = None
    given_back: set[int] = field(default_factory=set)

    @property
    def order(self):
        return (self.created_at - self.priority * LIMITS.ageing_s, self.seq)


class Model:
    """What a queue is."""

    def __init__(self):
        self.tasks: dict[str, Known] = {}
        self.seq = 0

    def add(self, known):
        self.tasks[known.id] = known
        self.seq += 1

    def waiting(self):
        return sum(one.state in WAITING for one in self.tasks.values())

    def ready(self, types):
        return sorted(
            (one for one in self.tasks.values() if one.state == "ready" and one.type in types),
            key=lambda one: one.order,
        )

    def finish(self, one, state, now):
        one.state = state
        for child in self.tasks.values():
            if child.state == "blocked" and one.id in child.depends_on:
                if state != "completed":
                    self.finish(child, "skipped", now)
                elif all(self.tasks[parent].state == "completed" for parent in child.depends_on):
                    self.enter(child, now)

    def enter(self, one, now):
        one.state = "scheduled" if one.run_at > now else "ready"
        one.ready_at = now

    def due(self, one):
        """(when, what) of all that the clock will do to it."""
        found = []
        if one.state == "leased":
            found.append((one.lease_until, "lease"))
        if one.deadline is not None and one.state not in FINAL:
            found.append((one.deadline, "deadline"))
        if one.state == "ready" and one.queue_timeout_s is not None and not one.started:
            found.append((one.ready_at + one.queue_timeout_s, "waited"))
        return found

    def tick(self, now):
        leases = timeouts = 0
        starts = [one for one in self.tasks.values() if one.state == "scheduled" and one.run_at <= now]
        while True:
            due = [(when, what, one.seq, one) for one in self.tasks.values() for when, what in self.due(one)]
            due = [each for each in due if each[0] <= now]
            if not due:
                break
            _, what, _, one = min(due, key=lambda each: (each[0], each[1] != "lease", each[2]))
            if what == "lease":
                leases += 1
                one.lapsed = True
                if one.stop:
                    self.finish(one, "cancelled", now)
                elif one.most and one.attempt >= one.most:
                    self.finish(one, "failed", now)
                else:
                    one.state, one.ready_at = "ready", now
            else:
                timeouts += 1
                one.lapsed = False
                self.finish(one, "failed", now)
                one.token = -1 if one.token else 0
        for one in starts:
            if one.state == "scheduled":
                one.state, one.ready_at = "ready", now
        return leases, timeouts


class Histories(RuleBasedStateMachine):
    """Drives a store and the model side by side."""

    make_box = None

    def __init__(self):
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.box = self.make_box(Path(self.directory.name))
        self.model = Model()
        self.given: dict[str, list[int]] = {}
        """Tokens that were given out, by task."""
        trio.run(self.box.open)

    def teardown(self):
        trio.run(self.box.close)
        self.directory.cleanup()

    @property
    def now(self):
        return self.box.clock.now

    def do(self, op):
        return trio.run(self.box.do, op)

    # --- owners ---

    @rule(
        id_=st.sampled_from(IDS),
        type_=st.sampled_from(TYPES),
        priority=st.sampled_from([1.0, 5.0, 5.0, 5.0, 10.0]),
        parents=st.lists(st.sampled_from(IDS), max_size=2, unique=True),
        most=st.sampled_from([0, 1, 2, 3]),
        delay=st.sampled_from([None, None, None, 5.0, 20.0]),
        deadline=st.sampled_from([None, None, None, 15.0, 50.0]),
        patience=st.sampled_from([None, None, None, 10.0]),
    )
    def submit(self, id_, type_, priority, parents, most, delay, deadline, patience):
        now, model = self.now, self.model
        fields = {
            "type": type_,
            "depends_on": parents,
            "retry": Retry(max_attempts=most, base_s=4.0),
            "deadline": None if deadline is None else now + deadline,
            "queue_timeout_s": patience,
        }
        start = None if delay is None else now + delay
        op = Enqueue(id=id_, priority=priority, run_at=start, position=True, **fields)
        outcome = self.do(op)
        there = model.tasks.get(id_)
        if there is not None:
            same = (there.type, there.depends_on, there.most, there.deadline, there.queue_timeout_s) == (
                type_,
                parents,
                most,
                fields["deadline"],
                patience,
            )
            if same:
                assert outcome == Submitted(id=id_, state=there.state, created_at=there.created_at, replayed=True)
            else:
                assert code(outcome) == "ID_CONFLICT"
            return
        if model.waiting() >= LIMITS.max_queue_size:
            assert code(outcome) == "QUEUE_FULL"
            return
        if any(parent not in model.tasks for parent in parents):
            assert code(outcome) == "INVALID_PARAMS"
            return
        known = Known(id_, type_, "", now, model.seq, priority, parents, most, op.run_at or now, op.deadline, patience)
        model.enter(known, now)
        states = {model.tasks[parent].state for parent in parents}
        if states & {"failed", "cancelled", "skipped"}:
            known.state = "skipped"
        elif states - {"completed"}:
            known.state = "blocked"
        model.add(known)
        place = 1 + model.ready(TYPES).index(known) if known.state == "ready" else None
        assert msgspec.structs.replace(outcome, estimated_start=None) == Submitted(
            id=id_, state=known.state, created_at=now, position=place
        )

    @rule(id_=st.sampled_from(IDS), force=st.booleans())
    def cancel(self, id_, force):
        outcome, one = self.do(Cancel(id=id_, force=force)), self.model.tasks.get(id_)
        if one is None:
            assert code(outcome) == "NOT_FOUND"
        elif one.state == "cancelled":
            assert outcome.replayed
        elif one.state in FINAL:
            assert code(outcome) == "INVALID_STATE"
        elif one.state == "leased" and not force:
            assert (outcome.state, outcome.replayed) == ("leased", one.stop)
            one.stop = True
        else:
            assert (outcome.state, outcome.cleanup_required) == ("cancelled", one.state == "leased")
            one.lapsed = False
            self.model.finish(one, "cancelled", self.now)
            one.token = -1 if one.token else 0

    @rule(id_=st.sampled_from(IDS), priority=st.sampled_from([1.0, 5.0, 10.0]))
    def reprioritise(self, id_, priority):
        outcome, one = self.do(Reprioritise(id=id_, priority=priority)), self.model.tasks.get(id_)
        if one is None:
            assert code(outcome) == "NOT_FOUND"
        elif one.state not in WAITING:
            assert code(outcome) == "INVALID_STATE"
        else:
            assert outcome.old == one.priority
            one.priority = priority
            if one.state == "ready":
                assert outcome.position == 1 + [each.id for each in self.model.ready(TYPES)].index(id_)

    # --- workers ---

    @rule(n=st.integers(1, 3), types=st.sampled_from([[], ["one"], ["two"]]), same=st.booleans())
    def claim(self, n, types, same):
        self.model.tick(self.now)
        outcome = self.do(Claim(worker="w", n=n, types=types, same_type=same))
        expected = self.model.ready(types or TYPES)
        if same and expected:
            expected = [one for one in expected if one.type == expected[0].type]
        assert [lease.id for lease in outcome.tasks] == [one.id for one in expected[:n]]
        for lease in outcome.tasks:
            one = self.model.tasks[lease.id]
            one.state, one.lapsed, one.started = "leased", False, True
            one.attempt += 1
            assert lease.attempt == one.attempt
            assert lease.lease_until == self.now + LIMITS.lease_s
            one.lease_until = lease.lease_until
            tokens = self.given.setdefault(lease.id, [])
            assert not tokens or lease.token > max(tokens)
            tokens.append(lease.token)
            one.token = lease.token

    def holder(self, data):
        """A task and a token that somebody may have of it."""
        if not self.given:
            return None, 1
        id_ = data.draw(st.sampled_from(sorted(self.given)))
        return self.model.tasks[id_], data.draw(st.sampled_from([*self.given[id_], *[self.given[id_][-1]] * 3]))

    def why_not(self, one, token):
        """The code that the holder of this token is refused with, for all but `Complete`."""
        if token != one.token or (token in one.given_back and one.state not in FINAL):
            return "STALE_FENCE"
        if one.state in FINAL:
            return "LEASE_EXPIRED" if one.lapsed and one.state == "failed" else "INVALID_STATE"
        return "LEASE_EXPIRED" if one.state != "leased" or one.lease_until <= self.now else ""

    @rule(data=st.data())
    def beat(self, data):
        one, token = self.holder(data)
        if one is not None:
            outcome = self.do(Beat(id=one.id, token=token))
            assert code(outcome) == self.why_not(one, token)
            if not code(outcome):
                one.lease_until = max(one.lease_until, self.now + LIMITS.lease_s)
                assert (outcome.lease_until, outcome.cancel_requested) == (one.lease_until, one.stop)

    @rule(data=st.data(), result=st.sampled_from(["1", "2"]))
    def complete(self, data, result):
        one, token = self.holder(data)
        if one is None:
            return
        outcome = self.do(Complete(id=one.id, token=token, result=result))
        if one.state == "completed" and token == one.token:
            assert code(outcome) == ("" if result == one.result else "ID_CONFLICT")
            assert code(outcome) or outcome.replayed
        elif (refusal := self.why_not(one, token)) and not (refusal == "LEASE_EXPIRED" and one.state not in FINAL):
            assert code(outcome) == refusal
        else:
            assert (outcome.state, outcome.replayed) == ("completed", False)
            one.result = result
            self.model.finish(one, "completed", self.now)

    @rule(data=st.data(), retryable=st.booleans())
    def fail(self, data, retryable):
        one, token = self.holder(data)
        if one is None:
            return
        outcome = self.do(Fail(id=one.id, token=token, error=ErrorInfo(code="X", message="x", retryable=retryable)))
        if not self.gave_back(one, token, outcome):
            return
        if one.stop:
            self.model.finish(one, "cancelled", self.now)
        elif retryable and (not one.most or one.attempt < one.most):
            assert self.now < outcome.run_at <= self.now + 4.0 * 2 ** (one.attempt - 1)
            one.state, one.run_at = "scheduled", outcome.run_at
        else:
            self.model.finish(one, "failed", self.now)
        assert outcome.state == one.state

    @rule(data=st.data(), counts=st.booleans())
    def release(self, data, counts):
        one, token = self.holder(data)
        if one is None:
            return
        outcome = self.do(Release(id=one.id, token=token, counts=counts))
        if not self.gave_back(one, token, outcome):
            return
        if one.stop:
            self.model.finish(one, "cancelled", self.now)
        elif counts and one.most and one.attempt >= one.most:
            self.model.finish(one, "failed", self.now)
        else:
            one.state, one.ready_at = "ready", self.now
        one.attempt -= not counts
        assert outcome.state == one.state

    def gave_back(self, one, token, outcome):
        """Whether this ended the lease just now."""
        if code(outcome) == "" and outcome.replayed:
            # A repeat; which of the two ways it was is no matter of the model's.
            assert token in one.given_back or (one.state in FINAL and token == one.token)
            return False
        refusal = self.why_not(one, token)
        assert code(outcome) == refusal
        if refusal:
            return False
        one.given_back.add(token)
        return True

    @rule(data=st.data())
    def acknowledge(self, data):
        one, token = self.holder(data)
        if one is None:
            return
        outcome = self.do(AckCancel(id=one.id, token=token))
        if one.state == "cancelled" and token == one.token:
            assert outcome.replayed
        elif refusal := self.why_not(one, token):
            assert code(outcome) == refusal
        elif not one.stop:
            assert code(outcome) == "INVALID_STATE"
        else:
            assert outcome.state == "cancelled"
            self.model.finish(one, "cancelled", self.now)

    # --- time and fate ---

    @rule(seconds=st.sampled_from([0.5, 3.0, 11.0, 31.0, 100.0]))
    def later(self, seconds):
        self.box.later(seconds)

    @rule()
    def expire(self):
        expected = self.model.tick(self.now)
        outcome = self.do(Expire())
        assert (outcome.leases, outcome.timeouts) == expected
        assert outcome.next_at is None or outcome.next_at > self.now or self.box.store.next_due() <= self.now

    @rule()
    def settle(self):
        trio.run(self.box.settle)

    @rule()
    def crash(self):
        recovery = trio.run(self.box.reopen)
        states = [one.state for one in self.model.tasks.values()]
        assert recovery.tasks == sum(state not in FINAL for state in states)
        assert recovery.leased == states.count("leased")
        for one in self.model.tasks.values():
            if one.state == "leased":
                until = trio.run(self.box.task, one.id).lease_until
                assert until >= max(one.lease_until, self.now + LIMITS.lease_s / 3)
                assert until <= self.now + LIMITS.lease_s * 4 / 3
                one.lease_until = until

    @invariant()
    def shows_what_the_model_says(self):
        async def look():
            views = {id_: await self.box.store.get(GetTask(id=id_)) for id_ in IDS}
            return views, await self.box.store.scan(ScanTasks()), await self.box.store.stats()

        views, page, stats = trio.run(look)
        assert page.total == len(self.model.tasks)
        assert {task.id for task in page.tasks} == self.model.tasks.keys()
        assert sum(stats.counts.values()) == len(self.model.tasks)
        for id_, view in views.items():
            one = self.model.tasks.get(id_)
            assert (view is None) == (one is None)
            if one is not None:
                task = view.task
                assert (task.state, task.attempt, task.result, task.priority) == (
                    one.state,
                    one.attempt,
                    one.result,
                    one.priority,
                )
                if one.token > 0:
                    assert task.token == one.token
                elif one.token < 0:  # ended by force: nobody has this token
                    assert task.token > max(self.given[id_])
                assert task.blocked_by == sum(
                    one.state == "blocked" and self.model.tasks[parent].state not in FINAL for parent in one.depends_on
                )


@pytest.mark.parametrize(("kind", "examples"), [("memory", 20), ("rotating", 20), ("sqlite", 3), ("duckdb", 2)])
def test_random_histories(kind, examples):
    class OfKind(Histories):
        make_box = staticmethod(lambda directory: KINDS[kind](directory, LIMITS))

    chosen = int(os.environ.get("GREENROOM_TEST_SEED") or random.randrange(2**32))
    print(f"GREENROOM_TEST_SEED={chosen}")
    run_state_machine_as_test(
        seed(chosen)(OfKind),
        settings=settings(
            max_examples=examples * int(os.environ.get("GREENROOM_TEST_TIMES") or 1),
            stateful_step_count=40,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
