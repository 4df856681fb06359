# SPDX-License-Identifier: AGPL-3.0-or-later
"""Makes what runs decide durable, in groups: what is decided while one batch is being written becomes the next one.

Only then is it told and carried out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
import trio

from actors.p2p.workflow_scheduler.events import Event
from actors.p2p.workflow_scheduler.live import Live
from actors.p2p.workflow_scheduler.records import Batch, Change, EventRow, Head, Submission
from actors.p2p.workflow_scheduler.run_values import Changes, Commands
from actors.p2p.workflow_scheduler.store import WorkflowStore
from actors.p2p.workflow_scheduler.unwritten import Unwritten
from actors.workflow_messages import WorkflowView

_OF_HEAD: Final = frozenset({"submitted", "begun", "cancelling", "paused", "resumed", "ended"})
"""Kinds of events that change what lists show."""
_TALLIED: Final = {
    "step_completed": "completed",
    "step_failed": "failed",
    "step_skipped": "skipped",
    "step_cancelled": "cancelled",
}

_ENDS: Final = frozenset({"submitted", "ended"})
OF_WORKFLOWS: Final = "workflow_"
"""Begin of the names of counters that count workflows; the others count steps."""

OnWritten = Callable[[Live, Commands | None, bool], None]
"""A workflow, what it wants, and whether it has ended with this."""


class _Group:
    """What is written together."""

    def __init__(self) -> None:
        self.changes: dict[str, Change] = {}
        self.batch = Batch()
        self.parts: list[tuple[Live, Commands | None, bool]] = []
        """As `OnWritten` is given them."""
        self.written = trio.Event()

    def of(self, workflow_id: str) -> Change:
        change = self.changes.get(workflow_id)
        if change is None:
            change = self.changes[workflow_id] = Change(id=workflow_id)
            self.batch.changes.append(change)
        return change


class Journal:
    """See the module's text. `run` has to run beside it."""

    def __init__(
        self,
        store: WorkflowStore,
        unwritten: Unwritten,
        *,
        keep_s: float,
        tasks_keep_s: float,
        on_written: OnWritten,
    ) -> None:
        """`keep_s`: how long ended workflows are kept; `tasks_keep_s`: how long their tasks are, after the latest end
        that they could have had. `on_written` is told of each part, once it is on disk."""
        self._store = store
        self._unwritten = unwritten
        self._keep_s = keep_s
        self._tasks_keep_s = tasks_keep_s
        self._on_written = on_written
        self._next = _Group()
        self._now: _Group | None = None
        """Is being written."""
        self._some = trio.Event()

    def note(self, live: Live, changes: Changes, new: Submission | None = None, block: bytes = b"") -> None:
        """Write these changes of a run; `new`: it is, and `block` is its definition."""
        commands = changes.commands
        none = commands == Commands()
        if not (changes.events or changes.outputs or changes.memos or new) and none:
            return
        group = self._next
        change = group.of(live.id)
        if new is not None:
            change.new = new
            change.blocks[new.cid] = block
        self._unwritten.take(live.id, changes.outputs)
        change.blocks.update((cid, text.encode()) for cid, text in changes.outputs.items())
        known = self._unwritten.of(live.id)
        group.batch.memos.update((gain.key, known(gain.output)) for gain in changes.memos)
        change.events += [EventRow(event.cid, event.node, event.payload_block) for event in changes.events]
        for event in changes.events:
            self._count(group, change, event)
        if new is not None or any(event.kind in _OF_HEAD for event in changes.events):
            live.left = not none or live.busy
            change.head = self._head(live)
        # It may have ended by now while an earlier part of it is still being written.
        ended = any(event.kind == "ended" for event in changes.events)
        group.parts.append((live, None if none else commands, ended))
        self._some.set()

    def close(self, live: Live) -> None:
        """Nothing is left to do for one whose end is on disk."""
        live.left = False
        head = self._head(live)
        self._next.of(live.id).head = msgspec.structs.replace(head, whole=None)
        self._some.set()

    def give_up(self, workflow_id: str, view: WorkflowView) -> None:
        """End one that can't be run by anybody: `view` says why."""
        head = Head(view=view, open=False, drop_at=self._drop_at(view))
        self._next.of(workflow_id).head = head
        self._next.batch.tally[f"{OF_WORKFLOWS}{view.status}"] += 1
        self._some.set()

    async def written(self) -> None:
        """Until all that was noted so far is on disk."""
        if self._some.is_set():
            await self._next.written.wait()
        elif self._now is not None:
            await self._now.written.wait()
        else:
            await trio.lowlevel.checkpoint()

    async def run(self) -> None:
        """Write group after group, until cancelled; then what was noted before is written first."""
        while True:
            if not self._some.is_set():
                await self._some.wait()
            # One turn of the loop: all who are about to decide in this turn come into the same group.
            await trio.lowlevel.cancel_shielded_checkpoint()
            with trio.CancelScope(shield=True):
                await self._write()

    async def _write(self) -> None:
        group, self._next, self._some = self._next, _Group(), trio.Event()
        self._now = group
        await trio.to_thread.run_sync(self._store.write, group.batch)
        self._now = None
        for change in group.batch.changes:
            self._unwritten.written(change.id, change.blocks)
        group.written.set()
        for part in group.parts:
            self._on_written(*part)

    def _count(self, group: _Group, change: Change, event: Event) -> None:
        if event.kind in _ENDS:
            what = event.payload.get("status", event.kind)
            group.batch.tally[f"{OF_WORKFLOWS}{what}"] += 1
        if not event.kind.startswith("step_"):
            return
        payload = event.payload
        if worker := payload.get("worker"):
            change.workers.add(worker)
        kind = _TALLIED.get(event.kind)
        if kind is not None and payload.get("index") is None:
            group.batch.tally[kind] += 1
            if payload.get("memo"):
                group.batch.tally["memoised"] += 1

    def _head(self, live: Live) -> Head:
        view = live.run.view(steps=live.over)
        short = msgspec.structs.replace(view, steps=[], metadata={})
        if not live.over:
            return Head(view=short)
        return Head(view=short, whole=view, open=live.left, drop_at=self._drop_at(view))

    def _drop_at(self, view: WorkflowView) -> float:
        """Not before its tasks are forgotten: another workflow of the same id would be given their results. The queue
        keeps a task from its end on for as long as the workflow could have gone on when it was sent, and then some."""
        ended_at = view.ended_at or view.created_at
        latest = max(ended_at, view.deadline or ended_at)
        return max(ended_at + self._keep_s, latest + (latest - view.created_at) + self._tasks_keep_s)
