# SPDX-License-Identifier: AGPL-3.0-or-later
"""What is the same has the same name, what is not has another, and no data becomes a link."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import libipld
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from workflow_definitions import add, described, examples, plain_values, planned, ref, say, step, values

from actors.p2p.cids import cid_of_text, cid_text, is_cid, link, raw_link
from actors.p2p.workflow_scheduler.content import definition_block, memo_key, step_cids, workflow_of
from actors.p2p.workflow_scheduler.document import parse
from actors.workflow_messages import Step, StepRetry, Workflow

EMPTY_TEXT = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
"""CID of no bytes, as other programs write it."""


def shuffled(value: Any, by: random.Random) -> Any:
    """The same value with its keys in another order."""
    if isinstance(value, list):
        return [shuffled(part, by) for part in value]
    if not isinstance(value, dict):
        return value
    names = list(value)
    by.shuffle(names)
    return {name: shuffled(value[name], by) for name in names}


def as_text(value: Any) -> bytes:
    """Two values are the same when this is; blocks do not tell -0.0 from 0.0."""
    return msgspec.json.encode(without_signed_zero(msgspec.to_builtins(value)), order="sorted")


def without_signed_zero(value: Any) -> Any:
    if isinstance(value, list):
        return [without_signed_zero(part) for part in value]
    if isinstance(value, dict):
        return {key: without_signed_zero(part) for key, part in value.items()}
    return value + 0.0 if isinstance(value, float) else value


# --- links ---------------------------------------------------------------------------------------------------------


def test_cids_are_those_of_other_programs() -> None:
    assert cid_text(raw_link(b"")) == EMPTY_TEXT
    assert cid_of_text(EMPTY_TEXT) == raw_link(b"")
    cid, block = link({"a": 1})
    assert block == bytes.fromhex("a1616101")
    assert cid == bytes.fromhex("01711220") + hashlib.sha256(block).digest()


@examples
@given(plain_values, plain_values, st.randoms(use_true_random=False))
def test_equal_content_has_an_equal_cid_and_other_content_another(one: Any, other: Any, by: random.Random) -> None:
    assert link(one) == link(shuffled(one, by))
    assert (link(one)[0] == link(other)[0]) is (as_text(one) == as_text(other))


@pytest.mark.parametrize(
    "data",
    [b"", b"x", b"\x01\x00\x00\x00", b"\x12\x20" + bytes(32), b"\x01\x71\x12\x20" + bytes(31), bytearray(36)],
)
def test_bytes_that_are_no_cid_of_ours_are_refused(data: Any) -> None:
    with pytest.raises(ValueError, match="no CID"):
        link({"deep": [data]})


def test_links_are_links() -> None:
    cid = raw_link(b"x")
    _, block = link({"to": cid})
    assert block.hex().startswith("a162746fd82a582500")
    assert libipld.decode_dag_cbor(block) == {"to": cid}


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), 2**64, -(2**64) - 1, {1: 2}, (1,), {"\ud800": 1}, {1, 2}]
)
def test_what_is_no_json_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="DAG-CBOR"):
        link([value])


def test_what_is_too_deep_is_refused() -> None:
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(ValueError, match="deep"):
        link(deep)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "bafk",
        EMPTY_TEXT.upper(),
        EMPTY_TEXT[:-1],
        EMPTY_TEXT + "a",
        EMPTY_TEXT[:-1] + "v",  # stray bits at its end
        "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH",
        "ü",
        "\x00",
        "b",
    ],
)
def test_texts_that_are_no_cid(text: str) -> None:
    with pytest.raises(ValueError, match="is no CID"):
        cid_of_text(text)


@examples
@given(st.binary())
def test_a_cid_is_read_as_it_is_written(data: bytes) -> None:
    cid = raw_link(data)
    assert is_cid(cid)
    assert cid_of_text(cid_text(cid)) == cid


# --- steps and workflows -------------------------------------------------------------------------------------------


def cids(*steps: dict[str, Any]) -> dict[str, bytes]:
    return planned(*steps, tools=None).cids


def cid_of(**fields: Any) -> bytes:
    """Of a step behind another one."""
    return cids(step("a"), {"step_id": "b", "action": "x", **fields})["b"]


def test_a_steps_name_is_not_part_of_its_work() -> None:
    assert len(set(cids(step("a"), step("b")).values())) == 1


def test_names_of_steps_do_not_matter_where_others_refer_to_them() -> None:
    def chain(first: str, second: str) -> list[bytes]:
        when = {"all": [{"step": first, "ended": ["failed"]}, {"not": {"op": "exists", "left": ref(first, "/a")}}]}
        over = {"inputs": {"v": [ref(first, "/x")]}, "for_each": [ref(first)], "when": when}
        return list(cids(step(first), step(second, "x", first, **over)).values())

    assert chain("a", "b") == chain("b", "a") == chain("x", "y")


BASE: dict[str, Any] = {"inputs": {"x": {"$from": "a"}}, "depends_on": ["a"]}


@pytest.mark.parametrize(
    "change",
    [
        {"action": "y"},
        {"inputs": {"x": 1}},
        {"inputs": {"x": {"$from": "a", "path": "/0"}}},
        {"inputs": {"x": {"$literal": {"$from": "a"}}}},
        {"depends_on": []},
        {"when": "always"},
        {"when": {"step": "a", "ended": ["failed"]}},
        {"for_each": []},
        {"for_each": [1]},
        {"for_each": {"$from": "a"}},
        {"retry_policy": {"max_retries": 7}},
        {"timeout": 3},
        {"placement": "p2p"},
        {"memo": True},
    ],
)
def test_all_that_is_done_and_how_is_part_of_it(change: dict[str, Any]) -> None:
    workflow = parse({"name": "w", "steps": [step("a"), {"step_id": "b", "action": "x", **BASE, **change}]})
    assert step_cids(workflow, ["a", "b"])["b"] != cid_of(**BASE)


@pytest.mark.parametrize(
    "change", [{"tags": ["t"]}, {"when": "on_success"}, {"memo": False}, {"depends_on": ["a", "a"]}, {"for_each": None}]
)
def test_labels_and_defaults_are_not(change: dict[str, Any]) -> None:
    assert cid_of(**{**BASE, **change}) == cid_of(**BASE)


def test_work_before_it_is_part_of_it() -> None:
    before = cids(step("a"), step("b", "x", "a"), step("c", "x", "b"))
    after = cids(step("a", inputs={"value": 2}), step("b", "x", "a"), step("c", "x", "b"))
    assert all(before[name] != after[name] for name in "abc")


def test_numbers_of_policies_are_equal_when_they_are() -> None:
    whole = Step(step_id="a", action="x", timeout=3, retry_policy=StepRetry(backoff_factor=3))
    broken = Step(step_id="a", action="x", timeout=3.0, retry_policy=StepRetry(backoff_factor=3.0))
    assert definition_block(Workflow(name="w", steps=[whole])) == definition_block(Workflow(name="w", steps=[broken]))


def documents(value: Any) -> dict[str, Any]:
    return {
        "name": "w",
        "steps": [
            {
                "step_id": "b",
                "action": "x",
                "inputs": {"v": ref("a", "/0"), "l": {"$literal": value}},
                "depends_on": ["a"],
            },
            {"step_id": "a", "action": "x", "inputs": {"l": {"$literal": value}}, "for_each": {"$literal": [value]}},
            {
                "step_id": "c",
                "action": "x",
                "depends_on": ["b", "a"],
                "when": {"op": "==", "left": {"$literal": value}},
            },
        ],
    }


@examples
@given(values, values, st.randoms(use_true_random=False))
def test_equal_definitions_have_equal_cids_and_others_others(one: Any, other: Any, by: random.Random) -> None:
    first = definition_block(parse(documents(one)))
    assert first == definition_block(parse(shuffled(documents(one), by)))
    assert (first == definition_block(parse(documents(other)))) is (as_text(one) == as_text(other))


@examples
@given(values)
def test_a_block_is_read_as_what_it_was_made_of(value: Any) -> None:
    workflow = parse(documents(value))
    again = workflow_of(definition_block(workflow)[1])
    # The order of dependencies has no meaning.
    expected = documents(value)
    expected["steps"][2]["depends_on"] = ["a", "b"]
    assert as_text(again) == as_text(parse(expected))


def test_a_definition_is_its_name_and_steps_alone() -> None:
    document = documents(1)
    other = {**document, "workflow_id": "i", "priority": 9, "tags": ["t"], "metadata": {"m": 1}, "deadline": 5}
    assert definition_block(parse(document)) == definition_block(parse(other))
    assert definition_block(parse(document)) != definition_block(parse({**document, "name": "v"}))
    labelled = documents(1)
    labelled["steps"][0]["tags"] = ["t"]
    assert definition_block(parse(document)) != definition_block(parse(labelled))


def test_names_are_the_same_on_every_node_and_in_every_version() -> None:
    plan = planned(
        step("a", inputs={"value": [1, 0.5, None, True, "é"]}),
        step("b", "say", inputs={"text": {"$literal": "x"}}, memo=True),
        step(
            "c",
            "add",
            "b",
            "a",
            inputs={"a": ref("a", "/0"), "b": {"$item": ""}},
            for_each=ref("b"),
            when={"any": [{"step": "a", "ended": ["failed"]}, {"op": "exists", "left": ref("b", "/x")}]},
            retry_policy={"max_retries": 1},
            timeout=5,
            placement="local",
            tags=["t"],
        ),
        tools=None,
    )
    assert [cid_text(plan.cids[name]) for name in "abc"] == [
        "bafyreihnj3y2mqg5axbd7badjd4vsoi7htm7u4wvd7v64rylgqzdvydygq",
        "bafyreidtluj2chb5v5alk7vfwspridmob5qgmv54kch6r3wdgx7rbwfnde",
        "bafyreihnypz27vpmwluvvshkppi2zvximzccjoe6wpwyhaemrauqvhuduq",
    ]
    assert cid_text(plan.cid) == "bafyreib72yihb7anshprja4pxmgh6fhduv3jmv2heuzm3zteuq4vr7dnju"
    six = [step(name, inputs={"value": name}) for name in "abcdef"]
    for order in ("abcdef", "fbdace"):
        after = planned(*six, step("z", "say", *order), tools=None).cids["z"]
        assert cid_text(after) == "bafyreibgg7wvotj6vd4nkyeueygr5certq2vjypgblqxx5vr4t33x236pm"


def block_of(change: Any) -> bytes:
    """The block of a workflow, changed."""
    fields = libipld.decode_dag_cbor(definition_block(parse(documents(1)))[1])
    change(fields)
    return libipld.encode_dag_cbor(fields)


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields.pop("name"),
        lambda fields: fields.update(steps=1),
        lambda fields: fields.update(steps=[1]),
        lambda fields: fields.update(more=1),
        lambda fields: fields.update(v=2),
        lambda fields: fields["steps"][0].update(more=1),
        lambda fields: fields["steps"][0].update(when="on_success"),
        lambda fields: fields["steps"][0].update(cid=raw_link(b"")),
        lambda fields: fields["steps"][0].update(depends_on=["b"]),
        lambda fields: fields["steps"][0].update(depends_on=["nobody"]),
        lambda fields: fields["steps"][0].update(inputs={"v": {"$from": 1}}),
        lambda fields: fields["steps"][2].update(depends_on=["b", "a"]),
        lambda fields: fields["steps"].append(fields["steps"][0]),
    ],
)
def test_a_block_in_another_form_is_refused(change: Any) -> None:
    workflow_of(block_of(lambda fields: None))
    with pytest.raises(ValueError, match="the block defines"):
        workflow_of(block_of(change))


@examples
@given(st.binary(max_size=40))
def test_what_is_no_block_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="the block defines"):
        workflow_of(data)


# --- memo ----------------------------------------------------------------------------------------------------------


def test_a_memo_key_is_of_owner_tool_contract_and_arguments() -> None:
    tool = described(add)
    key = memo_key("o", tool, {"a": 1, "b": 2})
    assert key == memo_key("o", described(add), {"b": 2, "a": 1})
    others = [
        memo_key("p", tool, {"a": 1, "b": 2}),
        memo_key("o", tool, {"a": 1}),
        memo_key("o", tool, {"a": 1, "b": "2"}),
        memo_key("o", described(add, name="plus"), {"a": 1, "b": 2}),
        memo_key("o", described(say, name="add"), {"a": 1, "b": 2}),
        memo_key("o", described(add, output_schema=None), {"a": 1, "b": 2}),
    ]
    assert len({key, *others}) == 7
    assert all(map(is_cid, others))


def test_any_number_that_a_tool_gave_can_be_in_a_memo_key() -> None:
    tool = described(add)
    huge = msgspec.json.decode(b"123456789012345678901234567890")
    keys = {memo_key("", tool, {"a": value}) for value in (huge, str(huge), huge + 1, float(huge))}
    assert len(keys) == 4
