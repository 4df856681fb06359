# SPDX-License-Identifier: AGPL-3.0-or-later
"""Workflows that were done, told event by event, and their exports."""

from __future__ import annotations

import json
from typing import Any

from workflow_clocks import cid, signer

from actors.p2p.workflow_scheduler.car import written
from actors.p2p.workflow_scheduler.content import definition_block
from actors.p2p.workflow_scheduler.event_clock import EventClock
from actors.p2p.workflow_scheduler.events import Event
from actors.workflow_messages import Step, Workflow


def step(step_id: str, *depends_on: str, **fields: Any) -> Step:
    return Step(step_id=step_id, action="echo", depends_on=list(depends_on), **fields)


class Story:
    """What happened to a workflow."""

    def __init__(self, *steps: Step, submitted: bool = True) -> None:
        self.clock = EventClock()
        self.definition, block = definition_block(Workflow(name="story", steps=list(steps)))
        self.blocks = {self.definition: block}
        if submitted:
            self.say("submitted", workflow=self.definition, workflow_id="wf", owner="me")

    def say(self, kind: str, *, by: str = "ann", **payload: Any) -> Event:
        return self.clock.append(kind, {"at": 1000 * (len(self.clock) + 1)} | payload, signer(by))

    def output(self, value: Any, *, kept: bool = True) -> bytes:
        block = json.dumps(value).encode()
        link = cid(block, 0x55)
        if kept:
            self.blocks[link] = block
        return link

    def start(self, step: str, attempt: int = 1, **more: Any) -> None:
        more = {"token": attempt, "task": f"wf:{step}", "worker": f"worker {attempt}"} | more
        self.say("step_started", step=step, attempt=attempt, **more)

    def complete(self, step: str, value: Any = 1, attempt: int = 1, **more: Any) -> None:
        more = {"token": attempt, "task": f"wf:{step}", "worker": f"worker {attempt}"} | more
        self.say("step_completed", step=step, attempt=attempt, result=self.output(value), **more)

    def do(self, step: str, value: Any = 1, **more: Any) -> None:
        self.start(step, **more)
        self.complete(step, value, **more)

    def end(self, status: str = "completed", **more: Any) -> None:
        self.say("ended", status=status, **more)

    def all_blocks(self) -> dict[bytes, bytes]:
        blocks = dict(self.blocks)
        for event in self.clock.ordered():
            blocks[event.cid] = event.node
            blocks[cid(event.payload_block)] = event.payload_block
        return blocks

    def file(self, *, without: bytes = b"", roots: list[bytes] | None = None) -> bytes:
        blocks = {link: block for link, block in self.all_blocks().items() if link != without}
        return b"".join(written(sorted(self.clock.heads) if roots is None else roots, blocks.items()))


def begun(*steps: Step) -> Story:
    story = Story(*steps)
    story.say("begun")
    return story


def done() -> Story:
    """One of everything."""
    story = begun(
        step("a"),
        step("b", "a"),
        step("list", "a", for_each=[1, 2]),
        step("seldom", "b", when="on_failure"),
        step("last", "list", "seldom", when="always", memo=True),
    )
    story.start("a")
    story.start("a", attempt=2)
    story.complete("a", {"x": 1}, attempt=2)
    story.do("b", "text")
    story.say("step_expanded", step="list", items=story.output([1, 2]), count=2)
    story.do("list", 10, index=1, task="wf:list[1]")
    story.do("list", 20, index=0, task="wf:list[0]")
    story.complete("list", [20, 10], attempt=0, task="", worker="", token=0)
    story.say("step_skipped", step="seldom", reason="its condition does not hold")
    story.say("step_ready", step="last")
    story.complete("last", None, attempt=0, task="", worker="", token=0, memo=True)
    story.end()
    return story
