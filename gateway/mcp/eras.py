# SPDX-License-Identifier: AGPL-3.0-or-later
"""The five revisions of MCP, and how a request is told to belong to one. Pure functions, no state.

Revisions are numbered in the order of their release, so that rules read as comparisons: `revision >= C`. A-D are
*legacy* (a handshake opens a session), E is *modern* (each request carries its own metadata).
Source of the table in `classify`: the compatibility rules of revision 2026-07-28, and the quirks of live clients.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from gateway.mcp.quirks import LEGACY_VERSION_HEADER, NO_VERSION_HEADER, OTHER_VERSION_HEADER, STALE_SESSION, Quirks

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
    """400: a live session, but a version header that does not fit it."""
    UNKNOWN_SESSION = auto()
    """404: the client should start again with `initialize`."""
    NO_SESSION = auto()
    """400: a legacy request outside of any session."""


def classify(
    *,
    method: object,
    header: str | None,
    meta_version: object,
    session: int | None,
    session_given: bool,
    quirks: Quirks,
) -> Way:
    """Choose the way of a POST; the first rule that fits wins.

    `header` is the value of MCP-Protocol-Version, `meta_version` that of the body's `_meta` (None when absent),
    `session` is the revision of the session that Mcp-Session-Id names, None when none is served here.
    """
    if method == "initialize" and meta_version is None:
        stale = session_given and session is None
        return Way.UNKNOWN_SESSION if stale and STALE_SESSION not in quirks else Way.HANDSHAKE
    if session is not None and meta_version is None:
        return Way.SESSION if _fits(header, session, quirks) else Way.BAD_VERSION
    if header in LEGACY_VERSIONS and meta_version == MODERN_VERSION and LEGACY_VERSION_HEADER in quirks:
        return Way.MODERN_LENIENT if session is None else Way.SESSION
    if meta_version is not None or (header is not None and header not in LEGACY_VERSIONS):
        return Way.MODERN
    return Way.UNKNOWN_SESSION if session_given else Way.NO_SESSION


def _fits(header: str | None, session: int, quirks: Quirks) -> bool:
    """Whether a version header may stand in a session of this revision. Before 2025-06-18 there was no such header, so
    that nothing is demanded of it but to be a version."""
    if header is None:
        return session < C or NO_VERSION_HEADER in quirks
    return header == VERSIONS[session] or (header in KNOWN_VERSIONS and (session < C or OTHER_VERSION_HEADER in quirks))


def negotiate(wanted: str) -> int:
    """The revision that answers a handshake: the wanted one, or the newest that has handshakes."""
    return REVISION_OF[wanted] if wanted in LEGACY_VERSIONS else D
