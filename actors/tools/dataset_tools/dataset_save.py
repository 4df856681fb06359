# SPDX-License-Identifier: AGPL-3.0-or-later
"""`dataset_save`: a dataset, or rows that the caller brings along, as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from actors.toolkit import InvalidArgumentsError, ToolContext, tool
from actors.tools.dataset_tools._engine import MAX_AT_ONCE, Format, quoted
from actors.tools.dataset_tools._export import Written, export, format_for
from actors.tools.dataset_tools._store import Store

_BIGINT = range(-(2**63), 2**63)


@tool(destructive=True, open_world=False, timeout=600, max_concurrent=MAX_AT_ONCE)
def dataset_save(
    ctx: ToolContext,
    destination: str,
    dataset_id: str | None = None,
    rows: Annotated[list[dict[str, Any]], Meta(min_length=1)] | None = None,
    format: Format | None = None,  # noqa: A002 - the name that callers know
    overwrite: bool = False,
    allow_lossy: bool = False,
) -> Written:
    """Write a dataset or given rows to a file, and answer its path, rows, bytes and SHA-256.

    Args:
        destination: Path below the configured roots; relative to the home folder `files/`.
        dataset_id: Id of the dataset to write; or pass rows.
        rows: Rows to write, as objects; columns are all keys, in order of appearance.
        format: Format of the file; told from the destination's name when left out.
        overwrite: Replace a file that exists.
        allow_lossy: Write nested and binary columns as text where the format knows no better.
    """
    if (dataset_id is None) == (rows is None):
        raise InvalidArgumentsError("pass either dataset_id or rows")
    kind = format_for(destination, format)
    if dataset_id is not None:
        store = Store(ctx.data_dir)
        store.get(dataset_id)
        parquet = store.parquet(dataset_id)
        return export(ctx, destination, kind, overwrite=overwrite, allow_lossy=allow_lossy, source=parquet)

    def from_rows(workspace: Path) -> tuple[Path, str]:
        assert rows is not None
        file = workspace / "rows.jsonl"
        file.write_bytes(b"\n".join(map(msgspec.json.encode, rows)))
        columns = ", ".join(f"{quoted(name)}: {quoted(kind)}" for name, kind in _column_types(rows).items())
        if not columns:
            raise InvalidArgumentsError("the rows have no columns")
        return file, f"read_json({quoted(file)}, format='newline_delimited', columns={{{columns}}})"

    return export(ctx, destination, kind, overwrite=overwrite, allow_lossy=allow_lossy, source=from_rows)


def _column_types(rows: list[dict[str, Any]]) -> dict[str, str]:
    """SQL types by what the values are, never by what their text looks like: "007" stays text."""
    kinds: dict[str, set[str]] = {}
    for row in rows:
        for name, value in row.items():
            found = kinds.setdefault(name, set())
            if value is not None:
                found.add(_kind(value))
    return {name: _common(found) for name, found in kinds.items()}


def _kind(value: object) -> str:
    match value:
        case bool():
            return "BOOLEAN"
        case int():
            return "BIGINT" if value in _BIGINT else "JSON"
        case float():
            return "DOUBLE"
        case str():
            return "VARCHAR"
        case _:
            return "JSON"


def _common(kinds: set[str]) -> str:
    if len(kinds) == 1:
        return next(iter(kinds))
    if not kinds:
        return "VARCHAR"
    return "DOUBLE" if kinds == {"BIGINT", "DOUBLE"} else "JSON"
