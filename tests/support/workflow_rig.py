# SPDX-License-Identifier: AGPL-3.0-or-later
"""A workflow's run with a fake queue: what is told it comes in random order, late and repeatedly, its process dies at
random, and commands get lost or arrive when nobody expects them any more."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import msgspec
from workflow_clocks import signer
from workflow_queue import FakeQueue

from actors.p2p.workflow_scheduler.definition import Plan, plan_of
from actors.p2p.workflow_scheduler.event_clock import EventClock
from actors.p2p.workflow_scheduler.events import Event
from actors.p2p.workflow_scheduler.fold import replay
from actors.p2p.workflow_scheduler.machine import WorkflowRun
from actors.p2p.workflow_scheduler.run_values import Changes, Commands, MemoAsk, Rules
from actors.p2p.workflow_scheduler.steps import Graph
from actors.task_messages import FINAL, Cancel, Enqueue
from actors.tool_messages import ToolDescriptor
from actors.workflow_messages import ControlWorkflow, Workflow

TOOL = ToolDescriptor(
    name="mix",
    title="mix",
    description="mix",
    input_schema=b'{"type":"object"}',
    runtime="general",
    pool="general",
    category="tests",
    retry_safe=True,
)


class Chances(msgspec.Struct, frozen=True):
    """How likely things are, from 0 to 1, each time that something happens."""

    die: float = 0.0
    lose: float = 0.0
    """The way to the queue breaks."""
    repeat: float = 0.0
    """News come again."""
    haunt: float = 0.0
    """What was under way when process or way broke arrives later."""
    full: float = 0.0
    flaky: float = 0.0


class Rig:
    """See the module's text."""

    def __init__(
        self,
        workflow: Workflow,
        *,
        rng: random.Random | None = None,
        chances: Chances | None = None,
        rules: Rules | None = None,
        owner: str = "ann",
    ) -> None:
        self.rng = rng or random.Random(0)
        self.chances = chances or Chances()
        self.rules = rules or Rules()
        self.plan: Plan = plan_of(workflow)
        self.id = workflow.workflow_id
        self.owner = owner
        self.queue = FakeQueue(self.rng, full=self.chances.full, flaky=self.chances.flaky)
        self.now = 1000.0
        self.stored: list[Event] = []
        self.blocks: dict[bytes, str] = {}
        self.memos: dict[bytes, bytes] = {}
        self.memo_hits = 0
        self.commands: deque[Any] = deque()
        """Not carried out yet, in order."""
        self.answers: list[tuple[str, Any]] = []
        """On their way to the run."""
        self.ghosts: list[Enqueue | Cancel] = []
        self.lives = 1
        self.full = False
        self.run = WorkflowRun.submit(self.plan, EventClock(), signer("ann"), self.rules, **self._more())
        self.settle()

    def _more(self) -> dict[str, Any]:
        return {
            "workflow_id": self.id,
            "owner": self.owner,
            "tools": {"mix": TOOL},
            "outputs": self.blocks.__getitem__,
            "now": self.now,
        }

    # --- one life after the other ------------------------------------------------------------------------------

    def settle(self) -> Changes:
        """What was decided is stored; commands are to be carried out."""
        changes = self.run.take()
        self.stored += changes.events
        self.blocks |= changes.outputs
        self.memos |= {gain.key: gain.output for gain in changes.memos}
        self.full = self.full or changes.full
        self._line_up(changes.commands)
        return changes

    def _line_up(self, commands: Commands) -> None:
        if commands.pause is not None:
            self.commands.append(("pause", commands.pause))
        self.commands += [("look", one) for one in commands.look]
        self.commands += [("memo", one) for one in commands.memo]
        self.commands += [("do", one) for one in (*commands.enqueue, *commands.cancel)]

    def die(self) -> None:
        """The process ends; another one goes on from what is stored."""
        self._forget()
        self.lives += 1
        self.run = self.replayed(self.stored)
        self.settle()

    def lose(self) -> None:
        """The way to the queue breaks and is there again."""
        memos = [one for one in self.commands if one[0] == "memo"]
        answered = [one for one in self.answers if one[0] == "memo"]
        self._forget()
        self.commands += memos
        self.answers += answered
        self.run.lost()
        self.settle()

    def _forget(self) -> None:
        """What is under way is lost, or becomes a ghost."""
        for kind, one in self.commands:
            if kind == "do" and self.rng.random() < self.chances.haunt:
                self.ghosts.append(one)
        self.commands.clear()
        self.answers.clear()
        self.queue.news.clear()

    def replayed(self, events: list[Event]) -> WorkflowRun:
        """A run of these events."""
        clock = EventClock()
        for event in events:
            clock.add(event.node, event.payload_block, trusted=True)
        return WorkflowRun.replayed(self.plan, clock, signer("ann"), self.rules, **self._more())

    def same_when_replayed(self) -> bool:
        """Whether a replay of what is stored gives the state."""
        clock = EventClock()
        for event in self.stored:
            clock.add(event.node, event.payload_block, trusted=True)
        return replay(Graph(self.plan, self.id), clock.ordered()) == self.run.state

    # --- what happens ------------------------------------------------------------------------------------------

    def control(self, what: Any, **more: Any) -> list[str]:
        steps = self.run.control(ControlWorkflow(workflow_id=self.id, what=what, **more), self.now)
        self.settle()
        return steps

    def begin(self) -> None:
        self.run.begin(self.now)
        self.settle()

    def to_end(self, most: int = 20_000) -> None:
        """Let random things happen until it has ended and nothing is under way."""
        for _ in range(most):
            if not self.step():
                return
        raise AssertionError(f"it does not end: {self.run.view()}")

    def step(self) -> bool:
        """Something happens; False when nothing can."""
        self.now += 0.001
        rng, chances = self.rng, self.chances
        over = self.run.state.ended_at is not None
        if not over and rng.random() < chances.die:
            self.die()
        if not over and rng.random() < chances.lose:
            self.lose()
        ways = [
            way
            for way, there in (
                (self._carry_out, self.commands),
                (self._hear, self.queue.news),
                (self._answer, self.answers),
                (self.queue.work, self.queue.busy()),
                (self._haunt, self.ghosts),
                (self._retry, self.full and not over),
            )
            if there
        ]
        if ways:
            rng.choice(ways)()
        return bool(ways)

    def calm(self) -> None:
        """Carry out and tell everything in order, without anything going on in the queue."""
        while self.commands or self.queue.news or self.answers:
            while self.commands:
                self._carry_out()
            while self.answers:
                self._answer(0)
            while self.queue.news:
                self._observe([self.queue.news.pop(0)])

    def _carry_out(self) -> None:
        kind, one = self.commands.popleft()
        if kind == "pause":
            self.queue.paused = one
        elif kind == "look":
            self.answers.append(("look", self.queue.facts([one])))
        elif kind == "memo":
            self.answers.append(("memo", one))
        else:
            self.answers.append(("done", (one, self.queue.apply(one))))

    def _answer(self, at: int | None = None) -> None:
        at = self.rng.randrange(len(self.answers)) if at is None else at
        if self.answers[at][0] == "done":  # the queue answers in order
            at = next(at for at, (kind, _) in enumerate(self.answers) if kind == "done")
        kind, one = self.answers.pop(at)
        if kind == "look":
            self.run.observe(one[0], self.now)
            self.run.gone(one[1], self.now)
        elif kind == "memo":
            self._tell_memo(one)
        else:
            op, refused = one
            if refused is not None:
                self.run.refused(op.id, refused, self.now)
            elif isinstance(op, Enqueue):
                self.run.accepted([op.id])
        self.settle()

    def _tell_memo(self, ask: MemoAsk) -> None:
        known = self.memos.get(ask.key)
        self.memo_hits += known is not None
        self.run.memo_found(ask.step, ask.index, None if known is None else self.blocks[known], self.now)

    def _hear(self) -> None:
        news = self.queue.news
        some = [news.pop(self.rng.randrange(len(news))) for _ in range(self.rng.randint(1, min(3, len(news))))]
        news += [one for one in some if self.rng.random() < self.chances.repeat]
        self._observe(some)

    def _observe(self, facts: list[Any]) -> None:
        self.run.observe(facts, self.now)
        self.settle()

    def _haunt(self) -> None:
        self.queue.apply(self.ghosts.pop())

    def _retry(self) -> None:
        self.full = False
        self.run.retry_refused()
        self.settle()

    # --- what has to hold --------------------------------------------------------------------------------------

    def outputs(self) -> dict[str, Any]:
        """By step, of those that have one."""
        view = self.run.view(outputs=True)
        return {step.step_id: msgspec.json.decode(step.output) for step in view.steps if step.output is not None}

    def check_order(self) -> None:
        """No step was written down as started or completed before all that it depends on had ended; none twice."""
        ended: set[str] = set()
        for event in self.stored:
            payload = event.payload
            step = payload.get("step", "")
            if event.kind in ("step_started", "step_completed", "step_expanded", "step_ready"):
                assert step not in ended, f"{step} goes on after its end"
                assert all(before in ended for before in self.plan.depends[step]), f"{step} comes before what it needs"
            if event.kind in ("step_completed", "step_failed", "step_skipped", "step_cancelled"):
                assert step not in ended, f"{step} ends twice"
                if "index" not in payload:
                    ended.add(step)

    def left_open(self) -> list[str]:
        """Tasks of the queue that have not ended."""
        return [one for one, task in self.queue.tasks.items() if task.fact.state not in FINAL]
