# SPDX-License-Identifier: AGPL-3.0-or-later
"""Outputs of steps by their CID: those that are not on disk yet, in front of those that are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping


class Unwritten:
    """See the module's text. `read` gets one from the disk: workflow, CID -> JSON text or None."""

    def __init__(self, read: Callable[[str, bytes], str | None]) -> None:
        self._read = read
        self._texts: dict[str, dict[bytes, str]] = {}

    def take(self, workflow_id: str, outputs: Mapping[bytes, str]) -> None:
        """These will be written."""
        if outputs:
            self._texts.setdefault(workflow_id, {}).update(outputs)

    def written(self, workflow_id: str, cids: Iterable[bytes]) -> None:
        """These are on disk now."""
        texts = self._texts.get(workflow_id)
        if texts is not None:
            for cid in cids:
                texts.pop(cid, None)
            if not texts:
                del self._texts[workflow_id]

    def of(self, workflow_id: str) -> Callable[[bytes], str]:
        """What looks up the outputs of one workflow; raises LookupError.

        It reads the disk in whatever thread asks. Runs keep what they used last, so that this is rare, and mostly a
        read of the system's page cache: all who decide on steps would wait longer for a thread.
        """

        def look_up(cid: bytes) -> str:
            text = self._texts.get(workflow_id, {}).get(cid)
            if text is None:
                text = self._read(workflow_id, cid)
            if text is None:
                raise LookupError(f"an output of workflow {workflow_id} is not there: {cid.hex()}")
            return text

        return look_up
