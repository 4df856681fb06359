# SPDX-License-Identifier: AGPL-3.0-or-later
"""Protocols that this node answers for peers that are no Greenroom nodes, and the way to the tools of such peers."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.metadata import version

from actors.base import Actor
from actors.client import ToolClient
from actors.errors import UnavailableError
from actors.p2p.peer_registry.admission import Caller, granted
from actors.p2p.peer_registry.call_tokens import Checker, make
from actors.p2p.peer_registry.host import Host
from actors.p2p.peer_registry.linked import Linked
from actors.p2p.peer_registry.mcp.answering import Answering, ServerFace
from actors.p2p.peer_registry.mcp.opening import ClientFace
from actors.p2p.peer_registry.mcp.profiles import TRANSPORT
from actors.p2p.peer_registry.mcp.rpc import PROTOCOL as MCP_PROTOCOL
from actors.p2p.peer_registry.mcp.server import McpServer, use_limits
from actors.p2p.peer_registry.node import Node
from actors.p2p.peer_registry.queue_protocol.answering import QueueAnswering
from actors.p2p.peer_registry.queue_protocol.reach import Right
from actors.p2p.peer_registry.queue_protocol.server import QueueServer
from actors.p2p.peer_registry.queue_protocol.words import PROTOCOL as QUEUE_PROTOCOL
from actors.p2p.peer_registry.remote_tools import RemoteTools
from actors.p2p.peer_registry.shared_secret import SharedSecret
from actors.p2p.peer_registry.stream_use import StreamUse
from actors.p2p.peer_registry.tools_for_peers import ToolsForPeers
from actors.task_client import TaskClient


class Served:
    """See the module's text."""

    def __init__(
        self,
        actor: Actor,
        host: Host,
        node: Node,
        client: ToolClient,
        new_call_id: Callable[[], str],
    ) -> None:
        self._actor = actor
        self._host = host
        self._node = node
        self._client = client
        self._admission = node.admission
        self._new_call_id = new_call_id
        self._settings = actor.settings.p2p.peer_registry
        self._offered: dict[str, ToolsForPeers] = {}
        """The tools, by the way that they are called."""

    @property
    def tool_calls(self) -> dict[str, int]:
        """Calls of tools that were let through, by the way that they came."""
        return {way: tools.called for way, tools in self._offered.items()}

    def serve(self, secret: SharedSecret | None, queue_secret: str) -> None:
        """Answer what is switched on. `secret` is that of nodes, `queue_secret` the one of the queue protocol. Raises
        `UnavailableError` when that can't be."""
        queue = self._queue(queue_secret) if self._settings.queue_protocol.enabled else None
        if self._settings.mcp.enabled:
            # Where there is a secret, no call gets so far without a token.
            answering = self._mcp(self._tools("mcp", proved=secret is not None), secret, queue)
            use = StreamUse(use_limits(self._settings.mcp))
            self._host.serve(MCP_PROTOCOL, McpServer(answering, use, violation=self._node.violated).serve)
        if queue is not None:
            use = StreamUse(use_limits(self._settings.mcp))
            self._host.serve(QUEUE_PROTOCOL, QueueServer(queue, use).serve)

    def _tools(self, way: str, *, proved: bool) -> ToolsForPeers:
        def caller_of(peer_id: str) -> Caller:
            return Caller(peer_id, self._node.address_of(peer_id), proved)

        tools = self._offered[way] = ToolsForPeers(self._client, self._admission, caller_of, self._new_call_id)
        return tools

    def _mcp(self, tools: ToolsForPeers, secret: SharedSecret | None, queue: QueueAnswering | None) -> Answering:
        check = None
        if secret is not None:
            checker = Checker(secret, self._host.peer_id, time.time())

            def check(token: str, peer_id: str) -> None:
                checker.check(token, peer_id, time.time())

        face = ServerFace(peer_id=self._host.peer_id, name="greenroom", version=version("greenroom"))
        return Answering(
            tools,
            face,
            self._settings.mcp,
            check_token=check,
            queue=None if queue is None else queue.reply,
            violation=self._node.violated,
        )

    # --- the queue, for older nodes --------------------------------------------------------------------------------

    def _queue(self, secret: str) -> QueueAnswering:
        if not self._actor.settings.p2p.task_queue.enabled:
            raise UnavailableError("p2p.peer_registry.queue_protocol is enabled, and p2p.task_queue is not")
        return QueueAnswering(
            self._host.peer_id,
            TaskClient(self._actor.peers, self._actor.nursery),
            self._may,
            self._settings.queue_protocol,
            secret=secret,
            tools=self._tools("queue", proved=False),
            violation=self._node.violated,
        )

    def _may(self, peer_id: str, right: Right, what: str) -> bool:
        """Besides the secret, which all of them send as it is, a peer has to be named in `allow`."""
        caller = Caller(peer_id, self._node.address_of(peer_id))
        grant = self._admission.grant_of(caller)
        may = grant is not None and (right in ("ask", "cache") or granted(what, grant.tasks))
        if not may and right in ("ask", "submit"):  # with the others it is only looked what there is for a peer
            self._admission.not_granted(caller)
        return may


def remote_tools(actor: Actor, host: Host, linked: Linked, secret: SharedSecret | None) -> RemoteTools:
    """The tools of peers."""
    most = actor.settings.p2p.peer_registry.mcp.max_frame_bytes
    face = ClientFace(name="greenroom", version=version("greenroom"), profiles={TRANSPORT: {}}, most_bytes=most)
    token = None
    if secret is not None:

        def token(peer_id: str) -> str:
            return make(secret, host.peer_id, peer_id, time.time())

    return RemoteTools(host, linked.links.get, face, token)
