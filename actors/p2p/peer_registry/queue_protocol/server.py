# SPDX-License-Identifier: AGPL-3.0-or-later
"""The handler of streams that peers open for the queue protocol: one line comes, one line goes."""

from __future__ import annotations

import trio

from actors.logs import get_logger
from actors.p2p.peer_registry.queue_protocol.answering import QueueAnswering
from actors.p2p.peer_registry.queue_protocol.lines import LineTooLongError, read_line, write_line
from actors.p2p.peer_registry.queue_protocol.words import FRAME_TOO_LARGE, RATE_LIMITED, TIMEOUT, Refusal
from actors.p2p.peer_registry.stream import PeerStream, StreamBrokenError
from actors.p2p.peer_registry.stream_end import part
from actors.p2p.peer_registry.stream_use import StreamUse


class QueueServer:
    """One per process."""

    def __init__(self, answering: QueueAnswering, use: StreamUse) -> None:
        """`use` may be shared with other protocols."""
        self._answering = answering
        self._use = use

    async def serve(self, stream: PeerStream) -> None:
        """Answer one stream. Raises nothing but cancellation."""
        peer_id = stream.peer_id
        try:
            with self._use.stream(peer_id) as room:
                if room:
                    await self._answer(stream)
                    await part(stream)
                    return
        except StreamBrokenError:
            pass
        except Exception as error:  # noqa: BLE001 - it would end the host
            get_logger().error("a peer's stream failed unexpectedly", peer=peer_id, exc_info=error)
        await stream.reset()

    async def _answer(self, stream: PeerStream) -> None:
        peer_id, answering = stream.peer_id, self._answering
        line: bytes | None = None
        word = ""
        try:
            with trio.move_on_after(answering.settings.request_timeout_s) as too_slow:
                line = await read_line(stream, answering.settings.max_message_bytes)
                if line is None:
                    return
        except LineTooLongError:
            word = FRAME_TOO_LARGE
        if too_slow.cancelled_caught:
            word = TIMEOUT
        elif not word and (self._use.spend(peer_id) or not self._use.begin(peer_id)):
            word = RATE_LIMITED
        if word or line is None:
            await write_line(stream, answering.encoded(answering.refused(Refusal(word))))
            return
        try:
            await write_line(stream, answering.encoded(await answering.reply(peer_id, line)))
        finally:
            self._use.end(peer_id)
