# SPDX-License-Identifier: AGPL-3.0-or-later
"""The tools that steps may name, as the router told them last."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import trio

from actors.catalogue_view import CatalogueView
from actors.errors import RuntimeUnavailableError
from actors.tool_messages import Catalogue, ToolDescriptor


class ToolTable(Mapping[str, ToolDescriptor]):
    """Name -> tool. It changes as tools do."""

    def __init__(self) -> None:
        self._view = CatalogueView(Catalogue(tools=[]))
        self._came = trio.Event()

    def __getitem__(self, name: str) -> ToolDescriptor:
        tool = self._view.get(name)
        if tool is None:
            raise KeyError(name)
        return tool

    def __iter__(self) -> Iterator[str]:
        return (tool.name for tool in self._view.tools)

    def __len__(self) -> int:
        return len(self._view.tools)

    def take(self, view: CatalogueView) -> None:
        """These are the tools from now on."""
        self._view = view
        self._came.set()

    async def known(self, within_s: float) -> None:
        """Until the router has told them. Raises `RuntimeUnavailableError` when it does not in time."""
        with trio.move_on_after(within_s):
            await self._came.wait()
        if not self._came.is_set():
            raise RuntimeUnavailableError("the router has not told yet which tools there are; try again in a moment")
