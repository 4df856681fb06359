# SPDX-License-Identifier: AGPL-3.0-or-later
"""Takes workflows: checks them, stores them, and begins them when there is room."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import msgspec
import trio

from actors.errors import BusyError, InvalidArgumentsError
from actors.p2p.answers import refuse
from actors.p2p.cids import cid_text
from actors.p2p.workflow_scheduler.building import Builder
from actors.p2p.workflow_scheduler.definition import Plan
from actors.p2p.workflow_scheduler.engine import Engine
from actors.p2p.workflow_scheduler.line import Waiting
from actors.p2p.workflow_scheduler.records import Known, Submission
from actors.p2p.workflow_scheduler.store import WorkflowStore
from actors.workflow_client import new_workflow_id
from actors.workflow_messages import WORKFLOW_ENDED, SubmitWorkflow, Workflow, WorkflowSubmitted

_TOOLS_WITHIN_S: Final = 10.0
_SMALL_BYTES: Final = 4 << 10
"""A definition of so many bytes is checked at once, in a few milliseconds; larger ones in a thread, beside the others.
"""
_as_json = msgspec.json.Encoder(order="deterministic").encode

T = TypeVar("T")


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Of what is asked."""

    max_open: int = 10_000
    """Workflows that have not ended."""
    max_definition_bytes: int = 4 << 20
    max_answer_bytes: int = 8 << 20
    """Of outputs in one answer."""


async def beside(size: int, do: Callable[..., T], *arguments: Any) -> T:  # noqa: ANN401
    """Do something with so many bytes, in a thread when they are many."""
    if size <= _SMALL_BYTES:
        return do(*arguments)
    return await trio.to_thread.run_sync(do, *arguments)


class Submitting:
    """See the module's text."""

    def __init__(self, store: WorkflowStore, engine: Engine, builder: Builder, limits: Limits) -> None:
        self.limits = limits
        self._store = store
        self._engine = engine
        self._builder = builder
        self._under_way: dict[str, trio.Event] = {}

    async def submit(self, ask: SubmitWorkflow, size: int) -> WorkflowSubmitted:
        """Store a workflow that came in `size` bytes. Raises `InvalidArgumentsError` with all its faults, ID_CONFLICT,
        `BusyError` when there are too many, and `RuntimeUnavailableError` while it is not known which tools there are.
        """
        self.check_size(size)
        workflow = ask.workflow
        if not workflow.workflow_id:
            workflow = msgspec.structs.replace(workflow, workflow_id=new_workflow_id())
        async with self._one_at_a_time(workflow.workflow_id):
            text, digest = await beside(size, _text_and_digest, workflow, ask.owner)
            known = await self._known(workflow.workflow_id) if ask.workflow.workflow_id else None
            if known is not None:
                answer = self._replayed(known, digest)
                await self._engine.journal.written()
                return answer
            await self._builder.tools.known(_TOOLS_WITHIN_S)
            plan = await beside(size, self._builder.check, workflow)
            ended = await self._ended_among(workflow, ask.owner)
            return await self._store_new(plan, ask.owner, text, digest, ended)

    def check_size(self, size: int) -> None:
        """Raises `InvalidArgumentsError` when it is too much for one workflow."""
        most = self.limits.max_definition_bytes
        if size > most:
            raise InvalidArgumentsError(
                f"the workflow has {size} bytes; at most {most} are taken (p2p.workflow_scheduler.max_definition_bytes)"
            )

    @asynccontextmanager
    async def _one_at_a_time(self, workflow_id: str) -> AsyncIterator[None]:
        """Two who submit the same id at once come one after the other."""
        while (before := self._under_way.get(workflow_id)) is not None:
            await before.wait()
        mine = self._under_way[workflow_id] = trio.Event()
        try:
            yield
        finally:
            del self._under_way[workflow_id]
            mine.set()

    async def _known(self, workflow_id: str) -> Known | None:
        return await trio.to_thread.run_sync(self._store.find, workflow_id)

    def _replayed(self, known: Known, digest: bytes) -> WorkflowSubmitted:
        if known.digest != digest:
            refuse("ID_CONFLICT", f"there is another workflow {known.id}; take another workflow_id")
        live = self._engine.lives.get(known.id)
        return WorkflowSubmitted(
            workflow_id=known.id,
            status=known.view.status if live is None else live.run.status,
            cid=known.view.cid,
            created_at=known.view.created_at,
            replayed=True,
        )

    async def _ended_among(self, workflow: Workflow, owner: str) -> dict[str, bool]:
        """The workflows that it depends on and that have ended: whether they completed. The others go on when this
        returns. Raises `InvalidArgumentsError` when there are some that the owner can't know."""
        while True:
            found = {need: await self._known(need) for need in workflow.dependencies}
            faults = [
                {"step": "", "code": "UNKNOWN_WORKFLOW", "message": f"there is no workflow {need!r} to depend on"}
                for need, known in found.items()
                if known is None or (owner and known.owner != owner)
            ]
            if faults:
                raise InvalidArgumentsError(faults[0]["message"], faults=faults)
            ended = {
                need: known.view.status == "completed"
                for need, known in found.items()
                if known is not None and known.view.status in WORKFLOW_ENDED
            }
            # One that has ended since it was looked up is looked up again.
            if all(need in ended or self._engine.line.has(need) for need in found):
                return ended

    async def _store_new(
        self, plan: Plan, owner: str, text: bytes, digest: bytes, ended: dict[str, bool]
    ) -> WorkflowSubmitted:
        engine, workflow = self._engine, plan.workflow
        # Until it has its place nobody else runs: nothing that it depends on ends in between.
        if len(engine.line) >= self.limits.max_open:
            raise BusyError(
                f"{len(engine.line)} workflows have not ended yet (p2p.workflow_scheduler.max_waiting_workflows); try "
                "again later"
            )
        now = engine.now()
        run = self._builder.new(plan, owner, now)
        live = engine.add(run)
        view = run.view(steps=False)
        needs = frozenset(need for need in workflow.dependencies if need not in ended)
        failed = next((need for need in workflow.dependencies if ended.get(need) is False), None)
        engine.line.add(
            Waiting(
                id=live.id,
                priority=workflow.priority,
                created_at=view.created_at,
                needs=needs,
                deadline=workflow.deadline,
            )
        )
        new = Submission(
            id=live.id, owner=owner, workflow=text, digest=digest, cid=plan.cid, created_at=view.created_at
        )
        try:
            if failed is not None:
                engine.fail(live, failed)
            elif engine.line.first() == live.id and engine.line.take() is not None:
                run.begin(now)
            status = run.status
            engine.settle(live, new)
        except Exception:
            engine.forget(live)
            raise
        await engine.journal.written()
        return WorkflowSubmitted(
            workflow_id=new.id, status=status, cid=cid_text(plan.cid), created_at=new.created_at, replayed=False
        )


def _text_and_digest(workflow: Workflow, owner: str) -> tuple[bytes, bytes]:
    text = _as_json(workflow)
    return text, hashlib.sha256(owner.encode() + b"\0" + text).digest()
