# SPDX-License-Identifier: AGPL-3.0-or-later
"""Random workflows of the tool `act`, and what has to come of them: each step alone, one after the other, without a
queue, a clock or a process."""

from __future__ import annotations

import random
from typing import Any

import msgspec
from workflow_calls import step

from actors.p2p.workflow_scheduler.conditions import holds, is_failure
from actors.p2p.workflow_scheduler.references import MISSING, filled, looked_up_in
from actors.workflow_messages import Step, StepStatus, Workflow

TOOL = '''
import os
from pathlib import Path
from typing import Any
import trio
from actors.toolkit import tool

@tool(timeout=60, retry_safe=True)
async def act(name: str, seconds: float = 0.0, given: Any = None, fails: bool = False) -> Any:
    """Take its time, then have an effect, once for each name, however often it is called."""
    await trio.sleep(seconds)
    if fails:
        raise ValueError(f"{name} fails")
    try:
        (Path(os.environ["EFFECTS"]) / name).touch(exist_ok=False)
    except FileExistsError:
        (Path(os.environ["EFFECTS"]) / f"{name}.again").touch()
    return {"name": name, "given": given}
'''
"""Its effect is a file of that name in the folder `EFFECTS`; a second call that comes after it leaves another one."""
_STUBBORN = {"max_retries": 99, "backoff_factor": 1.0}
"""Attempts end with the process that makes them. Those that fail by themselves are final, whatever this says."""


class Outcome(msgspec.Struct):
    """What has to come of a workflow."""

    status: str
    steps: dict[str, StepStatus]
    outputs: dict[str, Any]
    effects: set[str]
    """Names of all that was done."""


def random_workflow(rng: random.Random, workflow_id: str, *, most_seconds: float) -> Workflow:
    """Of 3 to 10 steps that take up to so long each."""
    names = [f"s{number}" for number in range(rng.randint(3, 10))]
    steps: list[dict[str, Any]] = []
    for at, name in enumerate(names):
        before = rng.sample(names[:at], min(at, rng.choice([0, 1, 1, 2, 3])))
        lists = {one["step_id"] for one in steps if "for_each" in one}
        steps.append(_random_step(rng, workflow_id, name, before, lists, round(rng.uniform(0.0, most_seconds), 3)))
    plain = {"name": "random", "workflow_id": workflow_id, "steps": steps}
    return msgspec.convert(plain, Workflow)


def _random_step(
    rng: random.Random, workflow_id: str, name: str, before: list[str], lists: set[str], seconds: float
) -> dict[str, Any]:
    token = f"{workflow_id}-{name}"
    more: dict[str, Any] = {"name": token, "seconds": seconds, "retry_policy": _STUBBORN}
    kind = rng.choices(["plain", "each", "late"], [7, 2, 2])[0]
    if kind == "late" and before:
        condition = {"step": rng.choice(before), "ended": rng.sample(["completed", "failed", "skipped"], 2)}
        more["when"] = rng.choice(["on_failure", "always", condition])
    elif before and rng.random() < 0.7:
        source = rng.choice(before)
        path = "" if source in lists or rng.random() < 0.5 else "/name"
        more["given"] = [{"$from": source, "path": path}, {"k": [name]}]
    fails = rng.random() < 0.1
    if kind == "each":
        items = [
            {"name": f"{token}[{index}]", "bad": fails and index == 1} for index in range(rng.choice([0, 1, 2, 3, 5]))
        ]
        more |= {"for_each": items, "name": {"$item": "/name"}, "fails": {"$item": "/bad"}, "given": {"$index": True}}
    elif fails:
        more["fails"] = True
    return step(name, "act", before, **more)


def outcome_of(workflow: Workflow) -> Outcome:
    """Run it here."""
    made = Outcome(status="completed", steps={}, outputs={}, effects=set())
    for_failure: set[str] = set()
    lookup = looked_up_in(lambda name: made.outputs.get(name, MISSING))
    for one in workflow.steps:  # each comes after those that it depends on
        if not holds(one.when, made.steps, one.depends_on, lookup, skipped_for_failure=for_failure):
            made.steps[one.step_id] = "skipped"
            if one.when == "on_success" and any(is_failure(name, made.steps, for_failure) for name in one.depends_on):
                for_failure.add(one.step_id)
        else:
            made.steps[one.step_id] = _run(one, lookup, made)
    if "failed" in made.steps.values():
        made.status = "failed"
    return made


def _run(one: Step, lookup: Any, made: Outcome) -> StepStatus:
    try:
        if one.for_each is None:
            calls = [filled(one.inputs, lookup)]
        else:
            items = filled(one.for_each, lookup)
            calls = [filled(one.inputs, lookup, item=item, index=index) for index, item in enumerate(items)]
    except LookupError:
        return "failed"
    outputs = []
    for call in calls:
        if not call.get("fails"):
            made.effects.add(call["name"])
            outputs.append({"name": call["name"], "given": call.get("given")})
    if len(outputs) < len(calls):
        return "failed"
    made.outputs[one.step_id] = outputs if one.for_each is not None else outputs[0]
    return "completed"
