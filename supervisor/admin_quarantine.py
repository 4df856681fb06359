# SPDX-License-Identifier: AGPL-3.0-or-later
"""Methods of the admin socket about calls that end processes: `quarantine` -> `Marks`; `release` (`ReleaseRequest`) ->
`Released`."""

from __future__ import annotations

import msgspec

from actors.calls import Message
from actors.messages import Marks
from supervisor.admin import AdminMethod
from supervisor.warden import Warden


class ReleaseRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Let calls in again that end processes."""

    names: list[str] = []
    """Ids of quarantined calls, names of tools whose breaker is not closed."""
    everything: bool = False


class Release(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One that is let in again."""

    tool: str
    id: str = ""
    """Of the quarantined call; '' when it is the tool with all arguments."""


class Released(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that are let in again by one request."""

    released: list[Release]


def quarantine_methods(warden: Warden) -> dict[str, AdminMethod]:
    """The methods, by name."""

    async def quarantine(_: msgspec.Raw) -> Marks:
        return warden.marks()

    async def release(body: msgspec.Raw) -> Message:
        order = msgspec.msgpack.decode(body, type=ReleaseRequest)
        verdicts = warden.release(order.names, everything=order.everything)
        return Released(released=[Release(tool=one.tool, id=one.id) for one in verdicts])

    return {"quarantine": quarantine, "release": release}
