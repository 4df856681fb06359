# SPDX-License-Identifier: AGPL-3.0-or-later
"""Random workflows of the tool `act`, for real processes, and what has to come of them."""

from __future__ import annotations

import random
from typing import Any

import msgspec
from workflow_calls import step
from workflow_sequence import Outcome, ToolFailedError, in_sequence

from actors.workflow_messages import Workflow

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


def act(arguments: dict[str, Any]) -> dict[str, Any]:
    """What the tool gives."""
    if arguments.get("fails"):
        raise ToolFailedError("it was asked to fail")
    return {"name": arguments["name"], "given": arguments.get("given")}


def outcome_of(workflow: Workflow) -> Outcome:
    """Run it here."""
    return in_sequence(workflow, act)


def effects_of(outcome: Outcome) -> set[str]:
    """Names of all that was done."""
    return {arguments["name"] for arguments in outcome.calls.values()}
