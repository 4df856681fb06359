# SPDX-License-Identifier: AGPL-3.0-or-later
"""`dataset_query`: SQL over datasets, with no way to anything else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from actors.toolkit import InvalidArgumentsError, ToolContext, tool
from actors.tools.dataset_tools._engine import MAX_AT_ONCE, columns_of, engine, views
from actors.tools.dataset_tools._rows import fetch_json
from actors.tools.dataset_tools._store import Column, Store

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MAX_ROWS = 10_000
_ENVELOPE_BYTES = 65536


class QueryResult(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of a query."""

    columns: list[Column]
    rows: list[list[Any]]
    """Each a list with one value per column. Dates and times are text, NaN and infinity null."""
    row_count: int
    """Rows in this answer."""
    offset: int
    truncated: bool
    """There are more rows; ask again with a larger offset."""


@tool(read_only=True, idempotent=True, open_world=False, timeout=120, max_concurrent=MAX_AT_ONCE)
def dataset_query(
    ctx: ToolContext,
    dataset_id: str | Annotated[list[str], Meta(min_length=1, max_length=32)],
    sql: Annotated[str, Meta(min_length=1, max_length=100_000)],
    limit: Annotated[int, Meta(ge=1, le=MAX_ROWS)] = 100,
    offset: Annotated[int, Meta(ge=0)] = 0,
) -> QueryResult:
    """Run one read-only SQL query (DuckDB's dialect) over one or several datasets.

    A single dataset is the table `data`; every dataset is also a table by its id and by its name.

    Args:
        dataset_id: Id of a dataset, or a list of ids to join.
        sql: One SELECT (or WITH, FROM, VALUES, DESCRIBE, SUMMARIZE). Files, network and settings are out of reach.
        limit: Most rows in the answer.
        offset: Rows to skip. Pages fit together only if the query has an ORDER BY.
    """
    ids = [dataset_id] if isinstance(dataset_id, str) else list(dict.fromkeys(dataset_id))
    store = Store(ctx.data_dir)
    setup = views(store, ids)
    max_bytes = max(1, ctx.settings.max_result_bytes - _ENVELOPE_BYTES)
    with (
        store.workspace() as workspace,
        engine(ctx, workspace, files=[store.parquet(one) for one in ids], setup=setup) as connection,
    ):
        _check_read_only(connection, sql)
        relation = connection.sql(sql)
        rows, more = fetch_json(relation, limit=limit, offset=offset, max_bytes=max_bytes)
        if more and not rows:
            raise InvalidArgumentsError("a single row of this query is larger than tools.max_result_bytes; select less")
        return QueryResult(columns=columns_of(relation), rows=rows, row_count=len(rows), offset=offset, truncated=more)


def _check_read_only(connection: DuckDBPyConnection, sql: str) -> None:
    import duckdb

    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        hint = " (a PIVOT needs its values listed: PIVOT t ON c IN (...))" if "pivot" in sql.lower() else ""
        raise InvalidArgumentsError(f"sql must be one statement, and is {len(statements)}{hint}")
    if statements[0].type != duckdb.StatementType.SELECT:
        raise InvalidArgumentsError(f"sql must be a SELECT, not {statements[0].type.name}: datasets can't be changed")
