# SPDX-License-Identifier: AGPL-3.0-or-later
"""`load_dataset`: a file or a folder becomes a dataset that all other dataset tools know by its id."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

from actors.errors import MCPServerError
from actors.toolkit import InvalidArgumentsError, ToolContext, tool
from actors.tools.dataset_tools._engine import (
    MAX_AT_ONCE,
    Format,
    Name,
    columns_of,
    engine,
    format_of,
    link_files,
    quoted,
    reader,
    sha256_of,
    write,
)
from actors.tools.dataset_tools._store import Dataset, Store

MAX_SOURCE_BYTES = 16 * 1024**3
MAX_SOURCE_FILES = 10_000


class LoadedDataset(Dataset, frozen=True, kw_only=True):
    """A dataset, and whether this call made it."""

    created: bool
    """False when the same content had been loaded before."""


@tool(idempotent=True, destructive=False, open_world=False, timeout=600, max_concurrent=MAX_AT_ONCE)
def load_dataset(
    ctx: ToolContext,
    source: str,
    format: Format | None = None,  # noqa: A002 - the name that callers know
    name: Name | None = None,
) -> LoadedDataset:
    """Read a CSV, TSV, JSON, JSONL or Parquet file, or a folder of such files, into a dataset, and answer its id.

    The rows are kept as Parquet. Loading the same content again gives the same id.

    Args:
        source: Path of a file or folder below the configured roots; relative to the home folder `files/`.
        format: Format of the files; told from their names when left out.
        name: Name for people, usable as a table name in queries; default the source's name.
    """
    store = Store(ctx.data_dir)
    files, kind = _source_files(ctx, source, format)
    before = [_fingerprint(file) for file in files]
    total = sum(size for size, _, _ in before)
    dataset_id = _content_id(ctx, files, kind, total)
    known = store.find(dataset_id)
    if known is not None:
        if name is not None and name != known.name:
            known = store.rename(known, name)
        return _answer(known, created=False)
    with store.workspace() as workspace:
        table = reader(link_files(files, workspace, kind), kind)
        stored = workspace / "data.parquet"
        try:
            with engine(ctx, workspace, files=files) as connection:
                write(connection, table, stored, "parquet")
                relation = connection.sql(f"FROM read_parquet({quoted(stored)})")
                columns, count = columns_of(relation), relation.aggregate("count(*)").fetchone()
        except InvalidArgumentsError as error:
            raise InvalidArgumentsError(f"{source} can't be read as {kind}: {error}") from error
        if [_fingerprint(file) for file in files] != before:
            raise MCPServerError(f"{source} changed while it was read; try again", retryable=True)
        ctx.progress(total + 1, total + 1, "stored")
        dataset = Dataset(
            dataset_id=dataset_id,
            name=name or ctx.files.resolve(source).name.partition(".")[0][:100] or dataset_id,
            format=kind,
            source=ctx.files.shown(ctx.files.resolve(source)),
            source_files=len(files),
            source_bytes=total,
            rows=count[0] if count else 0,
            columns=columns,
            bytes=stored.stat().st_size,
            created_at=datetime.now(UTC).isoformat(timespec="microseconds"),
        )
        return _answer(store.publish(workspace, dataset), created=True)


def _source_files(ctx: ToolContext, source: str, wanted: Format | None) -> tuple[list[Path], Format]:
    place = ctx.files.resolve(source)
    if not place.is_dir():
        kind = wanted or format_of(place)
        if kind is None:
            raise InvalidArgumentsError(f"the name {source} does not tell its format; pass format")
        return [ctx.files.existing_file(source, max_bytes=MAX_SOURCE_BYTES)], kind
    by_format: dict[Format, list[Path]] = {}
    for entry in sorted(place.iterdir()):
        kind = format_of(entry)
        if kind is not None and not entry.name.startswith(".") and (wanted is None or kind == wanted):
            by_format.setdefault(kind, []).append(ctx.files.existing_file(str(entry)))
    if len(by_format) != 1:
        found = f"it holds {', '.join(by_format)}: pass format to choose" if by_format else "it holds no file that fits"
        raise InvalidArgumentsError(f"the folder {source} can't be loaded; {found}")
    ((kind, files),) = by_format.items()
    if len(files) > MAX_SOURCE_FILES or sum(file.stat().st_size for file in files) > MAX_SOURCE_BYTES:
        raise InvalidArgumentsError(
            f"the folder {source} is too large: at most {MAX_SOURCE_FILES} files and {MAX_SOURCE_BYTES} bytes are taken"
        )
    return files, kind


def _fingerprint(file: Path) -> tuple[int, int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino


def _content_id(ctx: ToolContext, files: list[Path], kind: Format, total: int) -> str:
    digest = hashlib.sha256(f"greenroom dataset 1 {kind}".encode())
    done = 0

    def tick(size: int) -> None:
        nonlocal done
        ctx.check_cancelled()
        done += size
        ctx.progress(done, total + 1, "reading")

    for file in files:
        digest.update(f"\0{file.stat().st_size}\0{file.suffix}\0".encode())
        sha256_of(file, digest, tick=tick)
    return f"ds_{digest.hexdigest()[:24]}"


def _answer(dataset: Dataset, *, created: bool) -> LoadedDataset:
    fields = {field: getattr(dataset, field) for field in Dataset.__struct_fields__}
    return LoadedDataset(**fields, created=created)
