# SPDX-License-Identifier: AGPL-3.0-or-later
"""Writing a dataset to a file of the caller's: the common part of `dataset_convert` and `dataset_save`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from actors.toolkit import InvalidArgumentsError, ToolContext
from actors.tools.dataset_tools._engine import (
    Format,
    check_lossless,
    columns_of,
    engine,
    format_of,
    quoted,
    sha256_of,
    write,
)
from actors.tools.dataset_tools._store import Store


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was written."""

    path: str
    """Relative to `files/` in the data directory, or absolute."""
    format: str
    rows: int
    bytes: int
    sha256: str


def format_for(destination: str, wanted: Format | None) -> Format:
    """The format to write: as wanted, else as the destination's name tells."""
    kind = wanted or format_of(Path(destination))
    if kind is None or destination.endswith(".gz"):
        raise InvalidArgumentsError(
            f"the name {destination} tells no format; pass format, or end it in .csv, .tsv, .json, .jsonl or .parquet"
        )
    return kind


def export(
    ctx: ToolContext,
    destination: str,
    kind: Format,
    *,
    overwrite: bool,
    allow_lossy: bool,
    source: Path | Callable[[Path], tuple[Path, str]],
) -> Written:
    """Write all of `source`: a Parquet file, or a function that puts a file into a workspace and names its table."""
    with Store(ctx.data_dir).workspace() as workspace, ctx.files.writing(destination, overwrite=overwrite) as temporary:
        if isinstance(source, Path):
            file, table = source, f"read_parquet({quoted(source)})"
        else:
            file, table = source(workspace)
        with engine(ctx, workspace, files=[file, temporary]) as connection:
            relation = connection.sql(f"FROM {table}")
            if not allow_lossy:
                check_lossless(columns_of(relation), kind)
            write(connection, table, temporary, kind)
            row = relation.aggregate("count(*)").fetchone()
        ctx.check_cancelled()
        digest, size = sha256_of(temporary), temporary.stat().st_size
    place = ctx.files.resolve(destination)
    return Written(path=ctx.files.shown(place), format=kind, rows=row[0] if row else 0, bytes=size, sha256=digest)
