# SPDX-License-Identifier: AGPL-3.0-or-later
"""Claimed tasks for workers that know nothing of links: the queue puts in the results that their payloads name."""

from __future__ import annotations

import msgspec

from actors.errors import MCPServerError, to_info
from actors.p2p.task_queue.tools_access import Access
from actors.task_filling import fill
from actors.task_links import MOST_FILLED_BYTES, Filling
from actors.task_messages import Fail, Lease, Op


async def with_values(access: Access, leases: list[Lease], most_bytes: int) -> list[Lease]:
    """The same with whole payloads, each of at most so many bytes. A task whose payload can't be made whole fails, and
    is not among them."""
    whole: list[Lease] = []
    broken: list[Op] = []
    for lease in leases:
        try:
            whole.append(await _filled(access, lease, min(most_bytes, MOST_FILLED_BYTES)) if lease.links else lease)
        except MCPServerError as error:
            broken.append(Fail(id=lease.id, token=lease.token, error=to_info(error)))
    await access.queue.do_all(broken, 0)
    return whole


async def _filled(access: Access, lease: Lease, most_bytes: int) -> Lease:
    filling = Filling(lease.payload, most_bytes=most_bytes)
    await fill(filling, lease.owner, access.queue.results)
    return msgspec.structs.replace(lease, payload=filling.text(), links=False)
