# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which task is next, against a look at all tasks: limits hold, nothing that may start is overlooked, and within a
fairness key the first by order is given."""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest

from actors.p2p.task_queue import events as ev
from actors.p2p.task_queue import ready
from actors.p2p.task_queue.limits import QueueLimits, Rate
from actors.p2p.task_queue.machine import Machine
from actors.p2p.task_queue.operations import decide
from actors.task_messages import Cancel, Claim, Complete, Enqueue, Pause, Release, Reprioritise, Resume, TaskState

LIMITS = QueueLimits(
    max_running_per_key=3,
    concurrency={"a": 4},
    rates={"b": Rate(per_s=1.0, burst=2)},
    weights={"k1": 2.0},
    worker_timeout_s=5.0,
    lease_s=1000.0,
)
TYPES = ["a", "b", "c"]
KEYS = ["k1", "k2", "k3"]
WORKERS = ["w1", "w2"]


class Bucket:
    """Starts of type `b`, counted anew from all of them."""

    def __init__(self):
        self.level, self.at = 2.0, 0.0

    def allows(self, now):
        return min(2.0, self.level + (now - self.at)) >= 1.0

    def take(self, now):
        self.level, self.at = min(2.0, self.level + (now - self.at)) - 1.0, now


def eligible(machine, claim, bucket):
    """All that this claim may be given, by a look at everything."""
    s, tasks = machine.state, [item.task for item in machine.state.tasks.values()]
    running = [task for task in tasks if task.state == TaskState.LEASED]
    by_key = Counter(task.fairness_key for task in running)
    by_type = Counter(task.type for task in running)

    def may(task):
        alive = task.sticky_worker in s.workers and machine.now - s.workers[task.sticky_worker].seen_at < 5.0
        return (
            task.state == TaskState.READY
            and not {"", task.type} & s.paused.keys()
            and task.fairness_key not in s.ready.paused
            and (not claim.types or task.type in claim.types)
            and task.type not in claim.without
            and set(task.needs) <= set(claim.capabilities)
            and (not claim.needing or claim.needing in task.needs)
            and (not task.sticky_worker or task.sticky_worker == claim.worker or not alive)
            and by_key[task.fairness_key] < 3
            and (task.type != "a" or by_type["a"] < 4)
            and (task.type != "b" or bucket.allows(machine.now))
        )

    return [task for task in tasks if may(task)]


def order(machine, task):
    return task.created_at - task.priority * LIMITS.ageing_s, machine.state.tasks[task.id].seq


def something(rng, n):
    return Enqueue(
        type=rng.choice(TYPES),
        id=f"t{n}",
        fairness_key=rng.choice([*KEYS, *KEYS, f"rare {n}"]),
        priority=rng.choice([1.0, 5.0, 9.0]),
        needs=rng.choice([[], [], ["gpu"]]),
        sticky_worker=rng.choice(["", "", "w1", "unknown"]),
    )


def one_claim(rng, machine, bucket):
    op = Claim(
        worker=rng.choice(WORKERS),
        types=rng.choice([[], [], ["a"], ["b", "c"]]),
        without=rng.choice([[], [], ["c"]]),
        capabilities=rng.choice([[], ["gpu"]]),
        needing=rng.choice(["", "", "gpu"]),
    )
    if (worker := machine.state.workers.get(op.worker)) is not None:
        worker.seen_at = machine.now  # as the claim itself will say
    allowed = eligible(machine, op, bucket)
    given = decide(machine, op).tasks
    if not allowed:
        assert given == []
        return
    [lease] = given
    task = next(task for task in allowed if task.id == lease.id)
    rivals = [other for other in allowed if other.fairness_key == task.fairness_key]
    assert min(rivals, key=lambda other: order(machine, other)) is task
    if task.type == "b":
        bucket.take(machine.now)


def anything_else(rng, machine, n):
    tasks = [item.task for item in machine.state.tasks.values()]
    task = rng.choice(tasks) if tasks else None
    if task is None or rng.random() < 0.45:
        return something(rng, n)
    if task.state == TaskState.LEASED:
        return rng.choice([Complete(id=task.id, token=task.token), Release(id=task.id, token=task.token, counts=False)])
    return rng.choice(
        [
            Cancel(id=task.id),
            Reprioritise(id=task.id, priority=rng.choice([1.0, 5.0, 9.0])),
            Pause(type=rng.choice(["", *TYPES])),
            Pause(fairness_key=task.fairness_key),
            Resume(),
            Resume(),
            Resume(fairness_key=rng.choice(KEYS)),
            Resume(fairness_key=task.fairness_key),
            *(Resume(type=type_) for type_ in TYPES),
        ]
    )


@pytest.fixture(params=["as it is", "forgetful"])
def memory(request, monkeypatch):
    """A queue that remembers hardly any fairness key that has nothing there does not go other ways."""
    if request.param == "forgetful":
        for name in ("_MANY_KEYS", "_MANY_STALE", "_MANY_PARKED"):
            monkeypatch.setattr(ready, name, 1)


@pytest.mark.parametrize("number", range(8))
def test_nothing_that_may_start_is_overlooked_and_no_limit_is_exceeded(number, memory):
    chosen = int(os.environ.get("GREENROOM_TEST_SEED") or random.randrange(2**32)) + number
    print(f"GREENROOM_TEST_SEED={chosen - number}")
    rng = random.Random(chosen)
    machine, bucket = Machine(LIMITS, rng), Bucket()
    now = 1e6
    machine.opened(now)
    for n in range(400):
        now += rng.choice([0.0, 0.125, 1.0])  # floats add them exactly
        machine.begin(now)
        if rng.random() < 0.4:
            one_claim(rng, machine, bucket)
        else:
            decide(machine, anything_else(rng, machine, n))
        if machine.state.ended:
            machine.emit([ev.ARCHIVED, *machine.state.ended])
        machine.end()
