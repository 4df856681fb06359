# SPDX-License-Identifier: AGPL-3.0-or-later
"""Paths that callers give: confined to the configured roots, written atomically, never overwritten by accident.

* A path is absolute, or relative to the home folder (`files/` in the data directory), which is always a root.
* Links are followed first and the place they lead to is checked, so a link can't lead out of the roots.
* The data directory itself is closed except for its `files/`, even when a root contains it: it holds keys and queues.

It does not protect against another local user who can change a root's folders between the check and the use.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path

from actors.errors import ForbiddenError, InvalidArgumentsError

HOME_FOLDER = "files"


class Files:
    """The folders that tools may touch. Methods raise `ForbiddenError` and `InvalidArgumentsError`."""

    def __init__(self, roots: Iterable[str | Path], data_dir: Path) -> None:
        self._data_dir = Path(os.path.realpath(data_dir))
        self.home = self._data_dir / HOME_FOLDER
        """What relative paths are relative to."""
        self.roots = (self.home, *(Path(os.path.realpath(Path(root).expanduser())) for root in roots))

    def resolve(self, path: str) -> Path:
        """The real place of `path`, which need not exist, if it lies below a root."""
        if not path or "\0" in path:
            raise InvalidArgumentsError(f"{path!r} is not a usable path")
        self.home.mkdir(parents=True, exist_ok=True)
        try:
            place = Path(os.path.realpath(self.home / path))
        except OSError as error:
            raise InvalidArgumentsError(f"{path}: {error.strerror}") from error
        if not self._allowed(place):
            raise ForbiddenError(
                f"{path} is outside of the folders that tools may use; put it below {self.home}, or add its folder to "
                "tools.roots"
            )
        return place

    def existing_file(self, path: str, *, max_bytes: int | None = None) -> Path:
        """The real place of a regular file that exists and is no larger than `max_bytes`."""
        place = self.resolve(path)
        status = _status(path, place)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidArgumentsError(f"{path} is not a regular file")
        if max_bytes is not None and status.st_size > max_bytes:
            raise InvalidArgumentsError(f"{path} has {status.st_size} bytes; at most {max_bytes} are taken")
        return place

    def existing_folder(self, path: str) -> Path:
        """The real place of a folder that exists."""
        place = self.resolve(path)
        if not stat.S_ISDIR(_status(path, place).st_mode):
            raise InvalidArgumentsError(f"{path} is not a folder")
        return place

    def shown(self, place: Path) -> str:
        """A place as callers should see it: relative to the home folder where it lies below that."""
        return str(place.relative_to(self.home)) if place.is_relative_to(self.home) else str(place)

    @contextmanager
    def writing(self, path: str, *, overwrite: bool = False) -> Generator[Path, None, None]:
        """Give a temporary path beside `path` to write to; after the block the file stands at `path`, whole.

        Missing folders are made. An existing file is replaced only with `overwrite`. When the block raises, nothing is
        left.
        """
        place = self.resolve(path)
        if place in self.roots or place.is_dir():
            raise InvalidArgumentsError(f"{path} is a folder; name a file")
        if not overwrite and place.exists():
            raise InvalidArgumentsError(f"{path} exists already; pass overwrite=true to replace it")
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = place.parent / f".{place.name[:100]}.{secrets.token_hex(8)}.tmp"
        try:
            yield temporary
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            if overwrite:
                temporary.replace(place)
            else:
                _place_new(path, temporary, place)
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()

    def _allowed(self, place: Path) -> bool:
        if place.is_relative_to(self.home):
            return True
        if place.is_relative_to(self._data_dir):
            return False
        return any(place.is_relative_to(root) for root in self.roots)


def _status(path: str, place: Path) -> os.stat_result:
    try:
        return place.stat()
    except FileNotFoundError:
        raise InvalidArgumentsError(f"{path} does not exist") from None
    except OSError as error:
        raise InvalidArgumentsError(f"{path}: {error.strerror}") from error


def _place_new(path: str, temporary: Path, place: Path) -> None:
    # A hard link fails if the name is taken, which a rename does not: two writers can't both win.
    try:
        os.link(temporary, place)
    except FileExistsError:
        raise InvalidArgumentsError(f"{path} exists already; pass overwrite=true to replace it") from None
