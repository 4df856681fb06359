# SPDX-License-Identifier: AGPL-3.0-or-later
"""Rows of a query as JSON, made by DuckDB itself, so that every one of its types has a form."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from duckdb import DuckDBPyRelation

_NULL = msgspec.Raw(b"null")
_ROWS_AT_ONCE = 256

Row = list[Any]
"""One JSON value per column."""


def fetch_json(relation: DuckDBPyRelation, *, limit: int, offset: int, max_bytes: int) -> tuple[list[Row], bool]:
    """Rows from `offset`, at most `limit` and about `max_bytes` of JSON, and whether there are more."""
    result = relation.project("to_json(COLUMNS(*))").limit(limit + 1, offset=offset)
    rows: list[Row] = []
    taken = 0
    while batch := result.fetchmany(_ROWS_AT_ONCE):
        for cells in batch:
            row = [_cell(cell) for cell in cells]
            taken += sum(len(bytes(cell)) + 1 for cell in row) + 2
            if len(rows) == limit or taken > max_bytes:
                return rows, True
            rows.append(row)
    return rows, False


def _cell(text: str | None) -> msgspec.Raw:
    if text is None:
        return _NULL
    if "NaN" in text or "Infinity" in text:
        # DuckDB writes these bare, which is no JSON; like JavaScript we show them as null.
        return msgspec.Raw(msgspec.json.encode(json.loads(text, parse_constant=lambda _: None)))
    return msgspec.Raw(text.encode())
