# SPDX-License-Identifier: AGPL-3.0-or-later
"""One leased task on its way to a peer and back.

It is offered to one peer after the other until one takes it. Under one token no two peers ever have it: when it is not
known whether a peer took it, the task goes back to the queue, which gives it a new token with its next lease.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final, Literal

import msgspec
import trio

from actors.errors import MCPServerError, OutcomeUnknownError, code_of, to_info
from actors.logs import get_logger
from actors.p2p.asking_queue import End, end_task
from actors.p2p.lease_keeper import LeaseKeeper
from actors.p2p.peer_registry.link.messages import Accepted, Offer, TaskCancel, TaskResult
from actors.p2p.peer_registry.sharing.clocks import Clocks
from actors.p2p.peer_registry.sharing.statement import as_error, content_id
from actors.p2p.peer_registry.sharing.wires import Wires
from actors.p2p.task_worker.links import Results
from actors.p2p.task_worker.run import told as as_attempt
from actors.task_client import TaskClient
from actors.task_messages import AckCancel, Complete, Fail, Lease, Release

_OFFER_S: Final = 10.0
_ANSWER_S: Final = 5.0
"""Beyond the time that its task has, and that it may be away, a peer may take so long to tell how that ended."""
_TAKEN_S: Final = 30.0
"""A peer that told how it ended is patient for so long until this node takes that, and tells it again."""
_AGAIN_S: Final = 1.0
"""Before a task goes back whose workflow does not want it now: it would come again at once."""

Ranked = Callable[[str, str], list[str]]
"""Type and input CID -> ids of peers that would take it, the best first."""
Took = Callable[[str, int], None]
"""A peer took or refused one, and has so many slots left."""


class SenderRules(msgspec.Struct, frozen=True, kw_only=True):
    """What the sender goes by, from the settings."""

    me: str
    """This node's peer id."""
    lease_s: float = 60.0
    """Of tasks that are with peers."""
    grace_s: float = 10.0
    """A peer whose connection ended may come back for so long."""
    wait_s: float = 50.0
    """One question for tasks waits so long."""
    timeout_s: float = 30.0
    """Of a task that has none of its own."""
    max_assigned: int = 500
    max_offers: int = 3
    """Peers that one lease is offered to."""
    max_payload_bytes: int = 900_000
    """Frames have a limit."""


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """A peer that would run something."""

    peer_id: str
    types: frozenset[str]
    free_slots: int
    running: int
    at: float
    """When it said so, on trio's clock."""


class Assignment:
    """See the module's text."""

    def __init__(
        self,
        lease: Lease,
        queue: TaskClient,
        wires: Wires,
        results: Results,
        clocks: Clocks,
        rules: SenderRules,
        ranked: Ranked,
    ) -> None:
        self.lease = lease
        self.peer = ""
        """Who has it; '' = nobody yet."""
        self.input_cid = ""
        self.accepted = False
        """A peer took it."""
        self.became: str = "given_back"
        """How it ended; one of `GIVEN`."""
        self.overdue = False
        """Its peer took it, and did not tell in time how it ended."""
        self.workflow_id = ""
        """Whose clock is told of it."""
        self.keeper = LeaseKeeper(queue, lease.id, lease.token, rules.lease_s, self.stop)
        self._queue = queue
        self._wires = wires
        self._results = results
        self._clocks = clocks
        self._rules = rules
        self._ranked = ranked
        self._began = trio.current_time()
        self._scope = trio.CancelScope()
        self._patience = trio.CancelScope()
        self._time_it_has = trio.CancelScope()
        self._over = trio.Event()
        self._end: End | None = None
        self._counted: bool | None = None
        self._settled = trio.Event()

    @property
    def seconds(self) -> float:
        """Since it was claimed."""
        return trio.current_time() - self._began

    def is_with(self, peer_id: str, token: int) -> bool:
        """Whether this peer has it under this token, and nothing has ended it."""
        return self.peer == peer_id and self.lease.token == token and not self._over.is_set()

    # --- what happens to it ----------------------------------------------------------------------------------------

    async def ended(self, result: TaskResult) -> bool:
        """Its peer has a result, which is right; whether it counts."""
        lease = self.lease
        if result.error is None:
            self._stop_with(Complete(id=lease.id, token=lease.token, result=result.output or ""), "completed")
        else:
            self._stop_with(Fail(id=lease.id, token=lease.token, error=as_error(result.error)), "failed")
        await self._settled.wait()
        return bool(self._counted)

    def stop(self, why: Literal["cancelled", "lost"]) -> None:
        """Its owner wants that, or it is not ours any more."""
        self._cancel_there()
        end = AckCancel(id=self.lease.id, token=self.lease.token) if why == "cancelled" else None
        self._stop_with(end, why)

    def give_back(self, reason: str, became: str = "given_back") -> None:
        """The queue shall have it again; no attempt is used."""
        self._cancel_there()
        self._stop_with(self._back(reason), became)

    def peer_lost(self) -> None:
        """The connection with its peer ended."""
        self._patience.deadline = trio.current_time() + self._rules.grace_s

    def told(self) -> None:
        """Its peer has a sound result, which this node may not be able to take just now."""
        scope = self._time_it_has
        scope.deadline = max(scope.deadline, trio.current_time() + _TAKEN_S)

    def peer_back(self) -> None:
        """There is one again."""
        self._patience.deadline = math.inf

    def _stop_with(self, end: End | None, became: str) -> None:
        if not self._over.is_set():
            self._end = end
            self.became = became
            self._over.set()
            self._scope.cancel()

    def _cancel_there(self) -> None:
        wire = self._wires.get(self.peer) if self.peer else None
        if wire is not None:
            wire.note(TaskCancel(task_id=self.lease.id, token=self.lease.token))

    def _back(self, reason: str) -> Release:
        return Release(id=self.lease.id, token=self.lease.token, counts=False, reason=reason)

    # --- its life --------------------------------------------------------------------------------------------------

    async def live(self, took: Took) -> None:
        """To the end of this lease, told to the queue."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.keeper.run)
                with self._scope:
                    await self._with_a_peer(took)
                nursery.cancel_scope.cancel()
            self._over.set()
            self._counted = self._end is not None and await end_task(self._queue, self._end)
            if not self._counted and self.became in {"completed", "failed"}:
                self.became = "lost"
        finally:
            self._over.set()
            self._settled.set()

    async def _with_a_peer(self, took: Took) -> None:
        lease = self.lease
        try:
            payload = await self._results.filled(lease)
            offer = self._offer(payload)
        except MCPServerError as error:
            self._end, self.became = Fail(id=lease.id, token=lease.token, error=to_info(error)), "not_accepted"
            return
        except Exception as error:  # noqa: BLE001 - one task never ends the node, which has others
            get_logger().error("a task could not be offered", task=lease.id, exc_info=error)
            self._end, self.became = Fail(id=lease.id, token=lease.token, error=to_info(error)), "not_accepted"
            return
        refusals: list[str] = []
        for peer_id in self._ranked(lease.type, self.input_cid)[: self._rules.max_offers]:
            wire = self._wires.get(peer_id)
            if wire is None:
                continue
            try:
                place = await self._clocks.place(lease, peer_id, self.input_cid)
            except MCPServerError as error:
                await trio.sleep(_AGAIN_S)
                self._end = self._back(f"its workflow: {error.message}"[:1000])
                return
            self.workflow_id = "" if place is None else place.workflow_id
            self.peer = peer_id
            try:
                answer = await wire.call(msgspec.structs.replace(offer, clock=place), _OFFER_S)
            except MCPServerError as error:
                took(peer_id, 0)
                self.give_back(f"peer {peer_id} did not answer an offer ({code_of(error)})", "lost")
                return
            if isinstance(answer, Accepted):
                self.accepted = True
                took(peer_id, answer.free_slots)
                await self._until_it_ends(offer.timeout_s or 0.0)
                return
            self.peer = ""
            took(peer_id, answer.free_slots if answer.code == "BUSY" else 0)
            refusals.append(f"{peer_id}: {answer.reason}")
        self._end = self._back("; ".join(["no peer took it", *refusals])[:1000])
        self.became = "not_accepted"

    def _offer(self, payload: str) -> Offer:
        lease, rules = self.lease, self._rules
        data = payload.encode()
        if len(data) > rules.max_payload_bytes:
            message = f"the task's payload has {len(data)} bytes; peers are sent at most {rules.max_payload_bytes}"
            raise PayloadTooLargeError(message)
        self.input_cid = content_id(data)
        timeout_s = lease.timeout_s if lease.timeout_s is not None else rules.timeout_s
        if lease.deadline is not None:
            timeout_s = min(timeout_s, max(0.0, lease.deadline - time.time()))
        return Offer(
            task_id=lease.id,
            token=lease.token,
            type=lease.type,
            payload=payload,
            input_cid=self.input_cid,
            lease_s=rules.lease_s,
            timeout_s=timeout_s,
            attempt=lease.attempt,
            # Both together may be longer than a name may be.
            idempotency_token=content_id(f"{rules.me}/{lease.id}".encode()),
        )

    async def _until_it_ends(self, timeout_s: float) -> None:
        if self._wires.get(self.peer) is None:
            self.peer_lost()
        # The lease is kept from here: without an end of its own it would be a silent peer's for ever.
        self._time_it_has.deadline = trio.current_time() + timeout_s + self._rules.grace_s + _ANSWER_S
        with self._time_it_has, self._patience:
            await self._over.wait()
        if self._over.is_set():
            return
        if self._time_it_has.cancelled_caught:
            self._cancel_there()
            silent = OutcomeUnknownError(f"peer {self.peer} took it and did not tell how it ended")
            self._end = Fail(id=self.lease.id, token=self.lease.token, error=as_attempt(silent))
            self.became = "failed"
            self.overdue = True
        else:
            self._end = self._back(f"peer {self.peer} is gone")
            self.became = "lost"


class PayloadTooLargeError(MCPServerError):
    """A task can't be sent to another node."""

    code = "LIMIT_EXCEEDED"
