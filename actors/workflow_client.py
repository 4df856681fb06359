# SPDX-License-Identifier: AGPL-3.0-or-later
"""The way to the workflow scheduler, for the gateway and the command line.

All that is asked can be asked again without harm: a new workflow gets its id here. So a `WorkflowClient` waits while
the scheduler restarts and asks again, up to the deadline.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec
import trio

from actors.calls import Message
from actors.one_actor import OneActor
from actors.peers import Peers
from actors.workflow_messages import (
    ControlWorkflow,
    GetWorkflow,
    ListWorkflows,
    MergeEvents,
    OfferStep,
    StepIsOffered,
    SubmitWorkflow,
    WorkflowChanged,
    WorkflowControlled,
    WorkflowPage,
    WorkflowStats,
    WorkflowSubmitted,
    WorkflowView,
)

WORKFLOW_SCHEDULER: Final = "workflow_scheduler"
SUBMIT: Final = "workflows/submit"
GET: Final = "workflows/get"
LIST: Final = "workflows/list"
CONTROL: Final = "workflows/control"
STATS: Final = "workflows/stats"
OFFER: Final = "workflows/offer"
MERGE: Final = "workflows/merge"
WATCH: Final = "workflows/watch"

_decode_changed = msgspec.msgpack.Decoder(WorkflowChanged).decode

A = TypeVar("A")


def new_workflow_id() -> str:
    """An id that no other workflow has, and that nobody can guess."""
    return f"wf-{secrets.token_hex(16)}"


class WorkflowClient:
    """See the module's text. Connections are those of `peers`."""

    def __init__(self, peers: Peers) -> None:
        self._way = OneActor(peers, WORKFLOW_SCHEDULER, called="the workflow scheduler", gives="a workflow")

    async def submit(self, ask: SubmitWorkflow, *, timeout_s: float = 30.0) -> WorkflowSubmitted:
        """Store a workflow. Raises what it is refused with, all its faults among the details."""
        if not ask.workflow.workflow_id:
            workflow = msgspec.structs.replace(ask.workflow, workflow_id=new_workflow_id())
            ask = msgspec.structs.replace(ask, workflow=workflow)
        return await self._ask(SUBMIT, ask, WorkflowSubmitted, timeout_s)

    async def get(self, ask: GetWorkflow, *, timeout_s: float = 30.0) -> WorkflowView:
        """A workflow. Raises `NotFoundError`."""
        return await self._ask(GET, ask, WorkflowView, timeout_s + ask.wait_s)

    async def scan(self, ask: ListWorkflows, *, timeout_s: float = 30.0) -> WorkflowPage:
        """Some workflows."""
        return await self._ask(LIST, ask, WorkflowPage, timeout_s)

    async def control(self, order: ControlWorkflow, *, timeout_s: float = 30.0) -> WorkflowControlled:
        """Cancel, pause or resume one. Raises `NotFoundError`, and INVALID_STATE when it has ended."""
        return await self._ask(CONTROL, order, WorkflowControlled, timeout_s)

    async def stats(self, *, timeout_s: float = 30.0) -> WorkflowStats:
        """All of it in numbers."""
        return await self._ask(STATS, None, WorkflowStats, timeout_s)

    async def offer(self, ask: OfferStep, *, timeout_s: float = 30.0) -> StepIsOffered:
        """Have it stored that a step is about to be offered to a peer. Raises `NotFoundError`, INVALID_STATE."""
        return await self._ask(OFFER, ask, StepIsOffered, timeout_s)

    async def merge(self, ask: MergeEvents, *, timeout_s: float = 30.0) -> None:
        """Have stored what a peer says of its work. Raises BAD_EVENT, `NotFoundError`, INVALID_STATE."""
        await self._ask(MERGE, ask, type(None), timeout_s)

    async def watch(self, on_changed: Callable[[list[str]], None]) -> None:
        """Tell which workflows have changed, for as long as the scheduler is part of this system; an empty list = any
        may have, at the beginning and whenever something may have been missed."""

        def on_item(body: msgspec.Raw) -> None:
            on_changed(_decode_changed(body).ids)

        await self._way.watch(WATCH, lambda: on_changed([]), on_item)

    async def _ask(self, method: str, body: Message, answer: type[A], timeout_s: float) -> A:
        reply = await self._way.call(method, body, trio.current_time() + timeout_s)
        return msgspec.msgpack.decode(reply, type=answer)
