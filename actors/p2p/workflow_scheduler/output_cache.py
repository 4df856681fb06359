# SPDX-License-Identifier: AGPL-3.0-or-later
"""Outputs of steps by their CID: those that are not on disk yet, and of the others the latest."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Final

MAX_CHARS: Final = 64 << 20
"""Of outputs that are held although they are on disk."""


class OutputCache:
    """See the module's text. `read` gets one from the disk: workflow, CID -> JSON text or None."""

    def __init__(self, read: Callable[[str, bytes], str | None], *, max_chars: int = MAX_CHARS) -> None:
        self._read = read
        self._max = max_chars
        self._unwritten: dict[bytes, str] = {}
        self._held: OrderedDict[bytes, str] = OrderedDict()
        self._chars = 0

    def take(self, outputs: Mapping[bytes, str]) -> None:
        """These are not on disk yet."""
        self._unwritten.update(outputs)

    def written(self, cids: Iterable[bytes]) -> None:
        """These are."""
        for cid in cids:
            text = self._unwritten.pop(cid, None)
            if text is not None:
                self._hold(cid, text)

    def of(self, workflow_id: str) -> Callable[[bytes], str]:
        """What looks up the outputs of one workflow; raises LookupError.

        An output that is not held is read from the disk at once, in whatever thread asks: mostly from memory, too, as
        the system keeps pages of the file, and too rarely to make all who decide on steps wait for a thread.
        """

        def look_up(cid: bytes) -> str:
            text = self._unwritten.get(cid) or self._held.get(cid)
            if text is None:
                text = self._read(workflow_id, cid)
                if text is None:
                    raise LookupError(f"an output of workflow {workflow_id} is not there: {cid.hex()}")
                self._hold(cid, text)
            return text

        return look_up

    def _hold(self, cid: bytes, text: str) -> None:
        if cid not in self._held:
            self._held[cid] = text
            self._chars += len(text)
        while self._chars > self._max and len(self._held) > 1:
            self._chars -= len(self._held.popitem(last=False)[1])
