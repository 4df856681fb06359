# SPDX-License-Identifier: AGPL-3.0-or-later
"""The registry: flat lists of tools, resources and prompts, put together from what each process offers. Plain values,
no I/O.

Names of tools and prompts and URIs of resources are unique in the whole system: of two offers of one name by different
actors the earlier actor (by name) keeps it and the other is listed as broken, a tool under a name of its own. What an
actor offered stays listed while its processes are away, because they come back.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from actors.tool_messages import Catalogue, PromptDescriptor, ResourceDescriptor, ToolDescriptor

_Offer = tuple[tuple[ToolDescriptor, ...], tuple[ResourceDescriptor, ...], tuple[PromptDescriptor, ...]]


class Registry:
    """Offers by actor, and the list that follows from them."""

    def __init__(self, max_concurrent: dict[str, int] | None = None) -> None:
        self._offers: dict[str, _Offer] = {}
        self._max_concurrent = max_concurrent or {}
        self.catalogue = Catalogue(tools=[], version=0)
        self._by_name: dict[str, ToolDescriptor] = {}

    def offer(
        self,
        actor: str,
        tools: Sequence[ToolDescriptor],
        resources: Sequence[ResourceDescriptor] = (),
        prompts: Sequence[PromptDescriptor] = (),
    ) -> bool:
        """Take over what `actor` (a base name) offers now. True when a list changed by it."""
        offered = (tuple(tools), tuple(resources), tuple(prompts))
        if self._offers.get(actor) == offered:
            return False
        self._offers[actor] = offered
        merged = self._merge()
        if msgspec.structs.replace(merged, version=self.catalogue.version) == self.catalogue:
            return False
        self.catalogue = msgspec.structs.replace(merged, version=self.catalogue.version + 1)
        self._by_name = {tool.name: tool for tool in merged.tools}
        return True

    def get(self, name: str) -> ToolDescriptor | None:
        """The tool of this name."""
        return self._by_name.get(name)

    def _merge(self) -> Catalogue:
        return Catalogue(tools=self._tools(), resources=self._resources(), prompts=self._prompts())

    def _resources(self) -> list[ResourceDescriptor]:
        owner: dict[str, str] = {}
        merged: list[ResourceDescriptor] = []
        for actor in sorted(self._offers):
            for resource in self._offers[actor][1]:
                if not resource.broken and owner.setdefault(resource.uri, actor) != actor:
                    reason = f"the URI {resource.uri!r} is taken by {owner[resource.uri]}"
                    merged.append(msgspec.structs.replace(resource, broken=reason))
                else:
                    merged.append(resource)
        return sorted(merged, key=lambda resource: (resource.uri, resource.broken))

    def _prompts(self) -> list[PromptDescriptor]:
        owner: dict[str, str] = {}
        merged: list[PromptDescriptor] = []
        for actor in sorted(self._offers):
            for prompt in self._offers[actor][2]:
                if not prompt.broken and owner.setdefault(prompt.name, actor) != actor:
                    reason = f"the name {prompt.name!r} is taken by {owner[prompt.name]}"
                    merged.append(msgspec.structs.replace(prompt, broken=reason))
                else:
                    merged.append(prompt)
        return sorted(merged, key=lambda prompt: (prompt.name, prompt.broken))

    def _tools(self) -> list[ToolDescriptor]:
        owner: dict[str, str] = {}
        merged: list[ToolDescriptor] = []
        for actor in sorted(self._offers):
            for tool in self._offers[actor][0]:
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
