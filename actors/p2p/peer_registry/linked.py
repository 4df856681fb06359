# SPDX-License-Identifier: AGPL-3.0-or-later
"""Links and the work that goes over them, put together."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

import trio

from actors.base import Actor
from actors.client import ToolClient
from actors.errors import MCPServerError
from actors.logs import get_logger
from actors.p2p.identity import NodeSigner
from actors.p2p.peer_registry.admission import Caller, granted
from actors.p2p.peer_registry.host import Host
from actors.p2p.peer_registry.link.link import Link
from actors.p2p.peer_registry.link.messages import Heartbeat
from actors.p2p.peer_registry.link.side import OwnSide
from actors.p2p.peer_registry.link_work import LinkWork
from actors.p2p.peer_registry.node import Node
from actors.p2p.peer_registry.node_links import NodeLinks
from actors.p2p.peer_registry.shared_secret import SharedSecret
from actors.p2p.peer_registry.sharing.assignment import SenderRules
from actors.p2p.peer_registry.sharing.clocks import Clocks
from actors.p2p.peer_registry.sharing.judging import BookJudge
from actors.p2p.peer_registry.sharing.pulling import Puller
from actors.p2p.peer_registry.sharing.runner import Runner, RunnerRules
from actors.p2p.peer_registry.sharing.sender import Sender
from actors.p2p.peer_registry.tools_for_peers import ToolsForPeers
from actors.task_client import TaskClient
from actors.workflow_client import WorkflowClient

_WAITS_S = 0.25
"""A ready task that waited so long waits because this node has no room."""


class Linked:
    """See the module's text."""

    def __init__(
        self,
        actor: Actor,
        host: Host,
        node: Node,
        client: ToolClient,
        new_call_id: Callable[[], str],
        signer: NodeSigner,
        secret: SharedSecret | None,
    ) -> None:
        settings = actor.settings
        sharing = settings.p2p.peer_registry.sharing
        self._client = client
        self._queue = TaskClient(actor.peers, actor.nursery)
        self._runs = sharing.enabled
        self._sends = sharing.enabled and settings.p2p.task_queue.enabled
        judge = BookJudge(node.book, node.lied)

        def caller_of(peer_id: str) -> Caller:
            return Caller(peer_id, node.address_of(peer_id), self.links.proven(peer_id))

        self.tools = tools = ToolsForPeers(client, node.admission, caller_of, new_call_id)
        self.runner = Runner(
            tools.run, tools.admit, signer, self, RunnerRules(slots=sharing.slots if sharing.enabled else 0)
        )
        self.sender = Sender(
            self._queue,
            self,
            Clocks(WorkflowClient(actor.peers)),
            judge.rank,
            judge,
            SenderRules(
                me=host.peer_id,
                lease_s=sharing.lease_s,
                grace_s=sharing.grace_s,
                timeout_s=settings.runtimes.general.timeout,
                max_assigned=sharing.max_assigned,
            ),
            is_shared=lambda type_: granted(type_, sharing.types),
            local_is_full=self._local_is_full,
        )
        self.work = LinkWork(
            agent=f"greenroom/{version('greenroom')}",
            addresses=lambda: host.addresses,
            admission=node.admission,
            caller_of=caller_of,
            book=node.book,
            tools=tools,
            runner=self.runner,
            sender=self.sender,
        )
        side = OwnSide(
            peer_id=host.peer_id,
            secret=None if secret is None else secret.key("link"),
            about=self.work.about,
            accept=self.work.accept,
            handler=self.work.handle,
            on_note=self.work.noted,
            beat=self.work.beat,
            on_error=lambda what, error: get_logger().error("a link failed", what=what, exc_info=error),
        )
        self.links = NodeLinks(host, side, node.admission, self.work, self.sender, node.violated)
        self.puller = Puller(self.runner, self.links.all, self._local_is_full)
        self.runner.on_free = self._freed

    # --- `Wires`: the links are made last ---

    def get(self, peer_id: str) -> Link | None:
        """The link with this node."""
        return self.links.get(peer_id)

    async def changed(self) -> None:
        """Return when a link came or went."""
        await self.links.changed()

    # --- life ---

    async def run(self) -> None:
        """Link, send and run until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.runner.run)
            await nursery.start(self.links.run)
            if self._runs:
                nursery.start_soon(self.puller.run)
                nursery.start_soon(self._pull_from_new)
            if self._sends:
                nursery.start_soon(self.sender.run)

    async def _pull_from_new(self) -> None:
        while True:
            await self.changed()
            self.puller.look()

    def _freed(self) -> None:
        self._tell_capacity()
        self.puller.look()

    def leave(self) -> None:
        """Send and take nothing more."""
        self.runner.leave()
        self.sender.leave()
        self._tell_capacity()

    async def give_back(self) -> None:
        """This node ends: tasks that are with peers go back to the queue."""
        await self.sender.give_back()

    def _tell_capacity(self) -> None:
        beat = Heartbeat(free_slots=self.runner.free_slots, running=self.runner.running)
        for link in self.links.all():
            link.note(beat)

    async def _local_is_full(self) -> bool:
        """Whether tasks wait that somebody here would have begun long since."""
        try:
            stats = await self._queue.stats()
        except MCPServerError:
            return False
        return stats.oldest_ready_s is not None and stats.oldest_ready_s >= _WAITS_S
