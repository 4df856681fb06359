# SPDX-License-Identifier: AGPL-3.0-or-later
"""What nodes say to each other is bounded in every field, and its bytes do not change unnoticed."""

from __future__ import annotations

import msgspec
import pytest
from msgspec import inspect

from actors.p2p.peer_registry.link import hello, messages
from actors.p2p.peer_registry.link.messages import ANSWERS, NOTES, Said

KINDS = sorted(
    {
        kind
        for module in (messages, hello)
        for kind in vars(module).values()
        if isinstance(kind, type)
        and issubclass(kind, msgspec.Struct)
        and kind not in (Said, msgspec.Struct, hello.PeerHello, hello.LinkRules)
    },
    key=lambda kind: kind.__name__,
)

PARTS = {messages.PeerPlace, messages.ClockPlace, messages.WorkEvent}
"""Of messages."""
GOLDEN = {
    "ClockPlace": "85a46b696e64ab636c6f636b5f706c616365ab776f726b666c6f775f6964a177a56166746572a163"
    "a668656967687403a373657102",
    "Pull": "82a46b696e64a470756c6ca16e02",
    "ResultTaken": "83a46b696e64ac726573756c745f74616b656ea86163636570746564c3a66d6572676564c3",
    "WorkEvent": "83a46b696e64aa776f726b5f6576656e74a46e6f6465c4016ea77061796c6f6164c40170",
    "Accepted": "82a46b696e64a86163636570746564aa667265655f736c6f747302",
    "CallTool": "83a46b696e64a963616c6c5f746f6f6ca46e616d65a3616464a9617267756d656e7473a77b2261223a317d",
    "Echo": "82a46b696e64a46563686fa464617461c40178",
    "Heartbeat": "83a46b696e64a9686561727462656174aa667265655f736c6f747301a46c6f6164cb3fe0000000000000",
    "Offer": "86a46b696e64a56f66666572a77461736b5f6964a174a5746f6b656e07a474797065a3616464a77061796c6f6164a27b7d"
    "a76c656173655f73cb403e000000000000",
    "TaskResult": "84a46b696e64ab7461736b5f726573756c74a77461736b5f6964a174a5746f6b656e07a66f7574707574a131",
}
EXAMPLES = {
    "ClockPlace": messages.ClockPlace(workflow_id="w", after="c", height=3, seq=2),
    "Pull": messages.Pull(n=2),
    "ResultTaken": messages.ResultTaken(accepted=True, merged=True),
    "WorkEvent": messages.WorkEvent(node=b"n", payload=b"p"),
    "Accepted": messages.Accepted(free_slots=2),
    "CallTool": messages.CallTool(name="add", arguments='{"a":1}'),
    "Echo": messages.Echo(data=b"x"),
    "Heartbeat": messages.Heartbeat(free_slots=1, load=0.5),
    "Offer": messages.Offer(task_id="t", token=7, type="add", payload="{}", lease_s=30.0),
    "TaskResult": messages.TaskResult(task_id="t", token=7, output="1"),
}


def unbounded(found: inspect.Type, where: str) -> list[str]:
    """The places in a type where a value may be of any size."""
    match found:
        case inspect.StrType() | inspect.BytesType():
            return [] if found.max_length is not None else [where]
        case inspect.IntType() | inspect.FloatType():
            return [] if found.le is not None and found.ge is not None else [where]
        case inspect.ListType():
            inner = unbounded(found.item_type, f"{where}[]")
            return inner if found.max_length is not None else [where, *inner]
        case inspect.UnionType():
            return [place for kind in found.types for place in unbounded(kind, where)]
        case inspect.StructType():
            return [place for field in found.fields for place in unbounded(field.type, f"{where}.{field.encode_name}")]
        case inspect.BoolType() | inspect.NoneType():
            return []
        case _:
            return [f"{where}: {found}"]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_field_is_bounded(kind):
    assert unbounded(inspect.type_info(kind), kind.__name__) == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_unknown_fields_are_refused_but_in_the_first_frame(kind):
    assert kind.__struct_config__.forbid_unknown_fields == (kind is not hello.Hello)
    assert kind.__struct_config__.frozen


def test_the_look_for_bounds_finds_what_lacks_them():
    class Loose(msgspec.Struct):
        text: str
        numbers: list[int]
        anything: dict[str, str] = {}

    assert len(unbounded(inspect.type_info(Loose), "Loose")) == 4


def test_each_message_is_a_request_an_answer_a_note_a_part_of_one_or_the_link_s_own():
    said = {kind for kind in KINDS if kind.__module__ == messages.__name__}
    answers = {answer for those in ANSWERS.values() for answer in those}
    assert said == ANSWERS.keys() | answers | NOTES | {messages.Problem, messages.End, *PARTS}
    assert not NOTES & (ANSWERS.keys() | answers)


@pytest.mark.parametrize("name", list(GOLDEN))
def test_the_bytes_of_messages_stay_as_they_are(name):
    said = msgspec.msgpack.encode(EXAMPLES[name])
    assert said.hex() == GOLDEN[name]
    assert msgspec.msgpack.decode(said, type=type(EXAMPLES[name])) == EXAMPLES[name]
