# SPDX-License-Identifier: AGPL-3.0-or-later
"""The other gateways of this node: a client's answer, or its wish for the rest of a stream, may reach another gateway
than the one that runs the call."""

from __future__ import annotations

import msgspec
import trio

from actors.base import Actor
from actors.calls import IncomingCall
from actors.errors import MCPServerError
from actors.messages import DirectoryEntry
from actors.tool_messages import PassedOn, ResumeStream, SessionNote
from gateway.mcp import Protocol
from gateway.mcp.calls import Outbox
from gateway.mcp.streams import read_event_id
from gateway.types import EventSource

_TIMEOUT_S = 5.0
_SPREAD_S = 1.0
"""A client waits for so long at most until the other gateways know what it said."""
_RESUME_S = 3600.0
"""A stream that is carried for longer ends; its client comes back once more."""
_decode = msgspec.msgpack.Decoder(PassedOn).decode
_decode_note = msgspec.msgpack.Decoder(SessionNote).decode
_decode_resume = msgspec.msgpack.Decoder(ResumeStream).decode
_decode_frames = msgspec.msgpack.Decoder(bytes).decode


class Siblings:
    """The way to them, and (`receive`) theirs to this one."""

    def __init__(self, actor: Actor) -> None:
        self._actor = actor
        self.protocol: Protocol | None = None
        """This gateway's own; set before it is ready."""

    async def pass_on(self, gateway: int, session: bytes, answer: bytes) -> None:
        """Give an answer to the gateway of this incarnation. Dropped when that has ended: its calls have, too."""
        entry = self._entry(gateway)
        if entry is None:
            return
        try:
            channel = await self._actor.peers.connect(entry)
            await channel.call("answer", PassedOn(session=session, answer=answer), timeout_s=_TIMEOUT_S)
        except MCPServerError as error:
            self._actor.log.warning("an answer could not be passed on", peer=entry.name, reason=str(error))

    def resume(self, gateway: int, session: bytes, event_id: str) -> EventSource | None:
        """The rest of a stream of that gateway; None when it is gone. Ends when that gateway does: the client comes
        back once more then."""
        entry = self._entry(gateway)
        if entry is None:
            return None
        scope = trio.CancelScope()
        outbox = Outbox(scope.cancel)

        async def carry() -> None:
            try:
                with scope:
                    channel = await self._actor.peers.connect(entry)
                    wanted = ResumeStream(session=session, event_id=event_id)
                    await channel.call(
                        "resume", wanted, timeout_s=_RESUME_S, on_item=lambda item: outbox.put(_decode_frames(item))
                    )
            except MCPServerError as error:
                self._actor.log.info("a resumed stream ended", peer=entry.name, reason=str(error))
            finally:
                outbox.finish()

        self._actor.nursery.start_soon(carry)
        return outbox

    async def spread(self, note: SessionNote) -> None:
        """Tell all other gateways what a client said. Returns when they know; those that don't hear it within
        `_SPREAD_S` miss it."""
        # Shielded: a client that leaves right after its DELETE has ended its session nevertheless.
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _SPREAD_S):
            async with trio.open_nursery() as nursery:
                for entry in self._actor.peers.entries.values():
                    if _is_gateway(entry.name) and entry.socket and entry.incarnation != self._actor.boot.incarnation:
                        nursery.start_soon(self._tell, entry, note)

    async def _tell(self, entry: DirectoryEntry, note: SessionNote) -> None:
        try:
            channel = await self._actor.peers.connect(entry)
            await channel.call("note", note, timeout_s=_TIMEOUT_S)
        except MCPServerError as error:
            self._actor.log.info("a sibling was not told", peer=entry.name, reason=str(error))

    async def take_note(self, call: IncomingCall) -> None:
        """Method `note` (`SessionNote` -> null)."""
        if self.protocol is not None:
            await self.protocol.take_note(_decode_note(call.body))

    def _entry(self, gateway: int) -> DirectoryEntry | None:
        for entry in self._actor.peers.entries.values():
            if entry.incarnation == gateway and _is_gateway(entry.name) and entry.socket:
                return entry
        return None

    async def serve_resume(self, call: IncomingCall) -> None:
        """Method `resume` (`ResumeStream` -> null, with frames as items)."""
        wanted = _decode_resume(call.body)
        at = read_event_id(wanted.event_id)
        if self.protocol is None or at is None:
            return
        events = self.protocol.resume_here(wanted.session, at).events
        try:
            async for frames in events:
                if not call.item(msgspec.Raw(msgspec.msgpack.encode(frames))):
                    return  # too slow; the client comes back for what it missed
        finally:
            await events.aclose()

    async def receive(self, call: IncomingCall) -> None:
        """Method `answer` (`PassedOn` -> null)."""
        passed = _decode(call.body)
        if self.protocol is not None:
            await self.protocol.take_answer(passed.session, passed.answer)


def _is_gateway(name: str) -> bool:
    return name.partition("#")[0] == "gateway"
