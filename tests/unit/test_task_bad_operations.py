# SPDX-License-Identifier: AGPL-3.0-or-later
"""Whatever can be decoded is answered: no operation ends the queue, or leaves what its log cannot hold."""

from __future__ import annotations

import datetime as dt
import os
import random
import typing

import libipld
import msgspec
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from actors.messages import ErrorInfo
from actors.p2p.task_queue.apply import replay
from actors.p2p.task_queue.carry import carried
from actors.p2p.task_queue.events import LEASED
from actors.p2p.task_queue.limits import QueueLimits
from actors.p2p.task_queue.machine import Machine
from actors.p2p.task_queue.operations import decide
from actors.p2p.task_queue.state import State
from actors.p2p.task_queue.views import scan, stats
from actors.task_messages import Claim, Enqueue, Op, Outcome, Retry
from actors.task_views import ScanTasks

LIMITS = QueueLimits(max_payload_bytes=50, max_result_bytes=50, max_questions=3, lease_s=30.0)
NAMES = st.sampled_from(["", "a", "b", "c"])
TEXTS = st.one_of(NAMES, st.text(st.characters(exclude_categories=["Cs"]), max_size=60), st.just("\x00"))
FLOATS = st.one_of(st.sampled_from([0.0, 0.5, 5.0, 10.0, 1e6, -1.0]), st.floats())
INTS = st.one_of(st.integers(-2, 5), st.integers(-(2**63), 2**64 - 1))
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), INTS, FLOATS, TEXTS, st.binary(max_size=3))
    | st.builds(msgspec.msgpack.Ext, st.integers(0, 127), st.binary(max_size=3))
    | st.just(dt.datetime(2026, 1, 1, tzinfo=dt.UTC)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
ERRORS = st.builds(
    ErrorInfo, code=TEXTS, message=TEXTS, retryable=st.booleans(), details=st.dictionaries(TEXTS, JSON, max_size=2)
)


def of_type(kind):
    """Values of a field's type."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return st.sampled_from(args)
    if origin is list:
        return st.lists(of_type(args[0]), max_size=3)
    if origin is dict:
        return st.dictionaries(TEXTS, TEXTS, max_size=5)
    if args:  # T | None
        return st.one_of(*(st.none() if arg is type(None) else of_type(arg) for arg in args))
    return {str: TEXTS, float: FLOATS, int: INTS, bool: st.booleans(), ErrorInfo: ERRORS, Retry: RETRIES}[kind]


def operations(kind):
    """Operations of one kind: each field is as usual or anything."""
    hints = typing.get_type_hints(kind)
    fields = msgspec.structs.fields(kind)
    needed = {field.name: of_type(hints[field.name]) for field in fields if field.required}
    free = {field.name: of_type(hints[field.name]) for field in fields if not field.required}
    return st.builds(lambda must, may: kind(**must, **may), st.fixed_dictionaries(needed), some_of(free))


def some_of(strategies):
    return st.fixed_dictionaries({}, optional=strategies)


RETRIES = st.builds(Retry, max_attempts=INTS, base_s=FLOATS, factor=FLOATS, cap_s=FLOATS)
ANY = st.one_of(*(operations(kind) for kind in typing.get_args(Op)))
USUAL = st.one_of(
    st.builds(Enqueue, type=st.sampled_from(["a", "b"]), id=NAMES, depends_on=st.lists(NAMES, max_size=1)),
    st.builds(Claim, worker=st.sampled_from(["a", "b"]), n=st.integers(1, 3)),
)

BEGINNING = [
    *(Enqueue(type="a", id=f"task {n}", retry=Retry(max_attempts=0, base_s=0.0)) for n in range(4)),
    Claim(worker="w", n=3),
]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Op).decode
_decode_outcome = msgspec.msgpack.Decoder(Outcome).decode


def aimed(op, machine, n):
    """Most of those who speak of a task speak of one that is there, and of a lease that they have."""
    if isinstance(op, Enqueue) or not hasattr(op, "id") or n % 4 == 0 or not machine.state.tasks:
        return op
    items = sorted(machine.state.tasks.values(), key=lambda item: (item.where != LEASED, item.seq))
    task = items[n % 2 % len(items)].task
    op = msgspec.structs.replace(op, id=task.id)
    return msgspec.structs.replace(op, token=task.token) if hasattr(op, "token") and n % 8 else op


def live(ops, wait_s):
    """Do these, one group each, and look whether all that came of it can be told, stored, and read again."""
    machine = Machine(LIMITS, random.Random(1))
    groups = []
    now = 1e9
    for n, op in enumerate(ops):
        now += wait_s
        machine.begin(now)
        outcome = decide(machine, aimed(op, machine, n))
        assert _decode_outcome(_encode(outcome)) is not None
        groups.append((1, libipld.decode_dag_cbor(libipld.encode_dag_cbor(machine.end()))))
    again = State(LIMITS)
    replay(again, groups, 1)
    assert again.tasks.keys() == machine.state.tasks.keys()
    for group in carried(machine.state, list(machine.state.tasks.values())):
        libipld.encode_dag_cbor(group)
    _encode(scan(machine.state, ScanTasks(), 100, ())[0])
    _encode(stats(machine, {}, (), now))


def test_no_operation_ends_the_queue():
    chosen = int(os.environ.get("GREENROOM_TEST_SEED") or random.randrange(2**32))
    print(f"GREENROOM_TEST_SEED={chosen}")

    @seed(chosen)
    @settings(
        max_examples=60 * int(os.environ.get("GREENROOM_TEST_TIMES") or 1),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(USUAL | ANY, min_size=1, max_size=25), st.sampled_from([0.0, 1.0, 20.0]))
    def check(ops, wait_s):
        sent = []
        for op in ops:
            try:
                sent.append(_decode(_encode(op)))
            except (OverflowError, msgspec.ValidationError):  # nobody could have sent it
                continue
        live([*BEGINNING, *sent], wait_s)

    check()
