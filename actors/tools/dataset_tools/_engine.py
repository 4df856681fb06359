# SPDX-License-Identifier: AGPL-3.0-or-later
"""DuckDB, locked up: an in-memory database that may touch the files it was given and nothing else.

Callers' SQL and callers' files meet here, so the database can't reach other files, the network, extensions, Python
variables or its own settings; memory, threads and spilling are bounded; cancelling the call interrupts it.
https://duckdb.org/docs/stable/operations_manual/securing_duckdb/overview
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta

from actors.toolkit import CallCancelledError, ForbiddenError, InvalidArgumentsError, ToolContext, UnavailableError
from actors.tools.dataset_tools._store import Column, Store

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, DuckDBPyRelation

Format = Literal["csv", "tsv", "json", "jsonl", "parquet"]
Name = Annotated[str, Meta(min_length=1, max_length=100)]

MAX_AT_ONCE = 4
"""Calls of one dataset tool at once, because each may take `MEMORY`."""
MEMORY = "1GB"
SPILL = "8GB"
THREADS = 2
SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_READERS: dict[Format, str] = {
    "csv": "read_csv({}, union_by_name=true, hive_partitioning=false)",
    "tsv": "read_csv({}, delim='\t', union_by_name=true, hive_partitioning=false)",
    "json": "read_json({}, format='auto', union_by_name=true, hive_partitioning=false)",
    "jsonl": "read_json({}, format='newline_delimited', union_by_name=true, hive_partitioning=false)",
    "parquet": "read_parquet({}, union_by_name=true, hive_partitioning=false)",
}
_WRITERS: dict[Format, str] = {
    "csv": "FORMAT csv, HEADER true",
    "tsv": "FORMAT csv, HEADER true, DELIMITER '\t'",
    "json": "FORMAT json, ARRAY true",
    "jsonl": "FORMAT json",
    "parquet": "FORMAT parquet, COMPRESSION zstd",
}
_FLAT_FORMATS = ("csv", "tsv")
_BLOCK = 1024 * 1024


def quoted(text: str | Path) -> str:
    """An SQL string."""
    return "'" + str(text).replace("'", "''") + "'"


def identifier(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


@contextmanager
def engine(
    ctx: ToolContext, workspace: Path, *, files: Iterable[Path] = (), setup: Iterable[str] = ()
) -> Generator[DuckDBPyConnection, None, None]:
    """A database that may touch `files` and what lies below `workspace`; `setup` is run as its last unlocked act.

    DuckDB's errors become ours: a fault of SQL or data is an `InvalidArgumentsError`.
    """
    try:
        import duckdb
    except ImportError as error:
        raise UnavailableError("dataset tools need the Python package duckdb") from error
    connection = duckdb.connect(
        ":memory:",
        config={
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "memory_limit": MEMORY,
            "threads": THREADS,
            "temp_directory": str(workspace / "spill"),
            "max_temp_directory_size": SPILL,
        },
    )
    ctx.on_cancel(connection.interrupt)
    try:
        connection.execute("SET python_enable_replacements=false")
        connection.execute(f"SET allowed_directories=[{quoted(f'{workspace}/')}]")
        connection.execute(f"SET allowed_paths=[{', '.join(map(quoted, files))}]")
        connection.execute("SET enable_external_access=false")
        for statement in setup:
            connection.execute(statement)
        connection.execute("SET lock_configuration=true")
        ctx.check_cancelled()
        yield connection
    except duckdb.InterruptException:
        raise CallCancelledError from None
    except duckdb.PermissionException as error:
        raise ForbiddenError(_message(error, workspace)) from error
    except (duckdb.OperationalError, duckdb.InternalError) as error:
        raise RuntimeError(_message(error, workspace)) from error
    except duckdb.Error as error:
        raise InvalidArgumentsError(_message(error, workspace)) from error
    finally:
        connection.close()


def views(store: Store, dataset_ids: list[str]) -> list[str]:
    """Statements that name datasets as tables: by id and by name, and `data` when it is one."""
    tables: dict[str, str] = {}
    for dataset_id in dataset_ids:
        dataset = store.get(dataset_id)
        tables.setdefault(dataset.name, dataset_id)
        tables[dataset_id] = dataset_id
    if len(dataset_ids) == 1:
        tables["data"] = dataset_ids[0]
    # DuckDB's names do not differ by case alone; the first of such names stands.
    unique = {table.lower(): (table, dataset_id) for table, dataset_id in reversed(tables.items())}
    return [
        f"CREATE VIEW {identifier(table)} AS FROM read_parquet({quoted(store.parquet(dataset_id))})"
        for table, dataset_id in unique.values()
    ]


def reader(files: list[Path], kind: Format) -> str:
    """A table expression that reads files of one format."""
    return _READERS[kind].format("[" + ", ".join(map(quoted, files)) + "]")


def link_files(files: list[Path], workspace: Path, kind: Format) -> list[Path]:
    """Stand-ins for files in the workspace whose names DuckDB can't take for a pattern."""
    links = []
    for number, file in enumerate(files):
        link = workspace / f"{number:06d}.{kind}{'.gz' if file.suffix == '.gz' else ''}"
        link.symlink_to(file)
        links.append(link)
    return links


def format_of(path: Path) -> Format | None:
    """The format that a file's name tells."""
    name = path.with_suffix("") if path.suffix == ".gz" else path
    found = SUFFIXES.get(name.suffix.lower())
    return None if path.suffix == ".gz" and found == "parquet" else found


def columns_of(relation: DuckDBPyRelation) -> list[Column]:
    """Names and types."""
    return [Column(name, str(kind)) for name, kind in zip(relation.columns, relation.types, strict=True)]


def write(connection: DuckDBPyConnection, table: str, place: Path, kind: Format) -> None:
    """Write all rows of a table expression to a file, which the connection was allowed to touch."""
    connection.execute(f"COPY (FROM {table}) TO {quoted(place)} ({_WRITERS[kind]}, USE_TMP_FILE false)")


def check_lossless(columns: list[Column], kind: Format) -> None:
    """Refuse a format that has no way to say what some columns hold."""
    if kind not in _FLAT_FORMATS:
        return
    nested = [
        column.name
        for column in columns
        if column.type == "BLOB" or any(mark in column.type for mark in ("STRUCT(", "MAP(", "UNION(", "]"))
    ]
    if nested:
        raise InvalidArgumentsError(
            f"{kind} can't hold nested or binary columns {', '.join(nested)} without loss; choose jsonl or parquet, "
            "or pass allow_lossy=true to write them as text"
        )


def sha256_of(place: Path, digest: Any = None, *, tick: Callable[[int], object] = lambda _: None) -> str:  # noqa: ANN401
    """The SHA-256 of a file in hexadecimal, or `digest` carried on with it. `tick` hears of each block's size."""
    digest = digest or hashlib.sha256()
    with place.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            tick(len(block))
    return str(digest.hexdigest())


def _message(error: Exception, workspace: Path) -> str:
    """DuckDB's message without our own paths."""
    return str(error).replace(f"{workspace}/", "")
