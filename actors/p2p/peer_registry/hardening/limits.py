# SPDX-License-Identifier: AGPL-3.0-or-later
"""The numbers of the patches."""

from __future__ import annotations

from typing import Any, Final

import trio

KIB = 1024
WINDOW: Final = 512 * KIB
"""Bytes that the other side may send on a stream before we have read them."""
MOST_UNREAD: Final = WINDOW + 128 * KIB
"""Unread bytes of one stream at which the connection is closed, and the length of the longest frame."""
MOST_NAME: Final = 4096
"""Bytes of the name of a protocol."""
FRAME_S: Final = 20.0
"""For one frame of at most 64 KiB to get into the socket; then the connection is closed."""
GOODBYE_S: Final = 1.0
"""For the frame that says that we close the connection."""
STALL_S: Final = 30.0
"""For the other side to take more of a stream; then the stream is given up."""
PING_EVERY_S: Final = 10.0
PING_WITHIN_S: Final = 10.0
"""For the answer; then the connection is closed."""
CUT_S: Final = 3.0
"""For what is left to do when a connection is cut."""
CLOSE_S: Final = 10.0
"""For a connection to end. Nothing in it waits for long but a frame that is under way."""
RESET_S: Final = 2.0
LINGER_S: Final = 2.0
"""How long a stream whose handler has returned waits for the other side to end it too."""
INBOUND_STREAMS: Final = 8
"""Streams that the other side of a connection may have open, where the host doesn't say otherwise."""
FLOOD: Final = 4
"""At so many times that number the connection is closed."""
MOST_REFUSED: Final = 64
"""Refused streams of one connection in this time, at which it is closed."""
REFUSED_IN_S: Final = 10.0
HANDSHAKES_PER_ADDRESS: Final = 16
"""Connections from one address that are in their handshake, where the host doesn't say otherwise."""
CONNECTIONS_PER_ADDRESS: Final = 64
"""The same, with those that are established."""
GRACE_S: Final = 5.0
"""For the handlers of streams to end by themselves when their connection has ended."""


class TooMuchError(trio.TooSlowError):
    """The other side of a connection keeps to no limit."""


class BrokenFrameError(trio.TooSlowError):
    """A frame didn't come whole: the connection can't be read any further."""


def inbound_streams(swarm: Any) -> int:  # noqa: ANN401
    """How many streams the other side of each connection may have open."""
    most: int = getattr(swarm, "greenroom_inbound_streams", INBOUND_STREAMS)
    return most
