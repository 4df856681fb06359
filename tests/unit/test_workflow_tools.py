# SPDX-License-Identifier: AGPL-3.0-or-later
"""The tools about workflows tell what is so, and nothing else."""

from __future__ import annotations

import json

import msgspec
import pytest
import trio
from workflow_calls import step
from workflow_desk import Desk
from workflow_world import World

from actors.errors import InvalidArgumentsError, MCPServerError, NotFoundError, code_of
from actors.p2p.workflow_scheduler import tools_results
from actors.p2p.workflow_scheduler.tools_steps import StepGiven
from actors.p2p_names import WORKFLOW_TOOLS
from actors.task_messages import Beat, Claim, Complete
from actors.tool_messages import TOP_LEVEL
from actors.workflow_messages import Step

A, B, C = step("a"), step("b", after=["a"]), step("c", after=["a", "b"])


@pytest.fixture
async def world(nursery, tmp_path):
    made = World(nursery, tmp_path)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def desk(world):
    return Desk(world)


def refused(code):
    return pytest.raises(MCPServerError, check=lambda error: code_of(error) == code)


# --- which there are -------------------------------------------------------------------------------------------------


async def test_the_names_that_are_known_elsewhere_are_those_of_the_tools(desk):
    assert sorted(desk.tools) == sorted(WORKFLOW_TOOLS)


async def test_switched_off_there_are_none(world):
    assert Desk(world, tools=False).tools == {}


@pytest.mark.parametrize(
    ("tool", "parameters", "required"),
    [
        (
            "workflow_submit",
            {
                "workflow_id": None, "name": None, "steps": None, "priority": 5, "tags": None, "dependencies": None,
                "metadata": None,
            },
            ["workflow_id", "name", "steps"],
        ),
        (
            "workflow_status",
            {"workflow_id": None, "include_steps": True, "include_metrics": False, "wait": 0},
            ["workflow_id"],
        ),
        ("workflow_cancel", {"workflow_id": None, "reason": None, "force": False}, ["workflow_id"]),
        (
            "workflow_list",
            {"status_filter": None, "peer_filter": None, "tag_filter": None, "limit": 50, "offset": 0},
            [],
        ),
        ("workflow_dependencies", {"workflow_id": None, "format": "json"}, ["workflow_id"]),
        (
            "workflow_result",
            {"workflow_id": None, "include_outputs": True, "include_logs": False},
            ["workflow_id"],
        ),
        (
            "submit_workflow",
            {
                "workflow_name": None, "tasks": None, "workflow_id": None, "priority": 5, "tags": None,
                "dependencies": None, "metadata": None,
            },
            ["workflow_name", "tasks"],
        ),
    ],
)  # fmt: skip
async def test_parameters_and_defaults_are_those_that_are_known_elsewhere(desk, tool, parameters, required):
    schema = json.loads(desk.tools[tool].descriptor.input_schema)
    assert {name: part.get("default") for name, part in schema["properties"].items()} == parameters
    assert schema["required"] == required


def test_a_step_of_a_tool_has_each_field_of_a_step():
    given, known = (
        {field.encode_name: field.default for field in msgspec.structs.fields(kind)} for kind in (StepGiven, Step)
    )
    assert given.keys() == known.keys()
    whole = {"step_id": "a", "action": "echo", "inputs": {"x": 1}, "depends_on": ["b"], "when": "always"}
    whole |= {"for_each": [1], "retry_policy": {"max_retries": 1}, "timeout": 3.0, "tags": ["t"], "placement": "local"}
    whole |= {"memo": True}
    assert msgspec.convert(whole, StepGiven).as_step() == msgspec.convert(whole, Step)
    assert msgspec.convert({"step_id": "a", "action": "b", "inputs": None}, StepGiven).as_step() == Step(
        step_id="a", action="b"
    )


# --- submitting ------------------------------------------------------------------------------------------------------


async def test_a_submitted_workflow_runs_and_says_so(desk, world):
    told = await desk.submit(A, B)
    assert told.pop("cid").startswith("b")
    assert told == {
        "success": True, "workflow_id": "w", "status": "running", "peer_assigned": None,
        "estimated_start_time": world.clock.now, "message": "it is stored, and runs", "replayed": False, "result": None,
    }  # fmt: skip


async def test_the_same_again_is_replayed_and_tells_who_works(desk, world):
    await desk.submit(A, B)
    await world.work()
    await world.until(lambda view: view.counts.get("completed") == 1)
    again = await desk.submit(A, B)
    assert (again["replayed"], again["status"], again["peer_assigned"]) == (True, "running", "w")
    with refused("ID_CONFLICT"):
        await desk.submit(A)


async def test_one_that_waits_says_for_what(desk, world):
    await desk.submit(A)
    later = await desk.submit(A, workflow_id="later", dependencies=["w"])
    assert (later["status"], later["estimated_start_time"]) == ("submitted", None)
    assert later["message"] == "it is stored, and submitted: waits for w"


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([], "step"),
        ([A, A], "`a`"),
        ([step("a", after=["z"])], "`z`"),
        ([step("a", after=["b"]), step("b", after=["a"])], "a"),
        ([step("a", "nonsense")], "nonsense"),
        ([step("a", x={"$from": "b"}), step("b")], "`b`"),
    ],
)
async def test_a_graph_with_faults_is_refused_and_its_step_named(desk, steps, words):
    with pytest.raises(InvalidArgumentsError, match=words) as caught:
        await desk.submit(*steps)
    assert caught.value.details["faults"]
    with pytest.raises(NotFoundError):
        await desk("workflow_status", workflow_id="w")


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"priority": 0.5}, "priority"),
        ({"workflow_id": "a b"}, "workflow_id"),
        ({"workflow_id": ""}, "workflow_id"),
        ({"steps": [{"step_id": "a"}]}, "action"),
        ({"steps": [{"step_id": "a", "action": "echo", "input": {}}]}, "input"),
        ({"colour": "red"}, "colour"),
    ],
)
async def test_what_does_not_fit_is_refused_by_name(desk, wrong, named):
    with pytest.raises(InvalidArgumentsError, match=named):
        await desk.submit(A, **wrong)


# --- the aliases -----------------------------------------------------------------------------------------------------


async def test_tasks_become_steps(desk, world):
    told = await desk(
        "submit_workflow",
        workflow_name="test-workflow",
        tasks=[
            {"task": "echo", "model": "gpt2"},
            {"task": "other", "step_id": "last", "depends_on": ["task-1"], "text": {"$from": "task-1"}},
        ],
    )
    assert (told["status"], told["workflow_status"], told["replayed"]) == ("success", "running", False)
    assert told["workflow_id"].startswith("wf-")
    assert await world.work(2) == [f"{told['workflow_id']}:{name}" for name in ("task-1", "last")]
    await world.ended(told["workflow_id"])
    end = await desk("workflow_result", workflow_id=told["workflow_id"])
    given = [one["output"]["given"] for one in end["outputs"]]
    link = {"$task": f"{told['workflow_id']}:task-1"}
    assert given == [{"model": "gpt2"}, {"text": link}], "all other keys are inputs; workers fill links in"
    state = await desk("get_workflow_status", workflow_id=told["workflow_id"])
    assert (state["status"], state["workflow_status"], state["progress"]) == ("success", "completed", 100.0)


async def test_the_same_call_again_is_the_same_workflow_and_another_call_another(desk):
    ask = {"workflow_name": "x", "tasks": [{"task": "echo"}]}
    first = await desk("submit_workflow", call_id="one", **ask)
    again = await desk("submit_workflow", call_id="one", **ask)
    other = await desk("submit_workflow", call_id="two", **ask)
    assert (again["workflow_id"], again["replayed"]) == (first["workflow_id"], True)
    assert other["workflow_id"] != first["workflow_id"]


@pytest.mark.parametrize(
    ("tasks", "words"), [([{"model": "x"}], r"tasks\[0\].*`task`"), ([{"task": "echo"}, {"task": 3}], r"tasks\[1\]")]
)
async def test_a_task_that_is_none_is_refused(desk, tasks, words):
    with pytest.raises(InvalidArgumentsError, match=words):
        await desk("submit_workflow", workflow_name="x", tasks=tasks)


async def test_the_aliases_name_the_fields_that_rest_shows_at_its_top_level(desk):
    for name in ("submit_workflow", "get_workflow_status"):
        assert json.loads(desk.tools[name].descriptor.meta)[TOP_LEVEL] == ["workflow_id", "workflow_status"]


# --- how far it is ---------------------------------------------------------------------------------------------------


async def test_status_tells_the_share_of_steps_and_the_one_that_runs(desk, world):
    await desk.submit(A, B, C)
    await world.work()
    await world.until(lambda view: view.counts.get("completed") == 1)
    told = await desk("workflow_status", workflow_id="w")
    assert (told["status"], told["progress"], told["current_step"], told["peer_id"]) == ("running", 33.33, "b", "w")
    assert [one["status"] for one in told["steps"]] == ["completed", "ready", "pending"]
    assert told["steps"][0]["attempt"] == 1
    assert (told["end_time"], told["metrics"]) == (None, None)
    assert (await desk("workflow_status", workflow_id="w", include_steps=False))["steps"] is None


async def test_a_step_for_each_item_counts_by_its_items(desk, world):
    await desk.submit(step("many", for_each=[1, 2, 3, 4], x={"$item": ""}), step("z", after=["many"]))
    await world.work(1)
    await world.until(lambda view: view.steps[0].items_ended == 1)
    assert (await desk("workflow_status", workflow_id="w"))["progress"] == 12.5


async def test_metrics_are_what_was_measured(desk, world):
    await desk.submit(A, B, C)
    await _work_for(world, 2.0, wait_s=1.0)
    await _work_for(world, 5.0, wait_s=3.0)
    told = (await desk("workflow_status", workflow_id="w", include_metrics=True))["metrics"]
    times = {one["step_id"]: (one["attempts"], one["waiting_time"], one["execution_time"]) for one in told["steps"]}
    assert times == {"a": (1, 1.0, 2.0), "b": (1, 3.0, 5.0), "c": (0, None, None)}
    assert (told["attempts"], told["execution_time"], told["memoised"]) == (2, None, 0)
    assert told["critical_path"] == {"steps": ["a", "b", "c"], "length": 2.0 + 5.0 + 3.5, "unit": "seconds"}


async def _work_for(world, seconds, *, wait_s):
    """Do the next task: take it after this wait, and take so long."""
    claim = Claim(worker="w", lease_s=1000.0, wait_s=5.0)
    await world.until(lambda view: view.counts.get("ready") == 1)
    world.clock.now += wait_s
    (lease,) = (await world.queue.do(claim)).tasks
    await world.until(lambda view: any(one.status == "running" for one in view.steps))
    world.clock.now += seconds
    before = (await world.get()).counts.get("completed", 0)
    await world.queue.do(Complete(id=lease.id, token=lease.token, result="1"))
    await world.until(lambda view: view.counts.get("completed", 0) == before + 1)


async def test_who_waits_hears_of_progress_and_has_the_end_at_once(desk, world, nursery):
    await desk.submit(A, B)
    nursery.start_soon(world.work, 2)
    told = await desk("workflow_status", workflow_id="w", wait=60)
    assert (told["status"], told["progress"]) == ("completed", 100.0)
    reported = [(item.progress, item.total) for item in desk.items]
    assert reported[0] == (0.0, 2.0)
    assert reported[-1] == (2.0, 2.0)
    assert reported == sorted(reported)


async def test_waiting_has_an_end(desk, world):
    await desk.submit(A)
    with trio.fail_after(5):
        assert (await desk("workflow_status", workflow_id="w", wait=0.05))["status"] == "running"
    with pytest.raises(InvalidArgumentsError, match="wait"):
        await desk("workflow_status", workflow_id="w", wait=61)


# --- the end ---------------------------------------------------------------------------------------------------------


async def test_before_its_end_there_is_no_result(desk):
    await desk.submit(A)
    with refused("NOT_FINISHED"):
        await desk("workflow_result", workflow_id="w")


async def test_the_result_has_outputs_by_step_and_why_it_failed(desk, world):
    await desk.submit(A, step("bad", retry_policy={"max_retries": 0}), step("after", after=["bad"]))
    await world.work(2, fail=("bad",))
    await world.ended()
    told = await desk("workflow_result", workflow_id="w")
    assert told["success"] is True
    assert told["status"] == "failed"
    assert [one["step_id"] for one in told["outputs"]] == ["a"]
    assert told["outputs"][0]["output"] == {"of": "w:a", "given": {}}
    assert told["result"]["failed_steps"] == ["bad"]
    assert told["result"]["counts"] == {"completed": 1, "failed": 1, "skipped": 1}
    assert told["result"]["error"]["code"] == "STEP_FAILED"
    assert told["logs"] is None
    assert (await desk("workflow_result", workflow_id="w", include_outputs=False))["outputs"] is None


async def test_logs_are_those_of_the_tasks(desk, world, monkeypatch):
    await desk.submit(A, step("each", for_each=[1, 2]))
    claim = Claim(worker="w", n=3, lease_s=1000.0, wait_s=5.0)
    done = 0
    while done < 3:
        for lease in (await world.queue.do(claim)).tasks:
            await world.queue.do(Beat(id=lease.id, token=lease.token, logs=[f"on {lease.id}"]))
            await world.queue.do(Complete(id=lease.id, token=lease.token, result="1"))
            done += 1
    await world.ended()
    told = await desk("workflow_result", workflow_id="w", include_logs=True)
    assert [(one["step_id"], one["index"], one["lines"]) for one in told["logs"]] == [
        ("a", None, ["on w:a"]),
        ("each", 0, ["on w:each[0]"]),
        ("each", 1, ["on w:each[1]"]),
    ]
    assert told["logs_left_out"] == 0
    monkeypatch.setattr(tools_results, "_MOST_LOGGED", 1)
    told = await desk("workflow_result", workflow_id="w", include_logs=True)
    assert [one["step_id"] for one in told["logs"]] == ["a"]
    assert told["logs_left_out"] == 2


async def test_a_cancelled_workflow_names_what_will_not_complete(desk, world):
    await desk.submit(A, B)
    await world.work()
    await world.until(lambda view: view.counts.get("completed") == 1)
    told = await desk("workflow_cancel", workflow_id="w", reason="rain")
    assert (told["status"], told["cancelled_steps"]) == ("cancelled", ["b"])
    assert (await desk("workflow_status", workflow_id="w"))["reason"] == "rain"
    with refused("INVALID_STATE"):
        await desk("workflow_cancel", workflow_id="w")


async def test_a_step_that_runs_on_is_said_until_it_is_taken_away(desk, world, monkeypatch):
    monkeypatch.setattr("actors.p2p.workflow_scheduler.tools_workflows._SETTLE_S", 0.05)
    await desk.submit(A)
    await world.queue.do(Claim(worker="w", lease_s=1000.0, wait_s=5.0))
    await world.until(lambda view: view.counts.get("running") == 1)
    told = await desk("workflow_cancel", workflow_id="w")
    assert (told["status"], "asked to stop" in told["message"]) == ("running", True)
    assert (await desk("workflow_status", workflow_id="w"))["cancelling"] is True
    monkeypatch.undo()
    assert (await desk("workflow_cancel", workflow_id="w", force=True))["status"] == "cancelled"


# --- the graph -------------------------------------------------------------------------------------------------------


async def test_the_graph_is_told_as_data_and_as_text(desk):
    await desk.submit(A, B, C)
    told = await desk("workflow_dependencies", workflow_id="w")
    assert told["dag"] == {"a": [], "b": ["a"], "c": ["a", "b"]}
    assert [one["step_id"] for one in told["nodes"]] == ["a", "b", "c"]
    assert told["edges"] == [{"from": "a", "to": "b"}, {"from": "a", "to": "c"}, {"from": "b", "to": "c"}]
    assert (told["critical_path"], told["critical_path_length"]) == (["a", "b", "c"], 3.0)
    assert told["critical_path_unit"] == "steps", "nothing was measured"
    assert (await desk("workflow_dependencies", workflow_id="w", format="dot"))["dag"].startswith('digraph "W" {')
    assert (await desk("workflow_dependencies", workflow_id="w", format="mermaid"))["dag"].startswith("flowchart LR\n")


# --- whose it is -----------------------------------------------------------------------------------------------------


async def test_a_workflow_is_its_owners_and_the_operators(desk):
    await desk.submit(A, by="ann")
    for tool in (
        "workflow_status", "get_workflow_status", "workflow_cancel", "workflow_dependencies", "workflow_result",
    ):  # fmt: skip
        with refused("NOT_OWNER"):
            await desk(tool, "bob", workflow_id="w")
    assert (await desk("workflow_list", "bob"))["total_count"] == 0
    assert (await desk("workflow_list", "ann"))["workflows"][0]["owner"] == "ann"
    for name in ("ann", "boss", ""):
        assert (await desk("workflow_status", name, workflow_id="w"))["status"] == "running"
        assert (await desk("workflow_list", name))["total_count"] == 1
    assert (await desk("workflow_cancel", "boss", workflow_id="w"))["status"] == "cancelled"


async def test_lists_are_filtered_and_come_in_pages(desk, world):
    for number in range(3):
        await desk.submit(A, workflow_id=f"w{number}", tags=["all", f"t{number}"])
        world.clock.now += 1.0
    await world.work()
    await world.ended("w0")
    names = [one["workflow_id"] for one in (await desk("workflow_list"))["workflows"]]
    assert names == ["w2", "w1", "w0"]
    page = await desk("workflow_list", limit=1, offset=1)
    assert ([one["workflow_id"] for one in page["workflows"]], page["returned_count"]) == (["w1"], 1)
    assert (page["total_count"], page["has_more"]) == (3, True)

    async def listed(**filters):
        return [one["workflow_id"] for one in (await desk("workflow_list", **filters))["workflows"]]

    assert await listed(status_filter="completed") == ["w0"]
    assert await listed(peer_filter="w") == ["w0"]
    assert await listed(peer_filter="other") == []
    assert await listed(tag_filter=["all", "t1"]) == ["w1"]
    with pytest.raises(InvalidArgumentsError, match="limit"):
        await listed(limit=1001)
