# SPDX-License-Identifier: AGPL-3.0-or-later
"""What is known of all tools, resources and prompts, for whoever looks things up in it."""

from __future__ import annotations

import difflib

from actors.tool_messages import (
    Catalogue,
    CompletionAsk,
    Kind,
    Offered,
    PromptDescriptor,
    PromptGet,
    ResourceDescriptor,
    ResourceRead,
    ToolCall,
    ToolDescriptor,
)
from actors.uris import ResourceTable


class CatalogueView:
    """What is known of tools, resources and prompts, and a number that grows when they change."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.resources = [one for one in catalogue.resources if not one.broken]
        """Those that can be read, templates included, sorted by URI."""
        self.prompts = [one for one in catalogue.prompts if not one.broken]
        """Those that can be used, sorted by name."""
        self._table = ResourceTable(one.uri for one in self.resources)
        self._by_uri = {one.uri: one for one in self.resources}
        self._prompts_by_name = {one.name: one for one in self.prompts}
        self.version = catalogue.version
        self.tools: list[ToolDescriptor] = sorted(catalogue.tools, key=lambda tool: tool.name)
        self._by_name = {tool.name: tool for tool in self.tools}

    def get(self, name: str) -> ToolDescriptor | None:
        """The tool of this name."""
        return self._by_name.get(name)

    def resource(self, uri: str) -> ResourceDescriptor | None:
        """What a client gets that reads this URI: a resource, or the template that has it."""
        found = self._table.find(uri)
        return None if found is None else self.resources[found[0]]

    def template(self, uri: str) -> ResourceDescriptor | None:
        """The resource or template that is declared with exactly this text."""
        return self._by_uri.get(uri)

    def prompt(self, name: str) -> PromptDescriptor | None:
        """The prompt of this name."""
        return self._prompts_by_name.get(name)

    def of(self, call: ToolCall) -> Offered | None:
        """What a call is for, whatever its kind."""
        if isinstance(call, ResourceRead):
            return self.resource(call.name)
        if isinstance(call, PromptGet):
            return self.prompt(call.name)
        if isinstance(call, CompletionAsk):
            return self.prompt(call.name) if call.of == "prompts" else self.template(call.name)
        return self.get(call.name)

    def nearest(self, name: str) -> list[str]:
        """The known names that are most like this one, best first."""
        return difflib.get_close_matches(name, self._by_name, n=3)


def changed_lists(old: CatalogueView, new: CatalogueView) -> list[Kind]:
    """The lists that clients would see differ."""
    kinds: list[Kind] = []
    if [tool for tool in old.tools if not tool.broken] != [tool for tool in new.tools if not tool.broken]:
        kinds.append("tools")
    if old.resources != new.resources:
        kinds.append("resources")
    if old.prompts != new.prompts:
        kinds.append("prompts")
    return kinds


def actor_of(tool: Offered) -> str:
    """Base name of the actor that runs the tool, resource or prompt: `tools.<pool>`, or the P2P actor itself."""
    return f"tools.{tool.pool}" if tool.runtime == "general" else tool.pool
