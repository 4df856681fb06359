# SPDX-License-Identifier: AGPL-3.0-or-later
"""How a group of events is written, and how a row that was read is held against what was written.

A group is canonical DAG-CBOR of `{seq, prev, events}`; `prev` is the CID of the group before it. So the log is a chain:
no group can be changed, left out or put elsewhere without the next one telling. What no later group covers yet is
covered by `digest`, which is stored beside each group.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

import libipld

from actors.errors import UnavailableError
from actors.p2p.task_queue.log import Group

GROUP_BYTES: Final = 1 << 20
"""A group that is larger is announced before it is written (`announced.py`), for the repair of a torn end."""

_CID_HEAD: Final = b"\x01\x71\x12\x20"
"""CIDv1, DAG-CBOR, sha2-256, 32 bytes."""


class Row(NamedTuple):
    """One group as it is stored."""

    seq: int
    n: int
    """How many events."""
    digest: int
    """First 8 bytes of the SHA-256 of `data`, as a signed number."""
    data: bytes


def cid_of(data: bytes) -> bytes:
    """The CID of a group, in bytes."""
    return _CID_HEAD + hashlib.sha256(data).digest()


class Chain:
    """Where the log ends: makes the next row, and checks the rows that are read, in order."""

    def __init__(self) -> None:
        self.seq = 0
        """Of the newest group; 0 = there is none."""
        self.digest = 0
        """Its digest."""
        self._cid: bytes | None = None

    def next(self, events: Group) -> Row:
        """The row for these events. The chain moves on with `wrote`, when it is stored."""
        # Bytes that are a CID are written as a link.
        data = libipld.encode_dag_cbor({"seq": self.seq + 1, "prev": self._cid, "events": events})
        return Row(self.seq + 1, len(events), _digest(hashlib.sha256(data).digest()), data)

    def wrote(self, row: Row) -> None:
        """This row is the newest."""
        self._cid = cid_of(row.data)
        self.seq = row.seq
        self.digest = row.digest

    def start(self, seq: int) -> None:
        """The next row that is read is this one; what was before it is gone."""
        self.seq = seq - 1

    def check(self, row: Row) -> Group:
        """The events of the row that comes next. Raises UnavailableError when it is another row, or was changed."""
        if row.seq != self.seq + 1:
            raise UnavailableError(f"group {self.seq + 1} is missing: after {self.seq} comes {row.seq}", seq=row.seq)
        cid = cid_of(row.data)
        if _digest(cid[len(_CID_HEAD) :]) != row.digest:
            raise UnavailableError(f"group {row.seq} is not what was written", seq=row.seq)
        try:
            group = libipld.decode_dag_cbor(row.data)
            seq, prev, events = group["seq"], group["prev"], group["events"]
        except (ValueError, TypeError, KeyError) as error:
            raise UnavailableError(f"group {row.seq} can't be read ({error})", seq=row.seq) from None
        if seq != row.seq or len(events) != row.n:
            raise UnavailableError(f"group {row.seq} is not what was written", seq=row.seq)
        if self._cid is not None and prev != self._cid:
            raise UnavailableError(f"group {row.seq} does not follow the group before it", seq=row.seq)
        self._cid = cid
        self.seq = row.seq
        self.digest = row.digest
        result: Group = events
        return result


def _digest(sha256: bytes) -> int:
    return int.from_bytes(sha256[:8], "big", signed=True)
