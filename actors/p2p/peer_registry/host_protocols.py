# SPDX-License-Identifier: AGPL-3.0-or-later
"""The two protocols that every libp2p peer speaks: ping, and what a peer says of itself (identify)."""

from __future__ import annotations

import secrets
from typing import Final

import msgspec
import trio

from actors.p2p.peer_registry.addresses import as_text
from actors.p2p.peer_registry.prefixed import exactly, read_message
from actors.p2p.peer_registry.stream import PeerStream, StreamBrokenError

PING: Final = "/ipfs/ping/1.0.0"
IDENTIFY: Final = "/ipfs/id/1.0.0"
IDENTIFY_PUSH: Final = "/ipfs/id/push/1.0.0"
MOST_SAID: Final = 64 * 1024
"""Bytes of what a peer says of itself."""
MOST_PROTOCOLS: Final = 128
MOST_ADDRESSES: Final = 32
_MOST_TEXT: Final = 256
_PING_BYTES: Final = 32
_PING_IDLE_S: Final = 60.0


class PeerSays(msgspec.Struct, frozen=True):
    """What a peer says of itself. Nothing of it is proven."""

    protocols: tuple[str, ...] = ()
    agent: str = ""
    """Its program and version."""
    addresses: tuple[str, ...] = ()
    """Multiaddrs that it listens on, without its id."""


async def serve_ping(stream: PeerStream) -> None:
    """Send back what comes, 32 bytes at a time."""
    while True:
        with trio.move_on_after(_PING_IDLE_S) as idle:
            data = await exactly(stream, _PING_BYTES)
        if idle.cancelled_caught or not data:
            return
        await stream.write(data)


async def ping(stream: PeerStream) -> float:
    """Seconds to the other side and back. Raises `StreamBrokenError`."""
    sent = secrets.token_bytes(_PING_BYTES)
    begin = trio.current_time()
    await stream.write(sent)
    if await exactly(stream, _PING_BYTES) != sent:
        raise StreamBrokenError("the answer is not what was sent")
    return trio.current_time() - begin


async def read_said(stream: PeerStream) -> PeerSays:
    """What the other side says of itself. Raises `StreamBrokenError` for what is no such message, or too long a one."""
    raw = await read_message(stream, MOST_SAID)
    if raw is None:
        raise StreamBrokenError("it said nothing")

    from google.protobuf.message import DecodeError
    from libp2p.identity.identify.pb.identify_pb2 import Identify

    message = Identify()
    try:
        message.ParseFromString(raw)
    except DecodeError as error:
        raise StreamBrokenError(f"no identify message: {error}") from None
    return PeerSays(
        protocols=tuple(name for name in message.protocols[:MOST_PROTOCOLS] if _is_plain(name)),
        agent=message.agent_version if _is_plain(message.agent_version) else "",
        addresses=tuple(filter(None, map(as_text, message.listen_addrs[:MOST_ADDRESSES]))),
    )


def _is_plain(text: str) -> bool:
    return 0 < len(text) <= _MOST_TEXT and text.isprintable()
