# SPDX-License-Identifier: AGPL-3.0-or-later
"""The tools of this node, as far as its peers may use them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from actors.client import ToolClient
from actors.errors import ForbiddenError, UnknownToolError
from actors.p2p.peer_registry.admission import Admission, Caller, Right, granted
from actors.p2p.peer_registry.link.messages import Offer
from actors.p2p.peer_registry.sharing.runner import OnProgress
from actors.tool_messages import Progress, ToolCall, ToolDescriptor, ToolItem, ToolResult

_decode_item = msgspec.msgpack.Decoder(ToolItem).decode


class ToolsForPeers:
    """See the module's text. What a peer does is done in its name: the principal is `peer:` and its id."""

    def __init__(
        self,
        tools: ToolClient,
        admission: Admission,
        caller_of: Callable[[str], Caller],
        new_call_id: Callable[[], str],
    ) -> None:
        """`caller_of` tells what is known of whoever has this peer id now."""
        self.called = 0
        """Calls that were let through."""
        self._tools = tools
        self._admission = admission
        self._caller_of = caller_of
        self._new_call_id = new_call_id

    def list(self, peer_id: str) -> Sequence[ToolDescriptor]:
        """Those that this peer may call."""
        grant = self._admission.grant_of(self._caller_of(peer_id))
        patterns = grant.tools if grant is not None else []
        return [tool for tool in self._tools.catalogue.tools if granted(tool.name, patterns)]

    def task_types(self, peer_id: str) -> Sequence[str]:
        """Tools that this peer may have run here as tasks."""
        grant = self._admission.grant_of(self._caller_of(peer_id))
        patterns = grant.tasks if grant is not None else []
        return sorted(tool.name for tool in self._tools.catalogue.tools if granted(tool.name, patterns))

    async def call(self, peer_id: str, name: str, arguments: bytes, timeout_s: float) -> ToolResult:
        """Run one. Raises `UnknownToolError` also for a tool that this peer may not see, `RateLimitedError`, and what
        the tool raises."""
        caller = self._caller_of(peer_id)
        try:
            turn = self._admission.begin(caller, Right("tool", name), len(arguments))
        except ForbiddenError as error:
            raise UnknownToolError(f"there is no tool {name[:200]!r} for this peer: {error.message}") from None
        self.called += 1
        with turn:
            result = await self._tools.call(self._call(peer_id, name, arguments), timeout_s=timeout_s)
        self._admission.passed(caller, len(result.value))
        return result

    # --- tasks -----------------------------------------------------------------------------------------------------

    def admit(self, peer_id: str, offer: Offer) -> None:
        """Raises when this peer may not have this run here."""
        self._admission.may(self._caller_of(peer_id), Right("task", offer.type))
        self._tools.find(offer.type)

    async def run(self, peer_id: str, offer: Offer, on_progress: OnProgress) -> ToolResult:
        """Run an offered task."""
        caller = self._caller_of(peer_id)
        arguments = offer.payload.encode()

        def on_item(body: msgspec.Raw) -> None:
            item = _decode_item(body)
            if isinstance(item, Progress):
                on_progress(100.0 * item.progress / item.total if item.total else None, item.message)

        with self._admission.begin(caller, Right("task", offer.type), len(arguments)):
            tool = self._tools.find(offer.type)
            timeout_s = tool.timeout_s if offer.timeout_s is None else offer.timeout_s
            call = self._call(peer_id, offer.type, arguments, progress=True)
            result = await self._tools.call(call, timeout_s=timeout_s, on_item=on_item)
        self._admission.passed(caller, len(result.value))
        return result

    def _call(self, peer_id: str, name: str, arguments: bytes, *, progress: bool = False) -> ToolCall:
        return ToolCall(
            name=name,
            arguments=arguments,
            call_id=self._new_call_id(),
            progress=progress,
            principal=f"peer:{peer_id}",
        )
