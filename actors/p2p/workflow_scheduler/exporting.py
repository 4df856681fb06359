# SPDX-License-Identifier: AGPL-3.0-or-later
"""A workflow as a CAR file: its events, its definition and its outputs, from what is stored. Blocks; for threads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import libipld

from actors.p2p.workflow_scheduler.car import written
from actors.p2p.workflow_scheduler.records import EventRow
from actors.p2p.workflow_scheduler.store import WorkflowStore

_TOGETHER_BYTES: Final = 1 << 20
"""Of blocks that are read at once, but for one that is larger."""


def exported(store: WorkflowStore, workflow_id: str) -> Iterator[bytes]:
    """The pieces of the file. Its roots are the heads of the events that are stored now."""
    events = store.events(workflow_id)
    nodes = [libipld.decode_dag_cbor(event.node) for event in events]
    inner = {parent for node in nodes for parent in node["parents"]}
    heads = sorted(event.cid for event in events if event.cid not in inner)
    payloads = [node["payload"] for node in nodes]
    return written(heads, _blocks(store, workflow_id, events, payloads))


def _blocks(
    store: WorkflowStore, workflow_id: str, events: Sequence[EventRow], payloads: Sequence[bytes]
) -> Iterator[tuple[bytes, bytes]]:
    for event, payload in zip(events, payloads, strict=True):
        yield event.cid, event.node
        yield payload, event.payload
    some: list[bytes] = []
    size = 0
    # In the order of the list, so that equal workflows are equal files.
    for cid, length in sorted(store.block_sizes(workflow_id)):
        if some and size + length > _TOGETHER_BYTES:
            yield from sorted(store.blocks(workflow_id, some).items())
            some, size = [], 0
        some.append(cid)
        size += length
    yield from sorted(store.blocks(workflow_id, some).items())
