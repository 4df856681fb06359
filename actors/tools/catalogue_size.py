# SPDX-License-Identifier: AGPL-3.0-or-later
"""Keeps what one process offers within `tools.max_catalogue_bytes`, so that it always fits the frames it travels in."""

from __future__ import annotations

import msgspec

from actors.tool_messages import Offered
from actors.tools.execution import LoadedTool
from actors.tools.offers import Offers

_encode = msgspec.msgpack.Encoder().encode


def fit(tools: dict[str, LoadedTool], offers: Offers, max_bytes: int) -> list[str]:
    """Take out what comes after the bound: tools come first, then resources, then prompts. Names what was taken out."""
    room = max_bytes
    left_out: list[str] = []

    def has_room(descriptor: Offered, shown: str) -> bool:
        nonlocal room
        room -= len(_encode(descriptor))
        if room < 0:
            left_out.append(shown)
        return room >= 0

    for name, tool in list(tools.items()):
        if not has_room(tool.descriptor, name):
            del tools[name]
    for uri, resource in list(offers.resources.items()):
        if not has_room(resource.descriptor, uri):
            offers.drop("resources", uri)
    for name, prompt in list(offers.prompts.items()):
        if not has_room(prompt.descriptor, name):
            offers.drop("prompts", name)
    return left_out
