# SPDX-License-Identifier: AGPL-3.0-or-later
"""The channel's methods of the workflow scheduler."""

from __future__ import annotations

from contextlib import aclosing

import msgspec
import trio

from actors.base import Method
from actors.calls import IncomingCall, decoded
from actors.p2p.changes import SLOW_READER_S
from actors.p2p.workflow_scheduler.service import WorkflowService
from actors.p2p.workflow_scheduler.submitting import beside
from actors.workflow_messages import (
    ControlWorkflow,
    ExportWorkflow,
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

_encode = msgspec.msgpack.Encoder().encode
_decode_submit = msgspec.msgpack.Decoder(SubmitWorkflow).decode
_decode_get = msgspec.msgpack.Decoder(GetWorkflow).decode
_decode_list = msgspec.msgpack.Decoder(ListWorkflows).decode
_decode_control = msgspec.msgpack.Decoder(ControlWorkflow).decode
_decode_export = msgspec.msgpack.Decoder(ExportWorkflow).decode
_decode_offer = msgspec.msgpack.Decoder(OfferStep).decode
_decode_merge = msgspec.msgpack.Decoder(MergeEvents).decode


class WorkflowMethods:
    """See `actors/workflow_messages.py` for what each takes and answers."""

    def __init__(self, service: WorkflowService) -> None:
        self._service = service

    def all(self) -> dict[str, Method]:
        """For `Actor.serve`."""
        return {
            "workflows/submit": self._submit,
            "workflows/get": self._get,
            "workflows/list": self._list,
            "workflows/control": self._control,
            "workflows/export": self._export,
            "workflows/stats": self._stats,
            "workflows/offer": self._offer,
            "workflows/merge": self._merge,
            "workflows/watch": self._watch,
        }

    async def _submit(self, call: IncomingCall) -> WorkflowSubmitted:
        size = len(call.body)
        self._service.check_size(size)
        return await self._service.submit(await beside(size, decoded, _decode_submit, call), size)

    async def _get(self, call: IncomingCall) -> WorkflowView:
        return await self._service.get(decoded(_decode_get, call))

    async def _list(self, call: IncomingCall) -> WorkflowPage:
        return await self._service.list(decoded(_decode_list, call))

    async def _control(self, call: IncomingCall) -> WorkflowControlled:
        return await self._service.control(decoded(_decode_control, call))

    async def _stats(self, _: IncomingCall) -> WorkflowStats:
        return await self._service.stats()

    async def _offer(self, call: IncomingCall) -> StepIsOffered:
        return await self._service.offer(decoded(_decode_offer, call))

    async def _merge(self, call: IncomingCall) -> None:
        await self._service.merge(decoded(_decode_merge, call))

    async def _export(self, call: IncomingCall) -> None:
        async with aclosing(self._service.export(decoded(_decode_export, call))) as pieces:
            async for piece in pieces:
                await _send(call, msgspec.Raw(_encode(piece)))

    async def _watch(self, call: IncomingCall) -> None:
        with self._service.watching() as watcher:
            await watcher.tell(call, lambda ids: WorkflowChanged(ids=ids))


async def _send(call: IncomingCall, piece: msgspec.Raw) -> None:
    """Once whoever asked has read enough of what was sent before."""
    while True:
        if call.item(piece):
            return
        await trio.sleep(SLOW_READER_S)
