# SPDX-License-Identifier: AGPL-3.0-or-later
"""The other gateways of this node: a client's answer may reach another gateway than the one whose tool asked."""

from __future__ import annotations

import msgspec

from actors.base import Actor
from actors.calls import IncomingCall
from actors.errors import MCPServerError
from actors.messages import PassedOn
from gateway.mcp import Protocol

_TIMEOUT_S = 5.0
_decode = msgspec.msgpack.Decoder(PassedOn).decode


class Siblings:
    """The way to them, and (`receive`) theirs to this one."""

    def __init__(self, actor: Actor) -> None:
        self._actor = actor
        self.protocol: Protocol | None = None
        """This gateway's own; set before it is ready."""

    async def pass_on(self, gateway: int, session: bytes, answer: bytes) -> None:
        """Give an answer to the gateway of this incarnation. Dropped when that has ended: its calls have, too."""
        entries = self._actor.peers.entries.values()
        entry = next((entry for entry in entries if entry.incarnation == gateway and _is_gateway(entry.name)), None)
        if entry is None:
            return
        try:
            channel = await self._actor.peers.connect(entry)
            await channel.call("answer", PassedOn(session=session, answer=answer), timeout_s=_TIMEOUT_S)
        except MCPServerError as error:
            self._actor.log.warning("an answer could not be passed on", peer=entry.name, reason=str(error))

    async def receive(self, call: IncomingCall) -> None:
        """Method `answer` (`PassedOn` -> null)."""
        passed = _decode(call.body)
        if self.protocol is not None:
            await self.protocol.take_answer(passed.session, passed.answer)


def _is_gateway(name: str) -> bool:
    return name.partition("#")[0] == "gateway"
