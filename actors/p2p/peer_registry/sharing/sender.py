# SPDX-License-Identifier: AGPL-3.0-or-later
"""Takes tasks from this node's queue and has peers run them.

To the queue it is a worker: what it claims has a lease and a token. A task that has to go to peers (`needs: [p2p]`) is
claimed whenever a peer would take its type; one that may run anywhere, and whose type may leave this node
(`p2p.sharing.types`), only when the local worker has no room. A peer that vanishes costs the task its lease and no
attempt; a result counts when it fits the offer and is signed by the node that was asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, Protocol

import msgspec
import trio

from actors.errors import MCPServerError, code_of
from actors.logs import get_logger
from actors.p2p.asking_queue import AGAIN_S, end_task, held_by, may_ask_again, persist
from actors.p2p.peer_registry.link.messages import Progress, ResultTaken, TaskResult
from actors.p2p.peer_registry.sharing.assignment import Assignment, Capacity, SenderRules
from actors.p2p.peer_registry.sharing.clocks import Clocks
from actors.p2p.peer_registry.sharing.statement import LieError, check_result
from actors.p2p.peer_registry.sharing.wires import Wire, Wires
from actors.p2p.task_worker.links import Results
from actors.peer_messages import GIVEN
from actors.task_client import TaskClient, new_task_id
from actors.task_messages import Claim, Claimed, Lease, RegisterWorker, Release, WorkerInfo

NAME: Final = "peers"
"""By which the queue knows it, for tasks that have to go to peers."""
SPARE_NAME: Final = "peers-spare"
"""The same for tasks that could run here, too. The queue remembers one claim of each name."""
P2P: Final = "p2p"
_MOST_CLAIMED: Final = 100
_STALE_S: Final = 15.0
"""What a peer said of its capacity is not believed for longer."""
_PAUSE_S: Final = 0.5
"""Between two looks for tasks that could run here, too."""
_SHUN_S: Final = 60.0
"""A peer that lied, or took a task and kept silent, is asked for nothing, whatever its judge says."""

_BLAMED: Final = frozenset({"INTERNAL", "TIMEOUT", "UNAVAILABLE", "OUTCOME_UNKNOWN", "RUNTIME_UNAVAILABLE"})
"""Errors that say something of the peer, and not of the task."""

Rank = Callable[[str, Sequence[Capacity]], list[str]]
"""Input CID, and who would take it -> their ids, the best first."""


class Judge(Protocol):
    """Who remembers what peers did."""

    def outcome(self, peer_id: str, *, success: bool, seconds: float) -> None:
        """A task ended there."""

    def lied(self, peer_id: str, what: str) -> None:
        """Its result was none."""


class Sender:
    """See the module's text."""

    def __init__(
        self,
        queue: TaskClient,
        wires: Wires,
        clocks: Clocks,
        rank: Rank,
        judge: Judge,
        rules: SenderRules,
        *,
        is_shared: Callable[[str], bool],
        local_is_full: Callable[[], Awaitable[bool]],
    ) -> None:
        """`is_shared`: whether tasks of a type that need nothing may leave this node."""
        self.counts = Counter[str](dict.fromkeys(GIVEN, 0))
        """What became of tasks that were to go to peers."""
        self._queue = queue
        self._wires = wires
        self._clocks = clocks
        self._rank = rank
        self._judge = judge
        self._rules = rules
        self._is_shared = is_shared
        self._local_is_full = local_is_full
        self._results = Results(queue)
        self._capacity: dict[str, Capacity] = {}
        self._types: dict[str, frozenset[str]] = {}
        self._shunned: dict[str, float] = {}
        self._assignments: dict[str, Assignment] = {}
        self._pulls: dict[str, int] = {}
        """Idle peers that asked and were not offered anything since: how much they would take."""
        self._pulled = trio.Event()
        self._changed = trio.Event()
        self._leaving = False

    @property
    def assigned(self) -> int:
        """Tasks that are with peers, or on the way."""
        return len(self._assignments)

    # --- what peers say --------------------------------------------------------------------------------------------

    def offers(self, peer_id: str, types: Iterable[str]) -> None:
        """Tools that a peer would run for this node."""
        self._types[peer_id] = frozenset(types)
        known = self._capacity.get(peer_id)
        if known is not None:
            self._capacity[peer_id] = msgspec.structs.replace(known, types=self._types[peer_id])
        self._wake()

    def capacity(self, peer_id: str, *, free_slots: int, running: int) -> None:
        """What a peer would take now."""
        ours = sum(1 for one in self._assignments.values() if one.peer == peer_id)
        self._capacity[peer_id] = Capacity(
            peer_id=peer_id,
            types=self._types.get(peer_id, frozenset()),
            free_slots=free_slots,
            running=max(running, ours),
            at=trio.current_time(),
        )
        self._wake()

    def pulled(self, peer_id: str, n: int) -> None:
        """It is idle: it is offered what waits here, and up to `n` of what could run here, too, without waiting for
        this node to have no room. Its heartbeats go on to say how much it would take."""
        known = self._capacity.get(peer_id)
        self.capacity(peer_id, free_slots=n, running=0 if known is None else known.running)
        self._pulls[peer_id] = n
        self._pulled.set()

    def lost(self, peer_id: str) -> None:
        """The connection with it ended."""
        self._pulls.pop(peer_id, None)
        self._capacity.pop(peer_id, None)
        self._types.pop(peer_id, None)
        for one in self._assignments.values():
            if one.peer == peer_id:
                one.peer_lost()

    def back(self, peer_id: str) -> None:
        """There is a connection again."""
        for one in self._assignments.values():
            if one.peer == peer_id:
                one.peer_back()

    def progress(self, wire: Wire, note: Progress) -> None:
        """How far one is."""
        one = self._assignments.get(note.task_id)
        if one is not None and one.is_with(wire.peer_id, note.token):
            one.keeper.progress(note.percent, note.text)

    async def result(self, wire: Wire, result: TaskResult) -> ResultTaken:
        """How one ended. Answered when the queue has it, and the clock of its workflow has what came along. What came
        along with a result that does not count is true all the same, if it is sound."""
        one = self._assignments.get(result.task_id)
        if one is not None and not one.is_with(wire.peer_id, result.token):
            one = None
        try:
            if one is not None:
                check_result(result, self._rules.me, wire.peer_id, one.input_cid)
                if result.workflow_id != one.workflow_id:
                    raise LieError("the result is for another workflow")
                one.told()
            merged = await self._clocks.merge(wire.peer_id, result, counts=one is not None)
        except LieError as lie:
            self._judge.lied(wire.peer_id, lie.message)
            self._shunned[wire.peer_id] = trio.current_time() + _SHUN_S
            if one is not None:
                one.give_back("its peer lied about the result", "lied")
            return ResultTaken(accepted=False, reason=lie.message)
        if one is None or not one.is_with(wire.peer_id, result.token):
            return ResultTaken(accepted=False, reason="the task has ended, or was given to another", merged=merged)
        if result.error is None or result.error.code in _BLAMED:
            self._judge.outcome(wire.peer_id, success=result.error is None, seconds=one.seconds)
        accepted = await one.ended(result)
        return ResultTaken(accepted=accepted, reason="" if accepted else "its lease had ended", merged=merged)

    # --- the queue -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Send tasks out until cancelled."""
        async with trio.open_nursery() as nursery:
            for name in (NAME, SPARE_NAME):
                register = RegisterWorker(
                    worker=name, owner=name, types=[], max_tasks=self._rules.max_assigned, internal=True
                )
                await persist(lambda register=register: self._queue.do(register, WorkerInfo))  # type: ignore[misc]
                await self._give_back_old(name)
            nursery.start_soon(self._claim, nursery, NAME)
            nursery.start_soon(self._claim, nursery, SPARE_NAME)
            nursery.start_soon(self._watch)

    def leave(self) -> None:
        """Take nothing more."""
        self._leaving = True
        self._wake()

    async def give_back(self) -> None:
        """This node ends: what is with peers goes back, without an attempt that counts. Bounded by the caller."""
        for one in list(self._assignments.values()):
            one.give_back("its node stopped")
        while self._assignments:
            await self._changed.wait()

    async def _give_back_old(self, name: str) -> None:
        """A former life's: its peers will be told that nobody knows them."""
        for task in await held_by(self._queue, name):
            back = Release(id=task.id, token=task.token, counts=False, reason="its node began anew")
            await end_task(self._queue, back)

    async def _watch(self) -> None:
        def on_changed(ids: list[str]) -> None:
            for task_id in ids or list(self._assignments):
                one = self._assignments.get(task_id)
                if one is not None:
                    one.keeper.look()

        while True:
            try:
                await self._queue.watch(on_changed)
            except MCPServerError as error:
                get_logger().debug("the queue can't be watched", reason=error.message)
            await trio.sleep(AGAIN_S)

    async def _claim(self, nursery: trio.Nursery, name: str) -> None:
        spare = name == SPARE_NAME
        request = new_task_id()
        while True:
            changed = self._changed
            room, types = self._room(spare=spare)
            if room < 1 or not types or self._leaving:
                with trio.move_on_after(_STALE_S):
                    await changed.wait()
                continue
            pulls: dict[str, int] = {}
            if spare:
                pulls, self._pulls = self._pulls, pulls
            if spare and not pulls and not await self._local_is_full():
                await self._pause()
                continue
            claim = Claim(
                worker=name,
                types=types,
                capabilities=[P2P],
                needing="" if spare else P2P,
                n=min(room, sum(pulls.values()) or room, _MOST_CLAIMED),
                wait_s=0.0 if spare else self._rules.wait_s,
                lease_s=self._rules.lease_s,
                request=request,
            )
            claimed = await self._asked(claim, changed)
            if claimed is None:
                self._pulls = pulls | self._pulls
                continue
            request = new_task_id()
            for lease in claimed.tasks:
                self._begin(lease, nursery)
            if spare:
                await self._pause()

    async def _pause(self) -> None:
        """Before the next look for tasks that could run here, too; an idle peer that asks ends it."""
        if not self._pulls:
            self._pulled = trio.Event()
            with trio.move_on_after(_PAUSE_S):
                await self._pulled.wait()

    async def _asked(self, claim: Claim, changed: trio.Event) -> Claimed | None:
        """None = ask again, with what is known by then; the claim keeps its name, so nothing that was given is lost."""
        answer: Claimed | None = None
        async with trio.open_nursery() as nursery:

            async def stop() -> None:
                await changed.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(stop)
            try:
                answer = await self._queue.do(claim, Claimed, timeout_s=claim.wait_s + 30.0)
            except MCPServerError as error:
                if not may_ask_again(error):
                    get_logger().warning("the queue gives no tasks", code=code_of(error), reason=error.message)
                await trio.sleep(AGAIN_S)
            nursery.cancel_scope.cancel()
        return answer

    def _room(self, *, spare: bool) -> tuple[int, list[str]]:
        candidates = self._candidates()
        types = sorted(frozenset().union(*(one.types for one in candidates)))
        if spare:
            types = [type_ for type_ in types if self._is_shared(type_)]
        free = sum(one.free_slots for one in candidates)
        # Those on their way will use slots that nobody has counted as used so far.
        free -= sum(1 for one in self._assignments.values() if not one.accepted)
        return min(free, self._rules.max_assigned - len(self._assignments)), types

    def _candidates(self) -> list[Capacity]:
        now = trio.current_time()
        self._shunned = {peer_id: until for peer_id, until in self._shunned.items() if until > now}
        return [
            one
            for one in self._capacity.values()
            if one.free_slots > 0 and one.types and one.at >= now - _STALE_S and one.peer_id not in self._shunned
        ]

    def _begin(self, lease: Lease, nursery: trio.Nursery) -> None:
        before = self._assignments.get(lease.id)
        if before is not None:
            before.stop("lost")
        one = Assignment(lease, self._queue, self._wires, self._results, self._clocks, self._rules, self._ranked)
        self._assignments[lease.id] = one
        nursery.start_soon(self._carry, one)

    def _ranked(self, type_: str, input_cid: str) -> list[str]:
        """Who would take a task of this type, the best first."""
        candidates = [one for one in self._candidates() if type_ in one.types]
        return self._rank(input_cid, candidates) if candidates else []

    def took(self, peer_id: str, free_slots: int) -> None:
        """A peer took or refused a task, and has so many slots left."""
        known = self._capacity.get(peer_id)
        if known is not None:
            self._capacity[peer_id] = msgspec.structs.replace(known, free_slots=free_slots)

    async def _carry(self, one: Assignment) -> None:
        try:
            await one.live(self.took)
        finally:
            if one.overdue:
                self._judge.outcome(one.peer, success=False, seconds=one.seconds)
                self._shunned[one.peer] = trio.current_time() + _SHUN_S
            self.counts["accepted"] += one.accepted
            self.counts[one.became] += 1
            if self._assignments.get(one.lease.id) is one:
                del self._assignments[one.lease.id]
            self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
