# SPDX-License-Identifier: AGPL-3.0-or-later
"""What is done at peers, in the Merkle clocks of this node's workflows: the scheduler keeps them."""

from __future__ import annotations

from typing import Final, Protocol

import msgspec

from actors.errors import MCPServerError, NotFoundError, code_of
from actors.p2p.cids import cid_of_text, cid_text
from actors.p2p.peer_registry.link.messages import ClockPlace, TaskResult
from actors.p2p.peer_registry.sharing.statement import LieError, value_link
from actors.task_messages import Lease
from actors.workflow_messages import MergeEvents, OfferStep, PeerEnded, StepIsOffered

_ASK_S: Final = 8.0


class Workflows(Protocol):
    """What is needed of `actors.workflow_client.WorkflowClient`."""

    async def offer(self, ask: OfferStep, *, timeout_s: float) -> StepIsOffered:
        """Have it stored that a step is about to be offered to a peer."""
        ...

    async def merge(self, ask: MergeEvents, *, timeout_s: float) -> None:
        """Have stored what a peer says of its work."""
        ...


class _Metadata(msgspec.Struct):
    workflow_id: str = ""


_decode_metadata = msgspec.json.Decoder(_Metadata).decode


class Clocks:
    """See the module's text."""

    def __init__(self, workflows: Workflows) -> None:
        self._workflows = workflows

    async def place(self, lease: Lease, peer_id: str, input_cid: str) -> ClockPlace | None:
        """Where in its workflow's clock comes what this peer does for the task; None = the task is of no workflow.
        Raises what the scheduler answers: INVALID_STATE when nothing is to be done for it any more."""
        workflow_id = _workflow_of(lease)
        if not workflow_id:
            return None
        ask = OfferStep(
            workflow_id=workflow_id,
            owner=lease.owner,
            task_id=lease.id,
            token=lease.token,
            attempt=lease.attempt,
            peer=peer_id,
            input=cid_of_text(input_cid),
        )
        try:
            place = await self._workflows.offer(ask, timeout_s=_ASK_S)
        except NotFoundError:
            return None  # anybody may give a task such a name
        return ClockPlace(workflow_id, cid_text(place.after), place.height, place.seq)

    async def merge(self, peer_id: str, result: TaskResult, *, counts: bool) -> bool:
        """Have stored what comes with a result. True = its peer need not tell it again. Raises `LieError` when it is
        not sound or, if the result `counts`, says something else than that, and what the scheduler answers."""
        if not result.workflow_id or not (counts or result.events):
            return bool(result.workflow_id)
        ask = MergeEvents(
            workflow_id=result.workflow_id,
            peer=peer_id,
            events=[(event.node, event.payload) for event in result.events],
            ended=_ended(result) if counts else None,
        )
        try:
            await self._workflows.merge(ask, timeout_s=_ASK_S)
        except MCPServerError as error:
            if code_of(error) == "BAD_EVENT":
                raise LieError(f"what came with the result: {error.message}"[:1000]) from None
            if code_of(error) not in ("NOT_FOUND", "INVALID_STATE"):
                raise
        return True


def _ended(result: TaskResult) -> PeerEnded:
    if result.error is not None:
        return PeerEnded(task_id=result.task_id, token=result.token)
    try:
        link = value_link(result.output or "")
    except ValueError:
        raise LieError("the result can't be read") from None
    return PeerEnded(task_id=result.task_id, token=result.token, result=link)


def _workflow_of(lease: Lease) -> str:
    try:
        workflow_id = _decode_metadata(lease.metadata).workflow_id
    except (msgspec.MsgspecError, RecursionError):
        return ""
    return workflow_id if lease.id.startswith(f"{workflow_id}:") else ""
