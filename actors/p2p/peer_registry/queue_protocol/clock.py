# SPDX-License-Identifier: AGPL-3.0-or-later
"""The clock that older nodes exchange. Theirs decides nothing here; ours counts what this node changed for peers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def root_of(vector: Mapping[str, int]) -> str:
    """What older nodes call the Merkle root: one hash over all entries, in the order of their names."""
    text = json.dumps([[name, vector[name]] for name in sorted(vector)])
    return hashlib.sha256(text.encode()).hexdigest()


class OwnClock:
    """This node's entry, and no other."""

    def __init__(self, node_id: str) -> None:
        self._node_id = node_id
        self._count = 0

    def tick(self) -> None:
        """Something was changed."""
        self._count += 1

    def shown(self) -> dict[str, Any]:
        """As replies have it."""
        vector = {self._node_id: self._count}
        return {"node_id": self._node_id, "vector": vector, "merkle_root": root_of(vector)}
