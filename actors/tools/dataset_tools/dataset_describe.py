# SPDX-License-Identifier: AGPL-3.0-or-later
"""`dataset_describe`: what a dataset holds, column by column."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from actors.toolkit import ToolContext, tool
from actors.tools.dataset_tools._engine import MAX_AT_ONCE, engine, identifier, quoted
from actors.tools.dataset_tools._rows import fetch_json
from actors.tools.dataset_tools._store import Column, Dataset, Store


class ColumnSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Measured over all rows."""

    name: str
    type: str
    null_count: int
    distinct_about: int
    """An estimate (HyperLogLog), off by a few percent."""
    min: str | None
    max: str | None
    """Smallest and largest value as text, cut at 200 characters; None for types without an order."""


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """A dataset, its columns and its first rows."""

    dataset: Dataset
    columns: list[ColumnSummary]
    sample: list[list[Any]]
    """First rows, each a list with one value per column."""


@tool(read_only=True, idempotent=True, open_world=False, timeout=300, max_concurrent=MAX_AT_ONCE)
def dataset_describe(ctx: ToolContext, dataset_id: str, sample: Annotated[int, Meta(ge=0, le=100)] = 5) -> Description:
    """Describe a dataset: where it came from, and for each column its type, nulls, distinct values and range.

    Args:
        dataset_id: Id of the dataset.
        sample: How many of the first rows to show.
    """
    store = Store(ctx.data_dir)
    dataset = store.get(dataset_id)
    parquet = store.parquet(dataset_id)
    with store.workspace() as workspace, engine(ctx, workspace, files=[parquet]) as connection:
        table = connection.sql(f"FROM read_parquet({quoted(parquet)})")
        measured = table.aggregate(", ".join(map(_measures, dataset.columns))).fetchone() or ()
        summaries = [
            ColumnSummary(
                name=column.name,
                type=column.type,
                null_count=measured[at],
                distinct_about=measured[at + 1],
                min=measured[at + 2],
                max=measured[at + 3],
            )
            for column, at in zip(dataset.columns, range(0, len(measured), 4), strict=True)
        ]
        rows = fetch_json(table, limit=sample, offset=0, max_bytes=ctx.settings.max_result_bytes // 2)[0]
        return Description(dataset=dataset, columns=summaries, sample=rows if sample else [])


def _measures(column: Column) -> str:
    name = identifier(column.name)
    ordered = not any(mark in column.type for mark in ("STRUCT(", "MAP(", "UNION(", "]", "BLOB", "JSON"))
    extremes = f"left(min({name})::VARCHAR, 200), left(max({name})::VARCHAR, 200)" if ordered else "NULL, NULL"
    return f"count(*) - count({name}), approx_count_distinct({name}), {extremes}"
