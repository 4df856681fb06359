# SPDX-License-Identifier: AGPL-3.0-or-later
"""The handler of streams that peers open for MCP (`/mcp+p2p/1.0.0`)."""

from __future__ import annotations

from actors.logs import get_logger
from actors.p2p.peer_registry.mcp.answering import Answering, Violation
from actors.p2p.peer_registry.mcp.serving import Serving
from actors.p2p.peer_registry.stream import PeerStream, StreamBrokenError
from actors.p2p.peer_registry.stream_end import part
from actors.p2p.peer_registry.stream_use import StreamUse, UseLimits
from actors.settings_p2p import PeerMcpSettings


def use_limits(settings: PeerMcpSettings) -> UseLimits:
    """Those that are configured."""
    return UseLimits(
        streams=settings.max_streams,
        requests=settings.max_requests,
        requests_in_all=settings.max_requests_in_all,
        burst=settings.burst,
        per_s=settings.rate_per_s,
    )


class McpServer:
    """One per process."""

    def __init__(self, answering: Answering, use: StreamUse, *, violation: Violation | None = None) -> None:
        """`use` may be shared with other protocols."""
        self._answering = answering
        self._use = use
        self._violation = violation

    async def serve(self, stream: PeerStream) -> None:
        """Answer one stream until its end. Raises nothing but cancellation."""
        try:
            with self._use.stream(stream.peer_id) as room:
                if room:
                    await Serving(self._answering, self._use, stream, self._violation).run()
                    await part(stream)
                    return
        except StreamBrokenError:
            pass
        except Exception as error:  # noqa: BLE001 - it would end the host
            get_logger().error("a peer's stream failed unexpectedly", peer=stream.peer_id, exc_info=error)
        await stream.reset()
