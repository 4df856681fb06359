# SPDX-License-Identifier: AGPL-3.0-or-later
"""`dataset_convert`: a dataset as a file of another format."""

from __future__ import annotations

import re

from actors.toolkit import ToolContext, tool
from actors.tools.dataset_tools._engine import MAX_AT_ONCE, Format
from actors.tools.dataset_tools._export import Written, export
from actors.tools.dataset_tools._store import Store


@tool(destructive=True, open_world=False, timeout=600, max_concurrent=MAX_AT_ONCE)
def dataset_convert(
    ctx: ToolContext,
    dataset_id: str,
    format: Format,  # noqa: A002 - the name that callers know
    destination: str | None = None,
    overwrite: bool = False,
    allow_lossy: bool = False,
) -> Written:
    """Write a dataset to a file in the given format, and answer its path, rows, bytes and SHA-256.

    Args:
        dataset_id: Id of the dataset.
        format: Format of the new file.
        destination: Path below the configured roots; default the dataset's name in the home folder `files/`.
        overwrite: Replace a file that exists.
        allow_lossy: Write nested and binary columns as text where the format knows no better.
    """
    store = Store(ctx.data_dir)
    dataset = store.get(dataset_id)
    if destination is None:
        destination = re.sub(r"[^\w-]", "_", dataset.name) + f".{format}"
    return export(
        ctx, destination, format, overwrite=overwrite, allow_lossy=allow_lossy, source=store.parquet(dataset_id)
    )
