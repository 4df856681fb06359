# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the operations work on: the queue, and what a peer may do with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal, Protocol, TypeVar

import msgspec

from actors.errors import MCPServerError, to_info
from actors.p2p.peer_registry.queue_protocol.clock import OwnClock
from actors.p2p.peer_registry.queue_protocol.names import is_docker, is_of, principal_of
from actors.p2p.peer_registry.queue_protocol.sealed import Opener
from actors.task_filling import fill
from actors.task_links import MOST_FILLED_BYTES, Filling
from actors.task_messages import Answer_, Fail, Lease, Op, Outcome, Task
from actors.task_views import GetTask, QueueStats, ReadResults, ScanTasks, TaskFacts, TaskPage, TaskView

Right = Literal["ask", "submit", "take", "cache"]
"""`ask`: anything at all. `submit`, `take`: tasks of a type. `cache`: a key."""
MayDo = Callable[[str, Right, str], bool]
"""Whether a peer has a right to what is named ('' for `ask`)."""
REPLY_ROOM: Final = 4096
"""Bytes of a reply beside the tasks in it."""

A = TypeVar("A", bound=Answer_)


class Queue(Protocol):
    """What is used of a `TaskClient`."""

    async def do(self, op: Op, answer: type[A], *, timeout_s: float = 30.0) -> A:
        """See there."""
        ...

    async def do_all(self, ops: Sequence[Op], *, timeout_s: float = 30.0) -> list[Outcome]:
        """See there."""
        ...

    async def get(self, ask: GetTask, *, timeout_s: float = 30.0) -> TaskView | None:
        """See there."""
        ...

    async def scan(self, ask: ScanTasks, *, timeout_s: float = 30.0) -> TaskPage:
        """See there."""
        ...

    async def read_results(self, ask: ReadResults, *, timeout_s: float = 30.0) -> TaskFacts:
        """See there."""
        ...

    async def stats(self, *, timeout_s: float = 30.0) -> QueueStats:
        """See there."""
        ...


class Reach:
    """See the module's text. Whatever it asks of the queue has the same bound."""

    def __init__(
        self, queue: Queue, may: MayDo, *, clock: OwnClock, opener: Opener, timeout_s: float, most_bytes: int
    ) -> None:
        """`most_bytes` of a reply."""
        self.queue = queue
        self.clock = clock
        self.opener = opener
        self.timeout_s = timeout_s
        self.most_bytes = most_bytes
        self._may = may

    async def do(self, op: Op, answer: type[A]) -> A:
        """One operation. Raises what it was refused with."""
        return await self.queue.do(op, answer, timeout_s=self.timeout_s)

    async def task(self, task_id: str) -> Task | None:
        """A task as it is now."""
        view = await self.queue.get(GetTask(id=task_id), timeout_s=self.timeout_s)
        return None if view is None else view.task

    # --- who may ---------------------------------------------------------------------------------------------------

    def may_submit(self, peer_id: str, task_type: str) -> bool:
        """Whether tasks of this type are taken from a peer."""
        return not is_docker(task_type) and self._may(peer_id, "submit", task_type)

    def may_take(self, peer_id: str, task_type: str) -> bool:
        """Whether tasks of this type are given to a peer."""
        return not is_docker(task_type) and self._may(peer_id, "take", task_type)

    def may_see(self, peer_id: str, task: Task) -> bool:
        """Whether a peer is told of a task: one that it submitted, has, or could take."""
        return task.owner == principal_of(peer_id) or is_of(task.worker, peer_id) or self.may_take(peer_id, task.type)

    async def types_for(self, peer_id: str, wanted: list[str]) -> list[str]:
        """Types of the tasks that a peer may take, among those that it wants or, if it names none, that there are."""
        if not wanted:
            wanted = list((await self.queue.stats(timeout_s=self.timeout_s)).by_type)
        return [one for one in wanted if self.may_take(peer_id, one)]

    # --- what a reply can carry ------------------------------------------------------------------------------------

    async def whole(self, leases: list[Lease]) -> list[Lease]:
        """Claimed tasks with the results that their payloads name. One whose payload can't be made whole fails, and is
        not among them."""
        found: list[Lease] = []
        broken: list[Op] = []
        for lease in leases:
            try:
                found.append(await self._filled(lease) if lease.links else lease)
            except MCPServerError as error:
                broken.append(Fail(id=lease.id, token=lease.token, error=to_info(error)))
        if broken:
            await self.queue.do_all(broken, timeout_s=self.timeout_s)
        return found

    async def _filled(self, lease: Lease) -> Lease:
        filling = Filling(lease.payload, most_bytes=min(self.most_bytes - REPLY_ROOM, MOST_FILLED_BYTES))

        async def read(ask: ReadResults) -> TaskFacts:
            return await self.queue.read_results(ask, timeout_s=self.timeout_s)

        await fill(filling, lease.owner, read)
        return msgspec.structs.replace(lease, payload=filling.text(), links=False)
