# SPDX-License-Identifier: AGPL-3.0-or-later
"""`dataset_list`: what has been loaded."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from actors.toolkit import ToolContext, tool
from actors.tools.dataset_tools._store import Dataset, Store


class DatasetPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of the list."""

    datasets: list[Dataset]
    total_count: int
    has_more: bool


@tool(read_only=True, idempotent=True, open_world=False)
def dataset_list(
    ctx: ToolContext,
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100,
    offset: Annotated[int, Meta(ge=0)] = 0,
) -> DatasetPage:
    """List the datasets that were loaded, oldest first.

    Args:
        limit: Most datasets in the answer.
        offset: Datasets to skip.
    """
    found = Store(ctx.data_dir).all()
    page = found[offset : offset + limit]
    return DatasetPage(datasets=page, total_count=len(found), has_more=offset + len(page) < len(found))
