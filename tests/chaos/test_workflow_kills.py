# SPDX-License-Identifier: AGPL-3.0-or-later
"""Random workflows while the scheduler, the queue, the worker and the tools are killed at random: all come to the end
that they have when nothing happens, each effect is had once, and the export of each proves it. Some are paused for a
while, some are cancelled: these do nothing that the others would not have done.

`GREENROOM_WORKFLOW_KILLS` sets how many kills, `GREENROOM_TEST_SEED` repeats workflows and moments.
"""

from __future__ import annotations

import faulthandler
import json
import os
import random

import pytest
import trio
from running import started
from workflow_calls import open_workflows
from workflow_dags import TOOL, effects_of, outcome_of, random_workflow

from actors.errors import MCPServerError, code_of
from actors.p2p.workflow_scheduler.verify import verified
from actors.task_views import ScanTasks
from supervisor.client_tasks import open_tasks

pytestmark = pytest.mark.chaos

KILLS = int(os.environ.get("GREENROOM_WORKFLOW_KILLS", "12"))
SEED = int(os.environ.get("GREENROOM_TEST_SEED", str(random.randrange(2**32))))
VICTIMS = ["workflow_scheduler", "workflow_scheduler", "task_queue", "task_worker", "tools.general#0"]
WORKFLOWS = max(6, KILLS // 2)
ENDED_WITHIN_S = 120
ENV = {
    "GREENROOM_SUPERVISOR__RESTARTS": "100000",
    "GREENROOM_SUPERVISOR__BACKOFF_RESET_S": "0.001",
    "GREENROOM_SUPERVISOR__BREAKER_DEATHS": "1000",
    "GREENROOM_SUPERVISOR__QUARANTINE_AFTER": "1000",
}


def test_every_workflow_ends_as_if_nothing_had_been_killed(tmp_path, monkeypatch):
    # It takes longer than a test usually may: no stacks of this process, please.
    faulthandler.cancel_dump_traceback_later()
    print(f"seed {SEED}, {KILLS} kills, {WORKFLOWS} workflows")
    rng = random.Random(SEED)
    (tmp_path / "acting_tools.py").write_text(TOOL)
    effects = tmp_path / "effects"
    effects.mkdir()
    monkeypatch.setenv("EFFECTS", str(effects))
    wanted = [random_workflow(rng, f"w{number}", most_seconds=0.6) for number in range(WORKFLOWS)]
    views = {}
    cancelled: set[str] = set()

    async def submit(workflows, moments):
        for workflow in wanted:
            await workflows.submit(workflow)
            await trio.sleep(moments.uniform(0.0, 0.5))

    async def control(workflows, moments):
        """After each submission, something may happen to one of those that are there."""
        for number in range(WORKFLOWS):
            await trio.sleep(moments.uniform(0.1, 0.7))
            workflow_id = f"w{moments.randint(0, number)}"
            what = moments.choice(["cancel", "pause", "pause", "nothing"])
            if what == "cancel":
                cancelled.add(workflow_id)
                await controlled(workflows, workflow_id, what, force=moments.random() < 0.5)
            elif what == "pause":
                await controlled(workflows, workflow_id, what)
                await trio.sleep(moments.uniform(0.0, 0.5))
                await controlled(workflows, workflow_id, "resume")

    async def kill(tree, moments):
        for _ in range(KILLS):
            await trio.sleep(moments.uniform(0.0, 1.0))
            victim = moments.choice(VICTIMS)
            incarnation = await trio.to_thread.run_sync(tree.kill, victim)
            await trio.to_thread.run_sync(tree.wait_ready, victim, incarnation)

    async def main(tree):
        async with open_workflows(tree.data_dir) as workflows:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(submit, workflows, random.Random(SEED + 1))
                nursery.start_soon(kill, tree, random.Random(SEED + 2))
                nursery.start_soon(control, workflows, random.Random(SEED + 3))
            for workflow in wanted:
                workflow_id = workflow.workflow_id
                views[workflow_id] = await workflows.ended(workflow_id, ENDED_WITHIN_S)
                report = verified(await workflows.export(workflow_id))
                assert report.sound, (workflow_id, report)
        async with open_tasks(tree.data_dir) as tasks:
            left = [task.id for status in ("queued", "running") for task in (await scan(tasks, status)).tasks]
        assert left == []

    with started(tmp_path / "data", "--tools", str(tmp_path / "acting_tools.py"), env=ENV) as tree:
        trio.run(main, tree)

    names = {path.name for path in effects.iterdir()}
    again = {name for name in names if name.endswith(".again")}
    must: set[str] = set()
    may: set[str] = set()
    for workflow in wanted:
        expected, view = outcome_of(workflow), views[workflow.workflow_id]
        outputs = {one.step_id: json.loads(one.output) for one in view.steps if one.output}
        may |= effects_of(expected)
        if view.status == "cancelled":
            assert workflow.workflow_id in cancelled
            assert outputs.items() <= expected.outputs.items()
            must |= {name for name in effects_of(expected) if name.partition("-")[2] in outputs}
            continue
        assert {one.step_id: one.status for one in view.steps} == expected.steps, told(workflow, view)
        assert view.status == expected.status
        assert outputs == expected.outputs
        must |= effects_of(expected)
    print(f"{len(names - again)} effects, {len(again)} asked for again")
    assert must <= names - again <= may


async def controlled(workflows, workflow_id: str, what: str, **more) -> None:
    """It may not be there yet, or not any more."""
    try:
        await workflows.control(workflow_id, what, **more)
    except MCPServerError as error:
        if code_of(error) not in {"NOT_FOUND", "INVALID_STATE"}:
            raise


async def scan(tasks, status):
    return await tasks.scan(ScanTasks(status=status))


def told(workflow, view) -> str:
    """What helps to understand it."""
    errors = {one.step_id: one.error or one.reason for one in view.steps if one.error or one.reason}
    return f"seed {SEED}: {workflow} {errors}"
