# SPDX-License-Identifier: AGPL-3.0-or-later
"""The small file beside a log that has the number of the last group that was stored.

It is how a log knows, after its end was torn and mended, that nothing is missing which was promised. It is
written after each group that is on disk and before `append` returns, without waiting for the disk:

* it never names a group that is not on disk;
* after the death of the process, however it died, it names the last group whose `append` returned: what was promised
  and is missing is always noticed;
* after a power cut it may be as old as the system's write-back is slow (Linux: about 30 s; it is forced to disk with
  each checkpoint). What it names must be there then too; later groups are guarded by the database's own fsync only.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Final

_LINE: Final = "{seq:020d} {digest:016x} {expected:020d}"
_LENGTH: Final = len(_LINE.format(seq=0, digest=0, expected=0)) + 10


class Announced:
    """The last group that was stored. See the module."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known = False
        """Whether the file was there and whole."""
        self.seq = 0
        self.digest = 0
        self.expected = 0
        """Bytes of the large transaction that was being written; 0 = none."""
        self._fd = -1

    def open(self) -> None:
        """Read the file, if it is there."""
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        line, _, check = os.pread(self._fd, _LENGTH, 0).decode(errors="replace").rstrip("\n").rpartition(" ")
        self.known = bool(line) and check == f"{zlib.crc32(line.encode()):08x}"
        if self.known:
            seq, digest, expected = line.split(" ")
            self.seq, self.digest, self.expected = int(seq), int(digest, 16), int(expected)

    def write(self, seq: int, digest: int) -> None:
        """This group is on disk."""
        self.seq, self.digest, self.expected = seq, digest & 0xFFFF_FFFF_FFFF_FFFF, 0
        self._put()

    def expect(self, size: int) -> None:
        """A transaction of more than a usual group is about to be written, `size` bytes of it. On disk when this
        returns: the repair of a torn end must know that so much may be torn."""
        self.expected = size
        self._put()
        os.fdatasync(self._fd)

    def sync(self) -> None:
        """Have the file on disk."""
        os.fdatasync(self._fd)

    def close(self) -> None:
        """Have the file on disk, and let go of it."""
        if self._fd >= 0:
            os.fdatasync(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _put(self) -> None:
        line = _LINE.format(seq=self.seq, digest=self.digest, expected=self.expected)
        os.pwrite(self._fd, f"{line} {zlib.crc32(line.encode()):08x}\n".encode(), 0)
