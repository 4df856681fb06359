# SPDX-License-Identifier: AGPL-3.0-or-later
"""The tool registry: one flat list put together from what each process offers. Plain values, no I/O.

Names are unique in the whole system: of two offers of one name by different actors the earlier actor (by name) keeps it
and the other is listed as broken under a name of its own. What an actor offered stays listed while its processes are
away, because they come back.
"""

from __future__ import annotations

import msgspec

from actors.messages import Catalogue, ToolDescriptor


class Registry:
    """Offers by actor, and the list that follows from them."""

    def __init__(self, max_concurrent: dict[str, int] | None = None) -> None:
        self._offers: dict[str, tuple[ToolDescriptor, ...]] = {}
        self._max_concurrent = max_concurrent or {}
        self.catalogue = Catalogue(tools=[], version=0)
        self._by_name: dict[str, ToolDescriptor] = {}

    def offer(self, actor: str, tools: list[ToolDescriptor]) -> bool:
        """Take over what `actor` (a base name) offers now. True when the list changed by it."""
        offered = tuple(tools)
        if self._offers.get(actor) == offered:
            return False
        self._offers[actor] = offered
        merged = self._merge()
        if merged == self.catalogue.tools:
            return False
        self.catalogue = Catalogue(tools=merged, version=self.catalogue.version + 1)
        self._by_name = {tool.name: tool for tool in merged}
        return True

    def get(self, name: str) -> ToolDescriptor | None:
        """The tool of this name."""
        return self._by_name.get(name)

    def _merge(self) -> list[ToolDescriptor]:
        owner: dict[str, str] = {}
        merged: list[ToolDescriptor] = []
        for actor in sorted(self._offers):
            for tool in self._offers[actor]:
                if tool.name in owner:
                    reason = f"the name {tool.name!r} is taken by {owner[tool.name]}"
                    merged.append(msgspec.structs.replace(tool, name=f"{tool.name}@{actor}", broken=reason))
                    continue
                owner[tool.name] = actor
                merged.append(self._limited(tool))
        return sorted(merged, key=lambda tool: tool.name)

    def _limited(self, tool: ToolDescriptor) -> ToolDescriptor:
        limit = self._max_concurrent.get(tool.name)
        return tool if limit is None else msgspec.structs.replace(tool, max_concurrent=limit)
