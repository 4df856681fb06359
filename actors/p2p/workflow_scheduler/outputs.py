# SPDX-License-Identifier: AGPL-3.0-or-later
"""Outputs of steps, by what they are: JSON texts named by their CIDs. A bounded number of characters is in memory."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import msgspec

from actors.p2p.cids import raw_link
from actors.p2p.workflow_scheduler.run_values import Outputs


class OutputCache:
    """Texts and values of outputs. What is not here is read."""

    def __init__(self, read: Outputs, most_chars: int) -> None:
        self._read = read
        self._most = most_chars
        self._new: dict[bytes, str] = {}
        self._texts: OrderedDict[bytes, str] = OrderedDict()
        self._values: OrderedDict[bytes, tuple[int, Any]] = OrderedDict()
        self._text_chars = self._value_chars = 0

    def put(self, value: Any) -> bytes:  # noqa: ANN401
        """Keep a JSON value; its CID."""
        return self.put_text(msgspec.json.encode(value).decode())

    def put_text(self, text: str) -> bytes:
        """Keep a JSON text; its CID."""
        cid = raw_link(text.encode())
        self._new[cid] = text
        self._remember(cid, text)
        return cid

    def text(self, cid: bytes) -> str:
        """The JSON text. Raises LookupError when nobody has it."""
        text = self._new.get(cid) or self._texts.get(cid)
        if text is None:
            text = self._read(cid)
            self._remember(cid, text)
        return text

    def value(self, cid: bytes) -> Any:  # noqa: ANN401
        """The JSON value; not to be changed. Raises LookupError."""
        known = self._values.get(cid)
        if known is not None:
            self._values.move_to_end(cid)
            return known[1]
        text = self.text(cid)
        value = msgspec.json.decode(text)
        self._values[cid] = (len(text), value)
        self._value_chars += len(text)
        while self._value_chars > self._most and len(self._values) > 1:
            self._value_chars -= self._values.popitem(last=False)[1][0]
        return value

    def take(self) -> dict[bytes, str]:
        """Those that are new since the last time; from now on, `read` knows them."""
        new, self._new = self._new, {}
        return new

    def _remember(self, cid: bytes, text: str) -> None:
        if cid in self._texts:
            self._texts.move_to_end(cid)
            return
        self._texts[cid] = text
        self._text_chars += len(text)
        while self._text_chars > self._most and self._texts:
            self._text_chars -= len(self._texts.popitem(last=False)[1])
