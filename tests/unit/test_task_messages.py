# SPDX-License-Identifier: AGPL-3.0-or-later
"""The task queue's values cross a border as they are."""

from __future__ import annotations

import msgspec
import pytest

from actors.task_client import method_of, repeatable
from actors.task_messages import Beat, Claim, Claimed, Enqueue, Lease, Op, Ops, Outcome, RetryTask, Submitted, TaskState


@pytest.mark.parametrize("op", [Enqueue(type="echo", tags=["a"]), Claim(worker="w", n=3), Beat(id="t", token=2**40)])
def test_an_operation_arrives_as_it_was_sent(op):
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(op), type=Op) == op
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(Ops(ops=[op, op])), type=Ops).ops == [op, op]


@pytest.mark.parametrize(
    "outcome",
    [
        Submitted(id="t", state=TaskState.READY, created_at=1.5),
        Claimed(tasks=[Lease(id="t", type="echo", token=1, lease_until=2.0, attempt=1)]),
    ],
)
def test_an_answer_arrives_as_it_was_sent(outcome):
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(outcome), type=Outcome) == outcome


def test_what_a_repeat_would_double_is_given_an_id_once():
    for op, name in ((Enqueue(type="echo"), "id"), (Claim(worker="w"), "request"), (RetryTask(id="t"), "new_id")):
        sent = repeatable(op)
        assert len(getattr(sent, name)) == 44
        assert repeatable(sent) is sent


def test_an_operation_is_the_method_of_its_name():
    assert method_of(RetryTask(id="t")) == "tasks/retry"
