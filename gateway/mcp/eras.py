# SPDX-License-Identifier: AGPL-3.0-or-later
"""The five revisions of MCP, and how a request is told to belong to one. Pure functions, no state.

Revisions are numbered in the order of their release, so that rules read as comparisons: `revision >= C`. A-D are
*legacy* (a handshake opens a session), E is *modern* (each request carries its own metadata).
Source of the table in `classify`: the compatibility rules of revision 2026-07-28, and the quirks of live clients.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

A, B, C, D, E = range(5)
"""2024-11-05, 2025-03-26, 2025-06-18, 2025-11-25, 2026-07-28."""

VERSIONS: Final = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28")
"""Revision -> its name on the wire."""

MODERN_VERSION: Final = VERSIONS[E]
MODERN_VERSIONS: Final = [MODERN_VERSION]
"""What `server/discover` and error -32022 list: a client that picks one of them is to talk without a handshake."""

LEGACY_VERSIONS: Final = frozenset(VERSIONS[:E])
KNOWN_VERSIONS: Final = frozenset(VERSIONS)
REVISION_OF: Final = {name: number for number, name in enumerate(VERSIONS)}


class Way(Enum):
    """What to do with a request."""

    HANDSHAKE = auto()
    """Legacy `initialize`; a session id that came with it is ignored."""
    SESSION = auto()
    """Serve in the legacy session, at the session's revision."""
    MODERN = auto()
    """The modern pipeline."""
    MODERN_LENIENT = auto()
    """The modern pipeline by the body alone: the version header names a legacy revision, as some clients send it."""
    BAD_VERSION = auto()
    """400: a live session, but a version that nobody knows."""
    UNKNOWN_SESSION = auto()
    """404: the client should start again with `initialize`."""
    NO_SESSION = auto()
    """400: a legacy request outside of any session."""


def classify(
    *, method: object, header: str | None, meta_version: object, session_live: bool, session_given: bool, strict: bool
) -> Way:
    """Choose the way of a POST; the first rule that fits wins.

    `header` is the value of MCP-Protocol-Version, `meta_version` that of the body's `_meta` (None when absent),
    `session_live` says that Mcp-Session-Id names a session that is served here.
    """
    if method == "initialize" and meta_version is None:
        return Way.HANDSHAKE
    if session_live and meta_version is None:
        return Way.SESSION if header is None or header in KNOWN_VERSIONS else Way.BAD_VERSION
    if header in LEGACY_VERSIONS and meta_version == MODERN_VERSION and not strict:
        return Way.SESSION if session_live else Way.MODERN_LENIENT
    if meta_version is not None or (header is not None and header not in LEGACY_VERSIONS):
        return Way.MODERN
    return Way.UNKNOWN_SESSION if session_given else Way.NO_SESSION


def negotiate(wanted: str) -> int:
    """The revision that answers a handshake: the wanted one, or the newest that has handshakes."""
    return REVISION_OF[wanted] if wanted in LEGACY_VERSIONS else D
