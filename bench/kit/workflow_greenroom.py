# SPDX-License-Identifier: AGPL-3.0-or-later
"""Workflows for a running Greenroom, from a process of their own: over the channel, as other actors ask it.

Usage: `python -m kit.workflow_greenroom DATA_DIR chain|wide STEPS RUNS`, `... loop STEPS RUNS`, `... submit COUNT`.
Prints JSON. `chain` and `wide` tell seconds from the submission of a workflow until its end is seen, `loop` those of as
many calls of the same tool, one after the other, on the way that the worker takes; `submit` tells milliseconds until
the answer to each submission of three steps.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, Final

import trio

from actors.client import ToolClient
from actors.peers import Peers
from actors.tool_messages import ToolCall
from actors.workflow_client import WorkflowClient
from actors.workflow_messages import GetWorkflow, Step, SubmitWorkflow, Workflow
from supervisor.client_tasks import open_peers

LIMIT_S: Final = 300.0


def chain(steps: int) -> Workflow:
    """Each step says what the one before said."""
    first = Step(step_id="s0", action="echo", inputs={"text": "0"})
    rest = (
        Step(
            step_id=f"s{number}",
            action="echo",
            inputs={"text": {"$from": f"s{number - 1}"}},
            depends_on=[f"s{number - 1}"],
        )
        for number in range(1, steps)
    )
    return Workflow(name="chain", steps=[first, *rest])


def wide(steps: int) -> Workflow:
    """All at once."""
    return Workflow(
        name="wide",
        steps=[Step(step_id=f"s{number}", action="echo", inputs={"text": str(number)}) for number in range(steps)],
    )


async def whole(workflows: WorkflowClient, workflow: Workflow) -> float:
    """Seconds of one run."""
    began = time.perf_counter()
    submitted = await workflows.submit(SubmitWorkflow(workflow=workflow))
    with trio.fail_after(LIMIT_S):
        while True:
            view = await workflows.get(
                GetWorkflow(workflow_id=submitted.workflow_id, steps=False, wait_s=30.0), timeout_s=60.0
            )
            if view.status not in {"submitted", "running"}:
                break
    took = time.perf_counter() - began
    if view.status != "completed":
        raise SystemExit(f"bench: the workflow is {view.status}: {view.error} {view.counts}")
    return took


async def loop(peers: Peers, steps: int) -> float:
    """Seconds of so many calls."""
    tools = ToolClient(peers, max_held_calls=100, max_calls_per_process=100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tools.keep_catalogue)
        with trio.fail_after(10):
            while not tools.catalogue.tools:
                await trio.sleep(0.01)
        began = time.perf_counter()
        for number in range(steps):
            call = ToolCall(name="echo", arguments=json.dumps({"text": str(number)}).encode(), call_id=f"b-{number}")
            await tools.call(call, timeout_s=30.0)
        took = time.perf_counter() - began
        nursery.cancel_scope.cancel()
    return took


async def submit(workflows: WorkflowClient, count: int) -> dict[str, Any]:
    """Milliseconds until each answer."""
    ms = []
    for _ in range(count):
        began = time.perf_counter()
        await workflows.submit(SubmitWorkflow(workflow=chain(3)))
        ms.append((time.perf_counter() - began) * 1000)
    return {"ms": ms}


async def main() -> None:
    """See the module's text."""
    data_dir, what, *numbers = sys.argv[1:]
    async with open_peers(Path(data_dir)) as (peers, _):
        workflows = WorkflowClient(peers)
        if what == "submit":
            found = await submit(workflows, int(numbers[0]))
        else:
            steps, runs = map(int, numbers)
            seconds = []
            for _ in range(runs):
                if what == "loop":
                    seconds.append(await loop(peers, steps))
                else:
                    seconds.append(await whole(workflows, {"chain": chain, "wide": wide}[what](steps)))
            found = {"seconds": seconds}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    trio.run(main)
