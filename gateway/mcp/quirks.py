# SPDX-License-Identifier: AGPL-3.0-or-later
"""Deviations of real clients that are tolerated, each by a name of its own (`server.quirks`; with `server.strict`
none).

Two more habits of clients need no switch: routing headers on legacy requests mean nothing there, and a client that
never sends `initialize` again after a restart is served, because a session's id carries the session.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Final

from actors.settings import Quirk, ServerSettings

LEGACY_VERSION_HEADER: Final[Quirk] = "legacy-version-header"
"""MCP-Protocol-Version names a handshake revision over a body of 2026-07-28: the body counts."""
OTHER_VERSION_HEADER: Final[Quirk] = "other-version-header"
"""MCP-Protocol-Version names another revision than the session's: the session counts."""
NO_VERSION_HEADER: Final[Quirk] = "no-version-header"
"""No MCP-Protocol-Version in a session of 2025-06-18 or later: the session counts."""
ACCEPT: Final[Quirk] = "accept"
"""Accept is missing, or does not name both types: the client gets the one that it takes."""
NO_CONTENT_TYPE: Final[Quirk] = "no-content-type"
"""No Content-Type: the body is read as JSON."""
STALE_SESSION: Final[Quirk] = "stale-session"
"""`initialize` with the id of a session that has ended: a new session is opened."""
NO_TASK_NAME: Final[Quirk] = "no-task-name"
"""No Mcp-Name on `tasks/get`, `tasks/update` and `tasks/cancel`: the body counts."""

Quirks = Set[Quirk]


def tolerated(server: ServerSettings) -> Quirks:
    """The quirks that are tolerated with these settings."""
    return frozenset() if server.strict else frozenset(server.quirks)
