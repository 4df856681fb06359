# SPDX-License-Identifier: AGPL-3.0-or-later
"""Where datasets live: one folder each below `datasets/` in the data directory, any process may read any of them.

A dataset is `data.parquet` and `manifest.json`. Its id comes from the content that was loaded, so loading the same
again gives the same one. A folder appears and disappears by one rename: nobody sees half of one. Names that begin
with a dot are work in progress; what a dead process left of that is removed after a day.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from actors.toolkit import InvalidArgumentsError

_ID = re.compile(r"ds_[0-9a-f]{24}")
_STALE_AFTER_S = 86400.0


class Column(msgspec.Struct, frozen=True):
    """A column; the type is DuckDB's name for it."""

    name: str
    type: str


class Dataset(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a dataset; its manifest."""

    dataset_id: str
    name: str
    format: str
    """Of the source."""
    source: str
    source_files: int
    source_bytes: int
    rows: int
    columns: list[Column]
    bytes: int
    """Of the stored Parquet file."""
    created_at: str
    """RFC 3339, UTC."""


class Store:
    """The datasets of one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.folder = data_dir.resolve() / "datasets"

    def parquet(self, dataset_id: str) -> Path:
        """The file with a dataset's rows."""
        return self.folder / dataset_id / "data.parquet"

    def get(self, dataset_id: str) -> Dataset:
        """A dataset by its id. Raises `InvalidArgumentsError` when there is none."""
        found = self.find(dataset_id)
        if found is None:
            raise InvalidArgumentsError(
                f"there is no dataset {dataset_id!r}; dataset_list shows what there is, load_dataset makes one"
            )
        return found

    def find(self, dataset_id: str) -> Dataset | None:
        """A dataset by its id, or None."""
        # The id becomes part of a path, so its form is checked first.
        if not _ID.fullmatch(dataset_id):
            return None
        try:
            manifest = (self.folder / dataset_id / "manifest.json").read_bytes()
        except FileNotFoundError:
            return None
        return msgspec.json.decode(manifest, type=Dataset)

    def all(self) -> list[Dataset]:
        """All datasets, oldest first."""
        if not self.folder.is_dir():
            return []
        found = [self.find(entry.name) for entry in self.folder.iterdir()]
        return sorted((one for one in found if one is not None), key=lambda one: (one.created_at, one.dataset_id))

    @contextmanager
    def workspace(self) -> Generator[Path, None, None]:
        """A folder of one's own beside the datasets, removed afterwards unless it was published."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._remove_stale()
        place = self.folder / f".work-{secrets.token_hex(8)}"
        place.mkdir(mode=0o700)
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def publish(self, workspace: Path, dataset: Dataset) -> Dataset:
        """Make a dataset of a workspace's `data.parquet`. Another process may have been faster: theirs is kept."""
        folder = workspace / "publish"
        folder.mkdir()
        (workspace / "data.parquet").rename(folder / "data.parquet")
        (folder / "manifest.json").write_bytes(msgspec.json.encode(dataset))
        for name in ("data.parquet", "manifest.json"):
            with (folder / name).open("rb") as written:
                os.fsync(written.fileno())
        try:
            folder.rename(self.folder / dataset.dataset_id)
        except OSError:
            return self.get(dataset.dataset_id)
        return dataset

    def rename(self, dataset: Dataset, name: str) -> Dataset:
        """Give a dataset another name."""
        renamed = msgspec.structs.replace(dataset, name=name)
        manifest = self.folder / dataset.dataset_id / "manifest.json"
        temporary = manifest.with_name(f".manifest-{secrets.token_hex(8)}")
        temporary.write_bytes(msgspec.json.encode(renamed))
        temporary.replace(manifest)
        return renamed

    def delete(self, dataset: Dataset) -> None:
        """Remove a dataset. Queries that have it open finish."""
        trash = self.folder / f".trash-{secrets.token_hex(8)}"
        try:
            (self.folder / dataset.dataset_id).rename(trash)
        except FileNotFoundError:
            raise InvalidArgumentsError(f"{dataset.dataset_id} was deleted by someone else") from None
        shutil.rmtree(trash, ignore_errors=True)

    def _remove_stale(self) -> None:
        oldest = time.time() - _STALE_AFTER_S
        for entry in self.folder.glob(".*"):
            with suppress(FileNotFoundError):
                if entry.stat().st_mtime < oldest:
                    shutil.rmtree(entry, ignore_errors=True)
