# SPDX-License-Identifier: AGPL-3.0-or-later
"""Nodes that share work, in one process: each has a queue, runs tools and hears of the others over wires that a test
cuts, mends and listens to."""

from __future__ import annotations

import json

import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from task_bench import QueueHere

from actors.errors import ForbiddenError, NotFoundError, OutcomeUnknownError, RuntimeUnavailableError
from actors.p2p.identity import NodeSigner
from actors.p2p.peer_registry.link.messages import Heartbeat, Offer, Progress, Pull, TaskCancel, TaskResult
from actors.p2p.peer_registry.sharing.assignment import SenderRules
from actors.p2p.peer_registry.sharing.clocks import Clocks
from actors.p2p.peer_registry.sharing.pulling import Puller
from actors.p2p.peer_registry.sharing.runner import Runner, RunnerRules
from actors.p2p.peer_registry.sharing.sender import Sender
from actors.task_messages import FINAL, Claim, Enqueue, Retry, TaskState
from actors.task_views import GetTask
from actors.tool_messages import ToolResult


class WaitingQueue(QueueHere):
    """Claims wait, as the queue's do."""

    async def do(self, op, answer, *, timeout_s=30.0):
        with trio.move_on_after(op.wait_s if isinstance(op, Claim) else 0.0) as waiting:
            while True:
                news = self._news
                with trio.CancelScope(shield=True):
                    outcome = await super().do(op, answer, timeout_s=timeout_s)
                if not isinstance(op, Claim) or outcome.tasks or not op.wait_s:
                    return outcome
                await news.wait()
        assert waiting.cancelled_caught
        return outcome


class Wire:
    """From one node to another."""

    def __init__(self, here, there):
        self.here, self.there = here, there
        self.peer_id = there.id

    async def call(self, request, timeout_s):
        await trio.lowlevel.checkpoint()
        self.here.asked.append(request)
        if self.here.lose_next_answer:
            self.here.lose_next_answer = False
            await self.there.answer(self.here.id, self.here.forge(request))
            raise OutcomeUnknownError("the connection ended")
        answer = await self.there.answer(self.here.id, self.here.forge(request))
        if self.here.get(self.peer_id) is None:
            raise OutcomeUnknownError("the connection ended")
        return answer

    def note(self, note):
        self.there.hear(self.here.id, note)


class Node:
    """One node."""

    def __init__(self, nursery, *, slots=2, shared=(), **rules):
        self.signer = NodeSigner(Ed25519PrivateKey.generate())
        self.id = self.signer.peer
        self.queue = WaitingQueue()
        self.wires = {}
        self.asked = []
        self.refuses = ()
        """Types that others may not have run here."""
        self.lose_next_answer = False
        self.forge = lambda request: request
        self.full = False
        self.home = None
        """Its workflow (`peer_work.Home`)."""
        self.scheduler_is_down = False
        self.scheduler_takes_s = 0.0
        self.lies, self.outcomes = [], []
        self.runs = []
        """Of its tool: who asked, which task, which token."""
        self.cancelled = []
        self.pulls = []
        """Who asked for how much."""
        self.errors = []
        """That its tool raises next."""
        self.gate = trio.Event()
        self.gate.set()
        self._news = trio.Event()
        self.runner = Runner(self._tool, self._admit, self.signer, self, RunnerRules(slots=slots, **rules))
        self.sender = Sender(
            self.queue,
            self,
            Clocks(self),
            lambda _, candidates: [one.peer_id for one in candidates],
            self,
            SenderRules(me=self.id, wait_s=5.0),
            is_shared=lambda type_: type_ in shared,
            local_is_full=self._is_full,
        )
        self.puller = Puller(self.runner, self.wires.values, self._is_full)
        self.nursery = nursery
        nursery.start_soon(self.sender.run)
        nursery.start_soon(self.runner.run)

    # --- wires -----------------------------------------------------------------------------------------------------

    def get(self, peer_id):
        return self.wires.get(peer_id)

    async def changed(self):
        await self._news.wait()

    def join(self, other, types=("work",)):
        """Connect both; the other one would run these."""
        for one, two in ((self, other), (other, self)):
            one.wires[two.id] = Wire(one, two)
            one._wake()
            one.sender.back(two.id)
            one.puller.look()
        self.sender.offers(other.id, types)
        other.tell_capacity(self)
        other.runner.on_free = lambda: other.tell_capacity(self)

    def tell_capacity(self, other):
        if other.id in self.wires:
            beat = Heartbeat(free_slots=self.runner.free_slots, running=self.runner.running)
            self.wires[other.id].note(beat)

    def part(self, other):
        for one, two in ((self, other), (other, self)):
            one.wires.pop(two.id, None)
            one.sender.lost(two.id)
            one._wake()

    def _wake(self):
        self._news.set()
        self._news = trio.Event()

    async def answer(self, peer_id, request):
        wire = self.wires.get(peer_id)
        self.runner.heard(peer_id)
        if isinstance(request, Offer):
            return self.runner.offered(wire, request)
        assert isinstance(request, TaskResult)
        return await self.sender.result(wire, request)

    def hear(self, peer_id, note):
        wire = self.wires[peer_id]
        if isinstance(note, Heartbeat):
            self.sender.capacity(peer_id, free_slots=note.free_slots, running=note.running)
        elif isinstance(note, Pull):
            self.pulls.append((peer_id, note.n))
            self.sender.pulled(peer_id, note.n)
        elif isinstance(note, TaskCancel):
            self.runner.cancelled(wire, note)
        else:
            assert isinstance(note, Progress)
            self.sender.progress(wire, note)

    # --- what it does for others -----------------------------------------------------------------------------------

    async def _tool(self, origin, offer, progress):
        self.runs.append((origin, offer.task_id, offer.token))
        progress(50.0, "half")
        if self.errors:
            raise self.errors.pop()
        try:
            await self.gate.wait()
        except trio.Cancelled:
            self.cancelled.append(offer.task_id)
            raise
        return ToolResult(
            value=json.dumps({"of": offer.task_id}).encode(), shape="object", runtime="general", duration_ms=1
        )

    def _admit(self, origin, offer):
        if offer.type in self.refuses:
            raise ForbiddenError(f"{offer.type} is not for you")

    async def _is_full(self):
        return self.full

    # --- its scheduler ---------------------------------------------------------------------------------------------

    async def offer(self, ask, *, timeout_s):
        await trio.sleep(self.scheduler_takes_s)
        return self._home().offer(ask)

    async def merge(self, ask, *, timeout_s):
        await trio.lowlevel.checkpoint()
        self._home().merge(ask)

    def _home(self):
        if self.scheduler_is_down:
            raise RuntimeUnavailableError("the scheduler is down")
        if self.home is None:
            raise NotFoundError("there is no such workflow")
        return self.home

    # --- its judge -------------------------------------------------------------------------------------------------

    def outcome(self, peer_id, *, success, seconds):
        self.outcomes.append((peer_id, success))

    def lied(self, peer_id, what):
        self.lies.append((peer_id, what))

    # --- its queue -------------------------------------------------------------------------------------------------

    async def put(self, id_="t", type_="work", *, needs=("p2p",), **more):
        op = Enqueue(id=id_, type=type_, needs=list(needs), retry=Retry(max_attempts=3), **more)
        await self.queue.do(op, object)

    async def until(self, holds, id_="t"):
        with trio.fail_after(100):
            while not holds(task := (await self.queue.get(GetTask(id=id_))).task):
                await trio.sleep(0.1)
            return task

    async def ended(self, id_="t"):
        return await self.until(lambda task: task.state in FINAL, id_)

    async def taken(self, id_="t"):
        return await self.until(lambda task: task.state == TaskState.LEASED, id_)
