# SPDX-License-Identifier: AGPL-3.0-or-later
"""`dataset_delete`: forget a dataset."""

from __future__ import annotations

import msgspec

from actors.toolkit import ToolContext, tool
from actors.tools.dataset_tools._store import Store


class Deleted(msgspec.Struct, frozen=True, kw_only=True):
    """What went."""

    dataset_id: str
    bytes_freed: int


@tool(destructive=True, open_world=False)
def dataset_delete(ctx: ToolContext, dataset_id: str) -> Deleted:
    """Delete a dataset and its stored rows. The file that it was loaded from stays.

    Args:
        dataset_id: Id of the dataset.
    """
    store = Store(ctx.data_dir)
    dataset = store.get(dataset_id)
    store.delete(dataset)
    return Deleted(dataset_id=dataset_id, bytes_freed=dataset.bytes)
