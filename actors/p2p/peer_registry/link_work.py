# SPDX-License-Identifier: AGPL-3.0-or-later
"""What this node does with what linked nodes ask and say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from actors.errors import MCPServerError
from actors.p2p.peer_registry.admission import Admission, Caller
from actors.p2p.peer_registry.introductions import Introductions
from actors.p2p.peer_registry.link.hello import About, PeerHello
from actors.p2p.peer_registry.link.link import Link
from actors.p2p.peer_registry.link.messages import (
    Answer,
    CallTool,
    Describe,
    Echo,
    FindPeers,
    Heartbeat,
    Note,
    Offer,
    PeerDescription,
    PeerPlace,
    PeersFound,
    Progress,
    Pull,
    Request,
    TaskCancel,
    TaskResult,
    ToolAnswer,
)
from actors.p2p.peer_registry.peer_book import PeerBook
from actors.p2p.peer_registry.sharing.runner import Runner
from actors.p2p.peer_registry.sharing.sender import Sender
from actors.p2p.peer_registry.tools_for_peers import ToolsForPeers
from actors.tool_tasks import result_text

MOST_TYPES: Final = 1000
"""That one node tells another."""


class LinkWork:
    """See the module's text."""

    def __init__(
        self,
        *,
        agent: str,
        addresses: Callable[[], list[str]],
        admission: Admission,
        caller_of: Callable[[str], Caller],
        book: PeerBook,
        tools: ToolsForPeers,
        runner: Runner,
        sender: Sender,
    ) -> None:
        self._agent = agent
        self._addresses = addresses
        self._admission = admission
        self._caller_of = caller_of
        self._book = book
        self._tools = tools
        self._runner = runner
        self._sender = sender
        self._introductions = Introductions(trio.current_time)
        self._began = trio.current_time()

    def about(self, peer_id: str) -> About:
        """What this node offers this peer, for the hello."""
        types = list(self._tools.task_types(peer_id)[:MOST_TYPES])
        tools = [tool.name for tool in self._tools.list(peer_id)][:MOST_TYPES]
        return About(agent=self._agent, capabilities=types, task_types=types, tools=tools)

    def accept(self, hello: PeerHello) -> None:
        """Raises when there should be no link with this peer: it is banned, or it dialled and may do nothing here."""
        caller = Caller(hello.peer_id, hello.address, hello.proven)
        self._admission.check_ban(caller)
        if hello.inbound:
            self._admission.welcome(caller)

    def beat(self) -> Heartbeat:
        """What this node's heartbeats say."""
        return Heartbeat(free_slots=self._runner.free_slots, running=self._runner.running)

    async def handle(self, link: Link, request: Request) -> Answer:
        """Answer a request."""
        self._runner.heard(link.peer_id)
        if isinstance(request, Echo | Describe | FindPeers):
            size = len(request.data) if isinstance(request, Echo) else 0
            with self._admission.ask(self._caller_of(link.peer_id), size):
                return self._told(link, request)
        if isinstance(request, Offer):
            return self._runner.offered(link, request)
        if isinstance(request, TaskResult):
            return await self._sender.result(link, request)
        if isinstance(request, CallTool):
            arguments = request.arguments.encode()
            result = await self._tools.call(link.peer_id, request.name, arguments, request.timeout_s)
            return ToolAnswer(result=result_text(result))
        raise MCPServerError(f"this node answers no {type(request).__name__}")

    def _told(self, link: Link, request: Echo | Describe | FindPeers) -> Answer:
        """What everybody may ask who has a link."""
        if isinstance(request, Echo):
            return request
        if isinstance(request, Describe):
            return self._description(link.peer_id)
        return self._places(link, request.n)

    def noted(self, link: Link, note: Note) -> None:
        """Hear a note."""
        self._runner.heard(link.peer_id)
        if isinstance(note, Heartbeat):
            self._sender.capacity(link.peer_id, free_slots=note.free_slots, running=note.running)
        elif isinstance(note, Pull):
            self._sender.pulled(link.peer_id, note.n)
        elif isinstance(note, Progress):
            self._sender.progress(link, note)
        elif isinstance(note, TaskCancel):
            self._runner.cancelled(link, note)

    def learn(self, link: Link) -> None:
        """A link is ready: remember what its peer offers."""
        about = link.peer.about
        self._book.seen(link.peer_id, capabilities=about.capabilities, agent=about.agent or None)
        self._sender.offers(link.peer_id, about.task_types)

    async def refresh(self, link: Link, timeout_s: float) -> None:
        """Ask again what its peer offers. Raises what the call raises."""
        said = await link.call(Describe(), timeout_s)
        self._book.heard(link.peer_id, said.addresses)
        if self._admission.is_introduced(self._caller_of(link.peer_id)):
            self._introductions.says(link.peer_id, said.addresses, link.address)
        self._book.seen(link.peer_id, capabilities=said.capabilities, agent=said.agent or None)
        self._sender.offers(link.peer_id, said.task_types)
        self._sender.capacity(link.peer_id, free_slots=said.free_slots, running=said.running)

    def _description(self, peer_id: str) -> PeerDescription:
        about = self.about(peer_id)
        return PeerDescription(
            agent=about.agent,
            capabilities=about.capabilities,
            task_types=about.task_types,
            tools=about.tools,
            addresses=self._addresses()[:32],
            free_slots=self._runner.free_slots,
            running=self._runner.running,
            uptime_s=trio.current_time() - self._began,
        )

    def _places(self, link: Link, most: int) -> PeersFound:
        """Peers that are here, for one that may know them."""
        asker = self._caller_of(link.peer_id)
        if not self._admission.is_introduced(asker):
            return PeersFound()
        bans = self._book.bans
        found = self._introductions.for_peer(link.peer_id, link.address, most)
        return PeersFound(
            peers=[
                PeerPlace(peer_id=peer_id, addresses=places)
                for peer_id, places in found.items()
                if bans.of_peer(peer_id) is None and not any(bans.of_address(place) for place in places)
            ]
        )
