# SPDX-License-Identifier: AGPL-3.0-or-later
"""The queue protocol: requests, and operations of those who submit and of those who work."""

from __future__ import annotations

import base64
import hashlib
import json

import peer_queue
import pytest
import trio
from cryptography.fernet import Fernet
from peer_queue import ADA, BOB, HERE, SECRET
from trio.testing import wait_all_tasks_blocked

from actors.messages import ErrorInfo
from actors.p2p.peer_registry.queue_protocol.names import principal_of, worker_name
from actors.task_messages import Cancel, Complete, Ended, Enqueue, Fail, RegisterWorker, Submitted
from actors.task_views import GetTask


@pytest.fixture
async def rig(tmp_path):
    async with peer_queue.open_rig(tmp_path) as rig:
        yield rig


async def task_of(rig, task_id):
    return (await rig.desk.get(GetTask(id=task_id))).task


async def local(rig, task_type="dig", **more):
    """A task of this node's own."""
    return (await rig.desk.do(Enqueue(type=task_type, owner="me", **more), Submitted)).id


# --- requests ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"no JSON\n", "invalid_json"),
        (b"\xff\n", "invalid_json"),
        (b"\n", "invalid_json"),
        (b"{\n", "invalid_json"),
        (b"[" * 5000 + b"\n", "invalid_json"),
        (b"[]\n", "invalid_message"),
        (b"5\n", "invalid_message"),
        (b"{}\n", "unauthorized"),
    ],
)
async def test_what_is_no_request_has_a_word(rig, line, error):
    said = await rig.raw(line)
    reply = json.loads(said)
    assert (reply["ok"], reply["peer_id"], reply["error"]) == (False, HERE, error)
    assert said.endswith(b"\n")


async def test_nothing_is_answered_to_nothing(rig):
    assert await rig.raw(b"") == b""


async def test_the_end_of_the_stream_is_as_good_as_that_of_the_line(rig):
    request = json.dumps({"op": "status", "token": SECRET}).encode()
    assert json.loads(await rig.raw(request))["ok"] is True


async def test_one_request_is_answered_on_a_stream(rig):
    request = json.dumps({"op": "status", "token": SECRET}).encode() + b"\n"
    assert (await rig.raw(request * 3)).count(b"\n") == 1


async def test_a_request_may_have_so_many_bytes(tmp_path):
    async with peer_queue.open_rig(tmp_path, max_message_bytes=2000) as rig:
        line = json.dumps({"op": "status", "token": SECRET, "x": ""}).encode()
        fits = line.replace(b'""', b'"%s"' % (b"x" * (1999 - len(line))))
        assert len(fits + b"\n") == 2000
        assert json.loads(await rig.raw(fits + b"\n"))["ok"] is True
        assert json.loads(await rig.raw(fits + b" \n"))["error"] == "frame_too_large"
        assert json.loads(await rig.raw(b"x" * 100_000))["error"] == "frame_too_large"


async def test_a_reply_may_have_no_more_either(tmp_path):
    async with peer_queue.open_rig(tmp_path, max_message_bytes=6000) as rig:
        task_id = await rig.submit(payload={"x": "y" * 5700})
        reply = await rig("get", task_id=task_id)
        assert (reply["ok"], reply["error"]) == (False, "frame_too_large")


async def test_a_request_that_does_not_come_is_not_waited_for(tmp_path, autojump_clock):
    async with peer_queue.open_rig(tmp_path, running=False, request_timeout_s=7) as rig:
        stream = rig.stream()
        await stream.write(b'{"op"')
        started = trio.current_time()
        assert json.loads(await stream.read())["error"] == "timeout"
        assert trio.current_time() - started == pytest.approx(7)


@pytest.mark.parametrize("token", [None, "", "wrong", 5, ["open sesame"], "x" * 5000, "open sesamé", "\ud800"])
async def test_without_the_secret_nothing_is_done(rig, token):
    reply = await rig("submit", task_type="dig", token=token)
    assert reply["error"] in ("unauthorized", "invalid_json")
    assert (await rig("list"))["tasks"] == []


async def test_a_wrong_secret_is_noticed(rig):
    await rig("status", token="wrong")
    await rig("status", token=None)
    assert rig.violations == [(ADA, "a wrong token of the queue protocol")]


@pytest.mark.parametrize("secret", [None, ""])
async def test_a_node_without_a_secret_refuses_everybody(tmp_path, secret):
    async with peer_queue.open_rig(tmp_path, secret=secret) as rig:
        for token in (None, "", SECRET):
            assert (await rig("status", token=token))["error"] == "unauthorized"


async def test_a_peer_id_is_no_permission_and_a_secret_alone_is_none_either(rig):
    rig.forbidden.add(("ask", BOB))
    assert (await rig("status", BOB))["error"] == "unauthorized"
    assert (await rig("status"))["ok"] is True


@pytest.mark.parametrize("op", ["nothing", "", "task.nothing", "submit "[:-2]])
async def test_an_unknown_operation_is_one(rig, op):
    assert (await rig(op))["error"] == "unknown_op"


@pytest.mark.parametrize("op", [None, 5, ["status"]])
async def test_an_operation_is_text(rig, op):
    said = await rig.raw(json.dumps({"op": op, "token": SECRET}).encode() + b"\n")
    assert json.loads(said)["error"] == "invalid_message"


async def test_operations_are_trimmed_and_lower_cased(rig):
    assert (await rig("  StaTus "))["ok"] is True


# --- submit --------------------------------------------------------------------------------------------------------


async def test_a_task_is_submitted_in_the_name_of_its_peer(rig):
    reply = await rig("submit", task_type="dig", model_name="m", payload={"depth": 2}, priority=7)
    task = await task_of(rig, reply["task_id"])
    assert (task.type, task.model_name, task.payload, task.priority) == ("dig", "m", '{"depth":2}', 7)
    assert (task.owner, task.fairness_key) == (principal_of(ADA), principal_of(ADA))


async def test_what_is_left_out_has_its_default(rig):
    task = await task_of(rig, (await rig("submit"))["task_id"])
    assert (task.type, task.model_name, task.payload, task.priority) == ("text-generation", "", "{}", 5)


@pytest.mark.parametrize("value", [5, "text", [1], True])
async def test_a_payload_that_is_no_object_becomes_one(rig, value):
    task = await task_of(rig, (await rig("submit", payload=value))["task_id"])
    assert json.loads(task.payload) == {"payload": value}


async def test_with_a_key_a_repeat_makes_no_second_task(rig):
    first = await rig("submit", payload={"a": 1}, idempotency_key="k")
    assert await rig("submit", payload={"a": 1}, idempotency_key="k") == first | {"replayed": True}
    assert (await rig("submit", payload={"a": 2}, idempotency_key="k"))["error"] == "id_conflict"
    assert (await rig("submit", BOB, payload={"a": 1}, idempotency_key="k"))["task_id"] != first["task_id"]


@pytest.mark.parametrize(
    "fields",
    [
        {"priority": 0}, {"priority": 11}, {"priority": "5"}, {"priority": True}, {"task_type": 5},
        {"task_type": "x" * 201}, {"model_name": []}, {"idempotency_key": 1}, {"payload": {"x": "y" * 1_000_001}},
    ],
)  # fmt: skip
async def test_odd_fields_are_refused(tmp_path, fields):
    async with peer_queue.open_rig(tmp_path, max_message_bytes=1 << 21) as rig:
        assert (await rig("submit", **fields))["error"] == "invalid_message"
        assert (await rig("list"))["tasks"] == []


@pytest.mark.parametrize("task_type", ["docker.execute", "docker.github", "Docker.Execute", " docker", "docker_hub"])
async def test_other_peoples_programs_are_not_run(rig, task_type):
    assert (await rig("submit", task_type=task_type))["error"] == "unauthorized"
    await local(rig, task_type)
    assert (await rig("claim", worker_id="w", supported_task_types=[task_type]))["task"] is None
    assert (await rig("claim", worker_id="w"))["task"] is None


async def test_only_types_that_a_peer_may_submit_are_taken(rig):
    rig.forbidden.add(("submit", "fly"))
    assert (await rig("submit", task_type="fly"))["error"] == "unauthorized"
    assert (await rig("submit", task_type="dig"))["ok"] is True


async def test_a_full_queue_says_so(tmp_path):
    async with peer_queue.open_rig(tmp_path, limits=peer_queue.QueueLimits(max_queue_size=1)) as rig:
        await rig.submit()
        reply = await rig("submit", task_type="dig")
        assert reply["error"] == "internal_error"
        assert "detail" in reply


# --- encrypted payloads --------------------------------------------------------------------------------------------


def sealed(value, secret=SECRET):
    key = hashlib.sha256(b"ipfs-accelerate-task-p2p-fernet-v1" + secret.encode()).digest()
    text = Fernet(base64.urlsafe_b64encode(key)).encrypt(json.dumps(value).encode()).decode()
    return {"enc": "fernet-v1", "ct": text}


@pytest.mark.parametrize("form", [lambda value: value, json.dumps])
async def test_an_encrypted_payload_is_read(rig, form):
    task = await task_of(rig, await rig.submit(payload=form(sealed({"a": 1}))))
    assert json.loads(task.payload) == {"a": 1}


async def test_an_encrypted_result_is_read(rig):
    task_id = await rig.submit()
    await rig.take()
    await rig("complete", task_id=task_id, result=sealed({"b": 2}))
    assert (await rig.row(task_id))["result"] == {"b": 2}


@pytest.mark.parametrize(
    "payload",
    [sealed({}, "other"), {"enc": "fernet-v1"}, {"enc": "fernet-v1", "ct": 5}, {"enc": "fernet-v1", "ct": ""}],
)
async def test_what_can_not_be_decrypted_is_refused(rig, payload):
    assert (await rig("submit", payload=payload))["error"] == "invalid_message"


@pytest.mark.parametrize("payload", [{"enc": "other", "ct": "x"}, {"enc": 5}])
async def test_what_is_not_encrypted_is_as_it_is(rig, payload):
    assert json.loads((await task_of(rig, await rig.submit(payload=payload))).payload) == payload


# --- get, wait, list, cancel ---------------------------------------------------------------------------------------


async def test_a_row_has_all_that_older_nodes_know(rig):
    task_id = await rig.submit(payload={"a": 1})
    row = await rig.row(task_id)
    assert row == {
        "task_id": task_id, "task_type": "dig", "model_name": "", "payload": {"a": 1}, "status": "queued",
        "result": None, "error": None, "priority": 5.0, "attempt": 0, "max_attempts": 3, "assigned_worker": None,
        "next_attempt_at": row["next_attempt_at"], "lease_until": None, "heartbeat_at": None,
        "created_at": rig.box.clock.now, "updated_at": row["updated_at"],
    }  # fmt: skip
    await rig.take()
    row = await rig.row(task_id)
    assert (row["status"], row["assigned_worker"], row["attempt"]) == ("running", "w", 1)
    assert row["lease_until"] == rig.box.clock.now + 30


async def test_an_unknown_task_is_null(rig):
    assert (await rig("get", task_id="none"))["task"] is None
    assert (await rig("wait", task_id="none"))["task"] is None


@pytest.mark.parametrize("op", ["get", "wait", "cancel", "complete", "release", "task.heartbeat"])
async def test_a_task_has_to_be_named(rig, op):
    for fields in ({}, {"task_id": ""}, {"task_id": "  "}, {"task_id": None}):
        assert (await rig(op, worker_id="w", **fields))["error"] == "missing_task_id"
    assert (await rig(op, worker_id="w", task_id=5))["error"] == "invalid_message"


async def test_what_a_peer_may_neither_take_nor_submitted_is_not_shown_to_it(rig):
    mine, ours = await rig.submit(), await local(rig)
    rig.forbidden.add(("take", BOB))
    rig.forbidden.add(("take", ADA))
    assert await rig.row(mine) is not None
    assert await rig.row(mine, BOB) is None
    assert await rig.row(ours) is None
    assert (await rig("wait", task_id=ours))["task"] is None
    assert [row["task_id"] for row in (await rig("list"))["tasks"]] == [mine]
    assert (await rig("list", BOB))["tasks"] == []


async def test_the_end_of_a_task_is_waited_for(rig):
    task_id = await rig.submit()
    seen = []

    async def wait():
        seen.append((await rig("wait", task_id=task_id))["task"]["status"])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await rig.take()
        await wait_all_tasks_blocked(0.005)
        assert seen == []
        await rig("complete", task_id=task_id)
    assert seen == ["completed"]


async def test_waiting_ends_with_its_time(rig):
    task_id = await rig.submit()
    assert (await rig("wait", task_id=task_id, timeout_s=0.01))["task"]["status"] == "queued"
    assert (await rig("wait", task_id=task_id, timeout_s=0))["task"]["status"] == "queued"
    assert (await rig("wait", task_id=task_id, timeout_s=-1))["error"] == "invalid_message"
    assert (await rig("wait", task_id=task_id, timeout_s="1"))["error"] == "invalid_message"


@pytest.mark.parametrize("op", ["list", "tasks.list", "queue.list"])
async def test_lists_are_oldest_first_with_payloads(rig, op):
    ids = []
    for number in range(4):
        make = local if number % 2 else rig.submit
        ids.append(await (make(rig) if make is local else make(payload={"n": number})))
        rig.box.later(1)
    rows = (await rig(op))["tasks"]
    assert [row["task_id"] for row in rows] == ids
    assert rows[2]["payload"] == {"n": 2}
    assert [row["task_id"] for row in (await rig(op, limit=3))["tasks"]] == ids[:3]


async def test_lists_may_be_of_a_status_and_of_types(rig):
    dig, fly = await rig.submit(), await rig.submit("fly")
    await rig.take(supported_task_types=["fly"])

    async def listed(**fields):
        return [row["task_id"] for row in (await rig("list", **fields))["tasks"]]

    assert await listed(status="running") == [fly]
    assert await listed(status="queued") == [dig]
    assert await listed(task_types=["fly", "x"]) == [fly]
    assert await listed(task_types="dig, x") == [dig]
    assert await listed(task_types=["x"]) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "odd"}, {"status": 5}, {"limit": 0}, {"limit": 1001}, {"limit": 1.5}, {"limit": True},
        {"task_types": 5}, {"task_types": [5]}, {"task_types": ["x" * 201]}, {"task_types": ["x"] * 1001},
    ],
)  # fmt: skip
async def test_lists_of_odd_things_are_refused(rig, fields):
    assert (await rig("list", **fields))["error"] == "invalid_message"


async def test_a_list_ends_where_the_reply_is_full(tmp_path):
    async with peer_queue.open_rig(tmp_path, max_message_bytes=20_000) as rig:
        for _ in range(10):
            await rig.submit(payload={"x": "y" * 4000})
        reply = await rig("list")
        assert (len(reply["tasks"]), reply["truncated"]) == (3, True)


@pytest.mark.parametrize("op", ["cancel", "task.cancel"])
async def test_a_waiting_task_is_cancelled(rig, op):
    task_id = await rig.submit()
    assert await rig(op, task_id=task_id, reason="rain") == {"ok": True, "peer_id": HERE, "cancelled": True}
    assert (await task_of(rig, task_id)).reason == "rain"
    assert (await rig.row(task_id))["status"] == "cancelled"


async def test_a_running_task_is_told_to_stop(rig):
    task_id = await rig.submit()
    task = await rig.take()
    reply = await rig("cancel", task_id=task_id)
    assert (reply["ok"], reply["cancelled"], reply["cancel_requested"]) == (True, False, True)
    beaten = await rig("task.heartbeat", task_id=task_id, worker_id="w", fencing_token=task["fencing_token"])
    assert beaten["cancel_requested"] is True
    await rig("complete", task_id=task_id, status="cancelled")
    assert (await rig.row(task_id))["status"] == "cancelled"


async def test_what_can_not_be_cancelled_is_not_and_the_reply_stays_ok(rig):
    others, ours, done = await rig.submit(by=BOB), await local(rig), await rig.submit("fly")
    await rig.take(supported_task_types=["fly"])
    await rig("complete", task_id=done)
    for task_id in (others, ours, done, "none"):
        assert await rig("cancel", task_id=task_id) == {"ok": True, "peer_id": HERE, "cancelled": False}
    assert (await task_of(rig, ours)).state == "ready"


# --- claim ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ["claim", "claim_next"])
async def test_a_claim_gives_a_task_with_its_fence(rig, op):
    task_id = await rig.submit(payload={"a": 1}, model_name="m", priority=8)
    reply = await rig(op, worker_id="w", supported_task_types=["dig"], peer_id=BOB, clock={"vector": {"x": 5}})
    task = await task_of(rig, task_id)
    assert reply["task"] == {
        "task_id": task_id, "task_type": "dig", "model_name": "m", "payload": {"a": 1}, "created_at": task.created_at,
        "status": "running", "assigned_worker": "w", "fencing_token": task.token,
        "lease_until": rig.box.clock.now + 30, "attempt": 1, "priority": 8.0,
    }  # fmt: skip
    assert task.worker == worker_name(ADA, "w")


async def test_without_a_task_there_is_null(rig):
    assert await rig("claim", worker_id="w") == {"ok": True, "peer_id": HERE, "task": None}


@pytest.mark.parametrize("op", ["claim", "claim_next", "claim_many", "claim_batch"])
async def test_a_worker_has_to_be_named(rig, op):
    assert (await rig(op))["error"] == "missing_worker_id"
    assert (await rig(op, worker_id=" "))["error"] == "missing_worker_id"
    assert (await rig(op, worker_id=5))["error"] == "invalid_message"
    assert (await rig(op, worker_id="x" * 101))["error"] == "invalid_message"


@pytest.mark.parametrize("types", [["fly"], "fly", " swim , fly", ["swim", "fly"]])
@pytest.mark.parametrize("field", ["supported_task_types", "task_types"])
async def test_types_may_be_a_list_or_a_text(rig, types, field):
    await rig.submit("dig", priority=9)
    fly = await rig.submit("fly")
    assert (await rig.take(**{field: types}))["task_id"] == fly


async def test_no_types_are_all_that_the_peer_may_take(rig):
    dig, fly = await rig.submit("dig"), await rig.submit("fly", priority=9)
    rig.forbidden.add(("take", "fly"))
    assert (await rig.take())["task_id"] == dig
    assert (await rig("claim", worker_id="w", task_types=["fly"]))["task"] is None
    assert (await rig.row(fly))["status"] == "queued"


async def test_a_session_is_served_by_its_own_workers(rig):
    task_id = await rig.submit(payload={"session_id": "s1", "n": 1})
    for fields in ({}, {"session_id": "s2"}):
        assert (await rig("claim", worker_id="w", **fields))["task"] is None
    assert (await rig.take("v", session="s1"))["task_id"] == task_id
    other = await rig.submit()
    assert (await rig.take("v", p2p_session="s1"))["task_id"] == other


@pytest.mark.parametrize("session", [5, {"a": 1}, "x" * 500, None])
async def test_what_is_no_session_in_a_payload_means_nothing(rig, session):
    task_id = await rig.submit(payload={"session_id": session})
    assert (await rig.take())["task_id"] == task_id


async def test_a_sticky_task_is_kept_for_its_worker_while_that_is_there(rig):
    await rig.submit("fly")
    await rig.take("mine", task_types=["fly"])
    task_id = await rig.submit(payload={"sticky_worker_id": "mine"})
    assert (await rig("claim", worker_id="other"))["task"] is None
    rig.box.later(1000)
    assert (await rig.take("other", task_types=["dig"]))["task_id"] == task_id


async def test_the_same_claim_again_gives_the_same_task(rig):
    first, second = await rig.submit(), await rig.submit()
    claim = {"worker_id": "w", "idempotency_key": "c1"}
    task = (await rig("claim", **claim))["task"]
    assert (await rig("claim", **claim))["task"] == task
    assert (await rig("claim", worker_id="w", idempotency_key="c2"))["task"]["task_id"] in {first, second} - {
        task["task_id"]
    }


async def test_workers_of_two_peers_never_have_the_same_name(rig):
    await rig.submit()
    await rig.take("w")
    assert (await rig("claim", BOB, worker_id="w"))["task"] is None
    await rig.submit()
    task = await rig.take("w", BOB)
    assert (await task_of(rig, task["task_id"])).worker == worker_name(BOB, "w")


async def test_a_name_that_somebody_else_has_can_not_be_used(rig):
    await rig.desk.queue.do(RegisterWorker(worker=worker_name(ADA, "w"), owner="mallory"))
    await rig.submit()
    assert (await rig("claim", worker_id="w"))["error"] == "unauthorized"


@pytest.mark.parametrize("op", ["claim_many", "claim_batch"])
@pytest.mark.parametrize("most", ["max_tasks", "limit"])
async def test_a_batch_is_of_one_type_unless_wanted_otherwise(rig, op, most):
    for number in range(3):
        await rig.submit("dig", priority=9 - number)
    await rig.submit("fly", priority=8.5)
    tasks = (await rig(op, worker_id="w", **{most: 3}))["tasks"]
    assert [task["task_type"] for task in tasks] == ["dig"] * 3
    await rig.submit("dig")
    tasks = (await rig(op, worker_id="w", same_task_type=False, **{most: 3}))["tasks"]
    assert sorted(task["task_type"] for task in tasks) == ["dig", "fly"]
    assert (await rig(op, worker_id="w", **{most: 3}))["tasks"] == []


@pytest.mark.parametrize("fields", [{"max_tasks": 0}, {"max_tasks": 129}, {"limit": "3"}, {"same_type": 1}])
async def test_a_batch_has_its_bounds(rig, fields):
    assert (await rig("claim_many", worker_id="w", **fields))["error"] == "invalid_message"


async def test_what_a_reply_can_not_carry_is_given_back_without_using_an_attempt(tmp_path):
    async with peer_queue.open_rig(tmp_path, max_message_bytes=30_000) as rig:
        ids = [await rig.submit(payload={"x": "y" * 6000}) for _ in range(5)]
        taken = [task["task_id"] for task in (await rig("claim_many", worker_id="w", max_tasks=5))["tasks"]]
        assert len(taken) == 2
        for task_id in set(ids) - set(taken):
            row = await rig.row(task_id)
            assert (row["status"], row["attempt"]) == ("queued", 0)


async def test_results_that_a_payload_names_are_in_it(rig):
    first = await local(rig)
    task = await rig.take()
    await rig("complete", task_id=first, result={"ok": 1}, fencing_token=task["fencing_token"])
    await local(rig, payload=json.dumps({"x": {"$task": first, "path": "/ok"}}), links=True)
    assert (await rig.take())["payload"] == {"x": 1}
    broken = await local(rig, payload=json.dumps({"x": {"$task": first, "path": "/none"}}), links=True)
    assert (await rig("claim", worker_id="w"))["task"] is None
    assert (await task_of(rig, broken)).state == "failed"


# --- complete, release, heartbeat ----------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ["complete", "task.complete", "complete_task"])
async def test_the_holder_completes_with_its_token(rig, op):
    task_id = await rig.submit()
    task = await rig.take()
    fields = {"task_id": task_id, "worker_id": "w", "fencing_token": task["fencing_token"], "result": {"a": 1}}
    assert await rig(op, **fields) == {"ok": True, "peer_id": HERE, "task_id": task_id}
    assert (await rig.row(task_id))["result"] == {"a": 1}
    assert (await rig(op, **fields))["replayed"] is True
    assert (await rig(op, **(fields | {"result": {"a": 2}})))["error"] == "id_conflict"


async def test_the_holder_completes_without_a_token_while_its_lease_lives(rig):
    task_id = await rig.submit()
    await rig.take()
    assert (await rig("complete", task_id=task_id))["ok"] is True
    assert (await rig("complete", task_id=task_id))["error"] == "stale_fence"
    assert (await rig.row(task_id))["result"] == {}


@pytest.mark.parametrize("value", [5, "x", [1]])
async def test_a_result_that_is_no_object_becomes_one(rig, value):
    task_id = await rig.submit()
    await rig.take()
    await rig("complete", task_id=task_id, result=value)
    assert (await rig.row(task_id))["result"] == {"result": value}


@pytest.mark.parametrize(
    ("status", "then"),
    [
        ("completed", "completed"),
        ("failed", "failed"),
        ("odd", "failed"),
        ("cancelled", "cancelled"),
        ("", "completed"),
    ],
)  # fmt: skip
async def test_anything_but_completed_and_cancelled_has_failed(rig, status, then):
    task_id = await rig.submit()
    await rig.take()
    assert (await rig("complete", task_id=task_id, status=status, error="rain"))["ok"] is True
    row = await rig.row(task_id)
    assert row["status"] == then
    assert (row["error"] == "rain") is (then == "failed")


async def test_another_peer_completes_nothing_whatever_it_says(rig):
    task_id = await rig.submit()
    task = await rig.take()
    for fields in ({}, {"worker_id": "w"}, {"fencing_token": task["fencing_token"]},
                   {"worker_id": "w", "fencing_token": task["fencing_token"], "peer_id": ADA}):  # fmt: skip
        assert (await rig("complete", BOB, task_id=task_id, **fields))["error"] == "stale_fence"
    assert (await rig.row(task_id))["status"] == "running"


async def test_another_worker_of_the_same_peer_completes_nothing_by_its_own_name(rig):
    task_id = await rig.submit()
    await rig.take("w")
    assert (await rig("complete", task_id=task_id, worker_id="v"))["error"] == "stale_fence"
    assert (await rig("complete", task_id=task_id, worker_id="w"))["ok"] is True


async def test_nobody_completes_what_nobody_took(rig):
    task_id = await rig.submit()
    for fields in ({}, {"worker_id": "w"}, {"fencing_token": 1}):
        assert (await rig("complete", task_id=task_id, **fields))["error"] == "stale_fence"


async def test_a_local_worker_s_task_is_not_completed_by_a_peer(rig):
    task_id = await local(rig)
    [lease] = await rig.box.claim("local")
    for fields in ({}, {"worker_id": "local"}, {"fencing_token": lease.token}):
        assert (await rig("complete", task_id=task_id, **fields))["error"] == "stale_fence"


async def test_after_the_end_of_the_lease_a_token_still_counts_until_there_is_a_newer_one(rig):
    task_id = await rig.submit()
    task = await rig.take()
    rig.box.later(31)
    assert (await rig("complete", task_id=task_id))["error"] == "stale_fence"
    newer = await rig.take("v", BOB)
    old, new = ({"task_id": task_id, "fencing_token": one["fencing_token"]} for one in (task, newer))
    assert (await rig("complete", **old))["error"] == "stale_fence"
    assert (await rig("complete", task_id=task_id))["error"] == "stale_fence"
    assert (await rig("complete", BOB, **new))["ok"] is True


async def test_an_unknown_task_is_missing(rig):
    assert (await rig("complete", task_id="none"))["error"] == "task_missing"
    assert (await rig("release", task_id="none", worker_id="w"))["error"] == "task_missing"


@pytest.mark.parametrize("token", [0, -1, "1", 1.5, True])
async def test_a_token_is_a_number(rig, token):
    task_id = await rig.submit()
    await rig.take()
    assert (await rig("complete", task_id=task_id, fencing_token=token))["error"] == "invalid_message"


@pytest.mark.parametrize("op", ["release", "task.release", "release_task"])
@pytest.mark.parametrize("field", ["worker_id", "assigned_worker"])
async def test_a_task_is_given_back(rig, op, field):
    task_id = await rig.submit()
    await rig.take()
    assert (await rig(op, task_id=task_id, **{field: "w"}, reason="rain"))["task_id"] == task_id
    row = await rig.row(task_id)
    assert (row["status"], row["attempt"]) == ("queued", 1)
    assert (await task_of(rig, task_id)).reason == "rain"


async def test_only_the_holder_gives_back(rig):
    task_id = await rig.submit()
    await rig.take()
    assert (await rig("release", task_id=task_id))["error"] == "missing_worker_id"
    assert (await rig("release", task_id=task_id, worker_id="v"))["error"] == "stale_fence"
    assert (await rig("release", BOB, task_id=task_id, worker_id="w"))["error"] == "stale_fence"
    assert (await rig.row(task_id))["status"] == "running"


async def test_a_heartbeat_renews_the_lease(rig):
    task_id = await rig.submit()
    task = await rig.take()
    rig.box.later(20)
    fields = {"task_id": task_id, "worker_id": "w", "fencing_token": task["fencing_token"]}
    reply = await rig("task.heartbeat", **fields)
    assert reply == {
        "ok": True, "peer_id": HERE, "task_id": task_id, "lease_until": rig.box.clock.now + 30,
        "cancel_requested": False,
    }  # fmt: skip
    rig.box.later(20)
    assert (await rig("complete", **fields))["ok"] is True
    assert (await rig("task.heartbeat", **fields))["error"] == "invalid_state"


async def test_a_heartbeat_is_the_holders(rig):
    task_id = await rig.submit()
    task = await rig.take()
    fields = {"task_id": task_id, "worker_id": "w", "fencing_token": task["fencing_token"]}
    assert (await rig("task.heartbeat", BOB, **fields))["error"] == "stale_fence"
    assert (await rig("task.heartbeat", **(fields | {"fencing_token": 99})))["error"] == "stale_fence"
    assert (await rig("task.heartbeat", task_id=task_id))["error"] == "missing_worker_id"
    rig.box.later(31)
    assert (await rig("task.heartbeat", **fields))["error"] == "stale_fence"


async def test_two_workers_share_the_tasks_and_none_is_done_twice(rig):
    ids = {await rig.submit(payload={"n": n}) for n in range(20)}
    done = []

    async def work(worker, by):
        while (task := (await rig("claim", by, worker_id=worker))["task"]) is not None:
            fields = {"task_id": task["task_id"], "fencing_token": task["fencing_token"]}
            assert (await rig("complete", by, worker_id=worker, **fields))["ok"]
            done.append(task["task_id"])

    async with trio.open_nursery() as nursery:
        for by in (ADA, BOB):
            for worker in ("v", "w"):
                nursery.start_soon(work, worker, by)
    assert sorted(done) == sorted(ids)


async def test_what_ended_here_meanwhile_is_told_as_it_is(rig):
    task_id = await rig.submit()
    task = await rig.take()
    await rig.desk.do(Cancel(id=task_id, force=True), Ended)
    reply = await rig("complete", task_id=task_id, fencing_token=task["fencing_token"])
    assert (reply["ok"], reply["error"]) == (False, "stale_fence")
    ours = await local(rig)
    [lease] = await rig.box.claim("local")
    await rig.desk.do(Fail(id=ours, token=lease.token, error=ErrorInfo(code="X", message="sad")), Ended)
    assert (await rig.row(ours))["error"] == "sad"
    other = await local(rig)
    [lease] = await rig.box.claim("local")
    await rig.desk.do(Complete(id=other, token=lease.token, result="[1]"), Ended)
    assert (await rig.row(other))["result"] == [1]
