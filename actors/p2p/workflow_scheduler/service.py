# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the workflow scheduler answers. `Engine` does the work; what is told here is on disk."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable
from contextlib import asynccontextmanager, contextmanager
from typing import Final, TypeVar

import msgspec
import trio

from actors.errors import InvalidArgumentsError, MCPServerError, NotFoundError, RuntimeUnavailableError
from actors.p2p.answers import refuse
from actors.p2p.changes import Watcher
from actors.p2p.cids import cid_of_text, is_cid
from actors.p2p.workflow_scheduler.building import Builder
from actors.p2p.workflow_scheduler.engine import Engine
from actors.p2p.workflow_scheduler.events import BadEventError
from actors.p2p.workflow_scheduler.exporting import exported
from actors.p2p.workflow_scheduler.journal import OF_WORKFLOWS
from actors.p2p.workflow_scheduler.live import Live
from actors.p2p.workflow_scheduler.records import Known
from actors.p2p.workflow_scheduler.run_values import Commands
from actors.p2p.workflow_scheduler.store import WorkflowStore
from actors.p2p.workflow_scheduler.submitting import Limits, Submitting
from actors.p2p.workflow_scheduler.watchers import Watchers
from actors.workflow_messages import (
    MOST_PEER_EVENTS,
    WORKFLOW_ENDED,
    ControlWorkflow,
    ExportWorkflow,
    GetWorkflow,
    ListWorkflows,
    MergeEvents,
    OfferStep,
    StepIsOffered,
    StepView,
    SubmitWorkflow,
    WorkflowControlled,
    WorkflowPage,
    WorkflowStats,
    WorkflowSubmitted,
    WorkflowView,
)

MOST_WAIT_S: Final = 60.0
"""The longest that a reading waits; a longer wish is shortened."""
MOST_LISTED: Final = 1000
_MOST_OFFSET: Final = 10**9
_RECOVERED_WITHIN_S: Final = 30.0
_NEWS_WITHIN_S: Final = 5.0
"""The queue's news of steps that are known to have ended, since one that depends on them was leased."""
_MOST_PEER_CHARS: Final = 100
T = TypeVar("T")

_encode = msgspec.msgpack.Encoder().encode


class WorkflowService:
    """The scheduler of this process. `run` has to run beside all that is asked of it."""

    def __init__(
        self,
        store: WorkflowStore,
        engine: Engine,
        builder: Builder,
        limits: Limits,
        *,
        leaving: Callable[[], bool] = lambda: False,
    ) -> None:
        """While `leaving()`, nobody waits for anything but a commit."""
        self.submitting = Submitting(store, engine, builder, limits)
        self._store = store
        self._engine = engine
        self._limits = limits
        self._watchers = Watchers()
        self._waits: set[trio.CancelScope] = set()
        self._leaving = leaving
        self._recovered = trio.Event()
        engine.on_changed = self._watchers.changed

    # --- its own life ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Go on with what the lives before this one left, and run what is submitted, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._engine.run)
            await self._recover()

    async def _recover(self) -> None:
        """A workflow that had begun is opened before anybody is answered."""
        open_ones = await trio.to_thread.run_sync(self._store.open_ones)
        ended = await trio.to_thread.run_sync(self._ended_before, open_ones)
        for workflow_id in self._engine.recover(open_ones, ended):
            live = await self._engine.open_or_give_up(workflow_id)
            if live is not None and live.over:
                # Its end was told to nobody else: what may be left of it is a lane that is still stopped.
                self._engine.carry(live, Commands(pause=False))
        self._recovered.set()

    def _ended_before(self, open_ones: Iterable[Known]) -> dict[str, bool]:
        """Workflows that some of these depend on and that have ended: whether they completed."""
        wanted = {need for one in open_ones if one.view.status == "submitted" for need in one.view.dependencies}
        found = {need: self._store.find(need) for need in wanted}
        # One that is not kept any more had completed: those that others still wait for are kept.
        return {
            need: known is None or known.view.status == "completed"
            for need, known in found.items()
            if known is None or known.view.status in WORKFLOW_ENDED
        }

    def leave(self) -> None:
        """Let all who wait go with what there is: `leaving()` has become true."""
        for scope in self._waits:
            scope.cancel()

    @contextmanager
    def _waiting(self, seconds: float) -> Generator[trio.CancelScope, None, None]:
        with trio.move_on_after(seconds) as scope:
            self._waits.add(scope)
            if self._leaving():
                scope.cancel()
            try:
                yield scope
            finally:
                self._waits.discard(scope)

    async def _ready(self) -> None:
        with trio.move_on_after(_RECOVERED_WITHIN_S):
            await self._recovered.wait()
        if not self._recovered.is_set():
            raise RuntimeUnavailableError("the scheduler is still reading the workflows that go on; try again")

    # --- submitting --------------------------------------------------------------------------------------------------

    def check_size(self, size: int) -> None:
        """Raises `InvalidArgumentsError` when it is too much for one workflow."""
        self.submitting.check_size(size)

    async def submit(self, ask: SubmitWorkflow, size: int | None = None) -> WorkflowSubmitted:
        """Store a workflow that came in `size` bytes; None = they are counted. Raises `InvalidArgumentsError` with all
        its faults, ID_CONFLICT, `BusyError` when there are too many, and `RuntimeUnavailableError` while it is not
        known which tools there are."""
        await self._ready()
        return await self.submitting.submit(ask, len(_encode(ask)) if size is None else size)

    # --- reading -----------------------------------------------------------------------------------------------------

    async def get(self, ask: GetWorkflow) -> WorkflowView:
        """A workflow, after waiting as `ask` says. Raises `NotFoundError`, NOT_OWNER, and LIMIT_EXCEEDED when its
        outputs are too large for one answer."""
        if not ask.wait_s >= 0:
            raise InvalidArgumentsError(f"wait_s is {ask.wait_s}; it is a length of time")
        await self._ready()
        with self._waiting(min(ask.wait_s, MOST_WAIT_S)) as scope:
            while True:
                with self._watchers.change_of(ask.workflow_id) as changed:
                    with trio.CancelScope(shield=True):
                        view = await self._view(ask)
                    if _enough(view, ask) or scope.cancel_called or ask.wait_s <= 0:
                        break
                    await changed.wait()
        if scope.cancelled_caught:
            view = await self._view(ask)
        if ask.outputs and ask.steps:
            view = msgspec.structs.replace(view, steps=await self._with_outputs(view))
        return view

    async def _view(self, ask: GetWorkflow) -> WorkflowView:
        while True:
            live = self._engine.lives.get(ask.workflow_id)
            if live is not None:
                _check_owner(ask.owner, live.run.owner, live.id)
                view = live.run.view(steps=ask.steps)
                await self._engine.journal.written()
                return self._explained(view)
            known = await self._known(ask.workflow_id, ask.owner)
            if known.view.status in WORKFLOW_ENDED:
                whole = await trio.to_thread.run_sync(self._store.whole, known.id) or known.view
                return whole if ask.steps else msgspec.structs.replace(whole, steps=[])
            async with self._in_memory(ask.workflow_id) as opened:
                if opened is not None:
                    return self._explained(opened.run.view(steps=ask.steps))

    def _explained(self, view: WorkflowView) -> WorkflowView:
        """With what it waits for before it begins."""
        if view.status != "submitted" or view.reason:
            return view
        line = self._engine.line
        needs = line.waits_for(view.workflow_id)
        why = f"waits for {', '.join(needs)}" if needs else f"{len(line.running)} others run, at most {line.most} do"
        return msgspec.structs.replace(view, reason=why)

    async def _with_outputs(self, view: WorkflowView) -> list[StepView]:
        cids = [cid_of_text(step.result) for step in view.steps if step.result]
        sizes = dict(await trio.to_thread.run_sync(self._store.block_sizes, view.workflow_id))
        total = sum(sizes.get(cid, 0) for cid in cids)
        if total > self._limits.max_answer_bytes:
            refuse(
                "LIMIT_EXCEEDED",
                f"the outputs have {total} bytes, and one answer takes {self._limits.max_answer_bytes}; export the "
                "workflow instead",
            )
        blocks = await trio.to_thread.run_sync(self._store.blocks, view.workflow_id, cids)
        return [
            msgspec.structs.replace(step, output=blocks[cid_of_text(step.result)].decode()) if step.result else step
            for step in view.steps
        ]

    async def list(self, ask: ListWorkflows) -> WorkflowPage:
        """Those that match. Raises `InvalidArgumentsError`."""
        if not (1 <= ask.limit <= MOST_LISTED and 0 <= ask.offset <= _MOST_OFFSET):
            raise InvalidArgumentsError(f"limit goes from 1 to {MOST_LISTED}, offset from 0 to {_MOST_OFFSET}")
        await self._ready()
        found, total = await trio.to_thread.run_sync(self._store.page, ask)
        workflows = [self._latest(one) for one in found]
        await self._engine.journal.written()
        return WorkflowPage(workflows=workflows, total=total)

    def _latest(self, known: Known) -> WorkflowView:
        live = self._engine.lives.get(known.id)
        if live is None or known.view.status in WORKFLOW_ENDED or live.over:
            return self._explained(known.view)
        return self._explained(msgspec.structs.replace(live.run.view(steps=False), metadata={}))

    async def stats(self) -> WorkflowStats:
        """All of it in numbers."""
        counts = await trio.to_thread.run_sync(self._store.counts)
        tally = await trio.to_thread.run_sync(self._store.tally)
        sizes = await trio.to_thread.run_sync(self._store.sizes)
        steps = {name: count for name, count in tally.items() if not name.startswith(OF_WORKFLOWS)}
        whole = {name.removeprefix(OF_WORKFLOWS): count for name, count in tally.items() if name not in steps}
        return WorkflowStats(counts=counts, workflows=whole, steps=steps, store=sizes)

    async def _find(self, workflow_id: str) -> Known | None:
        return await trio.to_thread.run_sync(self._store.find, workflow_id)

    async def _known(self, workflow_id: str, owner: str | None) -> Known:
        known = await self._find(workflow_id)
        if known is None:
            raise NotFoundError(f"there is no workflow {workflow_id[:200]!r}; what has ended is kept for a while only")
        _check_owner(owner, known.owner, workflow_id)
        return known

    @asynccontextmanager
    async def _in_memory(self, workflow_id: str) -> AsyncIterator[Live | None]:
        """A workflow that has not ended, or has just now; None = it can't be continued, which is its end."""
        live = await self._engine.open_or_give_up(workflow_id)
        if live is None:
            yield None
            return
        live.users += 1
        try:
            yield live
        finally:
            live.users -= 1
            self._engine.release(live)

    async def export(self, ask: ExportWorkflow) -> AsyncGenerator[bytes, None]:
        """The pieces of a CAR file. Raises `NotFoundError`, NOT_OWNER."""
        await self._ready()
        known = await self._known(ask.workflow_id, ask.owner)
        pieces = await trio.to_thread.run_sync(exported, self._store, known.id)
        while (piece := await trio.to_thread.run_sync(next, pieces, None)) is not None:
            yield piece

    @contextmanager
    def watching(self) -> Generator[Watcher, None, None]:
        """Hear which workflows change, until this process leaves."""
        with self._waiting(math.inf), self._watchers.watch() as watcher:
            yield watcher

    # --- controlling -------------------------------------------------------------------------------------------------

    async def control(self, order: ControlWorkflow) -> WorkflowControlled:
        """Cancel, pause or resume. Raises `NotFoundError`, NOT_OWNER, INVALID_STATE."""
        await self._ready()
        known = await self._known(order.workflow_id, order.owner)
        if known.view.status in WORKFLOW_ENDED:
            refuse("INVALID_STATE", f"workflow {known.id} has {known.view.status} already")
        async with self._in_memory(order.workflow_id) as live:
            if live is None or live.over:
                status = "failed" if live is None else live.run.status
                await self._engine.journal.written()
                refuse("INVALID_STATE", f"workflow {known.id} has {status} already")
            steps: list[str] = []
            with self._engine.telling(live):
                steps = live.run.control(order, self._engine.now())
            status = live.run.status
            await self._engine.journal.written()
            return WorkflowControlled(workflow_id=live.id, status=status, steps=steps)

    # --- work at peers -----------------------------------------------------------------------------------------------

    async def offer(self, ask: OfferStep) -> StepIsOffered:
        """A step is about to be offered to a peer: stored, and where the peer's event comes. Raises what
        `WorkflowRun.offer` raises, and `RuntimeUnavailableError` when news that have to come first do not come."""
        if not is_cid(ask.input) or not 1 <= len(ask.peer) <= _MOST_PEER_CHARS or min(ask.token, ask.attempt) < 0:
            raise InvalidArgumentsError("an offer names a peer, and its arguments by their CID")
        await self._ready()
        async with self._going(ask.workflow_id) as live:
            with self._waiting(_NEWS_WITHIN_S):
                while True:
                    with self._watchers.change_of(ask.workflow_id) as changed:
                        event = self._told(live, lambda: live.run.offer(ask, self._engine.now()))
                        if event is not None:
                            break
                        await changed.wait()
            if event is None:
                raise RuntimeUnavailableError("it is not known yet how the steps before this one ended; try again")
            clock = live.run.clock
            place = StepIsOffered(after=event.cid, height=event.height + 1, seq=clock.next_seq(ask.peer, [event.cid]))
            await self._engine.journal.written()
            return place

    async def merge(self, ask: MergeEvents) -> None:
        """Store what a peer says of its work. Raises `BadEventError`, `NotFoundError`, INVALID_STATE."""
        if len(ask.events) > MOST_PEER_EVENTS:
            raise BadEventError("TOO_MANY", f"{len(ask.events)} events were told, the most are {MOST_PEER_EVENTS}")
        await self._ready()
        async with self._going(ask.workflow_id) as live:
            self._told(live, lambda: live.run.merge(ask, self._engine.now()))
            await self._engine.journal.written()

    @asynccontextmanager
    async def _going(self, workflow_id: str) -> AsyncIterator[Live]:
        """A workflow that peers may work for. Raises `NotFoundError`, INVALID_STATE."""
        if workflow_id not in self._engine.lives:  # as is one that runs
            known = await self._known(workflow_id, None)
            if known.view.status in WORKFLOW_ENDED:
                refuse("INVALID_STATE", f"workflow {known.id} has {known.view.status} already")
        async with self._in_memory(workflow_id) as live:
            if live is None or live.over:
                refuse("INVALID_STATE", f"workflow {workflow_id} has ended already")
            yield live

    def _told(self, live: Live, tell: Callable[[], T]) -> T:
        """What a run answers; that it refuses something is no fault of the run."""
        refusal: MCPServerError | None = None
        with self._engine.telling(live):
            try:
                return tell()
            except MCPServerError as error:
                refusal = error
        if refusal is None:
            refuse("INVALID_STATE", f"workflow {live.id} can't be continued")
        raise refusal


def _enough(view: WorkflowView, ask: GetWorkflow) -> bool:
    return view.status in WORKFLOW_ENDED or (ask.newer_than is not None and view.version > ask.newer_than)


def _check_owner(asked: str | None, owner: str, workflow_id: str) -> None:
    if asked is not None and asked != owner:
        refuse("NOT_OWNER", f"workflow {workflow_id} belongs to somebody else")
