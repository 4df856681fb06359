# SPDX-License-Identifier: AGPL-3.0-or-later
"""Why a link ends."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Cause(StrEnum):
    """Kinds of ends."""

    CLOSED = "closed"
    """This side ended it, in good order."""
    ENDED = "ended"
    """The other side ended it and said so."""
    LOST = "lost"
    """The stream broke, or ended without a word: the peer may have died."""
    SILENT = "silent"
    """Nothing came for too long, or a hello or a frame was not whole in time."""
    STALLED = "stalled"
    """The peer took nothing for too long."""
    REFUSED = "refused"
    """This side does not want this peer."""
    INCOMPATIBLE = "incompatible"
    """No common version, or a shared secret on one side only."""
    VIOLATION = "violation"
    """The peer broke a rule of the protocol."""
    FAULT = "fault"
    """A defect on this side."""
    CANCELLED = "cancelled"
    """The task that carried it was cancelled."""


class Violation(StrEnum):
    """Rules that a peer can break. None is broken by an honest peer, however slow or overloaded."""

    FRAME = "frame"
    """It can't be read, or holds what its kind does not."""
    TOO_LARGE = "too_large"
    """A frame longer than announced limits allow."""
    ORDER = "order"
    """A frame that may not come now: before the hello is done, a second hello, an answer to nothing."""
    REPLAY = "replay"
    """A request whose id is not above that of the one before."""
    FORGED = "forged"
    """Its code does not fit: made without the secret, changed, repeated or out of its place."""
    UNPROVEN = "unproven"
    """The peer does not know the shared secret."""
    FLOOD = "flood"
    """Requests far beyond what is worked on at once, whose answers it does not read."""
    ABUSE = "abuse"
    """What those above the link object to."""


class Ending(msgspec.Struct, frozen=True):
    """How a link ended."""

    cause: Cause
    text: str
    """For people; what the peer said of it is cut and shown as it came."""
    violation: Violation | None = None

    def __str__(self) -> str:
        kind = f"{self.cause}: {self.violation}" if self.violation else str(self.cause)
        return f"{kind} ({self.text})" if self.text else kind


class LinkEndError(Exception):
    """The link has to end. Inside of the link only."""

    def __init__(self, cause: Cause, text: str, violation: Violation | None = None) -> None:
        super().__init__(text)
        self.ending = Ending(cause, text, violation)


class LinkViolation(LinkEndError):  # noqa: N818 - names what the peer did
    """The peer broke a rule: the link has to end, and the peer may have to be kept away."""

    def __init__(self, kind: Violation, text: str) -> None:
        super().__init__(Cause.VIOLATION, text, kind)
        self.kind = kind
