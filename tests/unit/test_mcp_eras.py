# SPDX-License-Identifier: AGPL-3.0-or-later
"""The table that tells to which era a request belongs: one case per row, and one per border between two rows."""

from __future__ import annotations

import pytest

from actors.settings import ServerSettings
from gateway.mcp.eras import VERSIONS, A, B, C, D, Way, classify, negotiate
from gateway.mcp.quirks import tolerated

E_ = "2026-07-28"
D_ = "2025-11-25"


@pytest.mark.parametrize(
    ("method", "header", "meta", "session", "strict", "way"),
    [
        # a handshake, whatever else is there
        ("initialize", None, None, "", False, Way.HANDSHAKE),
        ("initialize", D_, None, "live", False, Way.HANDSHAKE),
        ("initialize", E_, None, "unknown", False, Way.HANDSHAKE),
        ("initialize", E_, None, "unknown", True, Way.UNKNOWN_SESSION),
        ("initialize", E_, None, "", True, Way.HANDSHAKE),
        ("initialize", D_, None, "live", True, Way.HANDSHAKE),
        ("initialize", E_, E_, "", False, Way.MODERN),
        ("initialize", None, E_, "", False, Way.MODERN),
        # a live session
        ("ping", None, None, "live", False, Way.SESSION),
        ("ping", D_, None, "live", True, Way.SESSION),
        ("ping", E_, None, "live", False, Way.SESSION),
        ("ping", "v9", None, "live", False, Way.BAD_VERSION),
        (None, D_, None, "live", False, Way.SESSION),
        # a legacy header over a modern body
        ("ping", D_, E_, "live", False, Way.SESSION),
        ("ping", D_, E_, "", False, Way.MODERN_LENIENT),
        ("ping", D_, E_, "unknown", False, Way.MODERN_LENIENT),
        ("ping", D_, E_, "live", True, Way.MODERN),
        ("ping", D_, E_, "", True, Way.MODERN),
        ("ping", D_, "v9", "", False, Way.MODERN),
        # modern
        ("ping", E_, E_, "live", False, Way.MODERN),
        ("ping", E_, E_, "", False, Way.MODERN),
        ("ping", None, E_, "", False, Way.MODERN),
        ("ping", E_, None, "", False, Way.MODERN),
        ("ping", "v9", None, "unknown", False, Way.MODERN),
        ("ping", "", None, "", False, Way.MODERN),
        ("ping", D_, 5, "", False, Way.MODERN),
        # neither
        ("ping", None, None, "unknown", False, Way.UNKNOWN_SESSION),
        ("ping", D_, None, "unknown", False, Way.UNKNOWN_SESSION),
        ("ping", None, None, "", False, Way.NO_SESSION),
        ("ping", D_, None, "", True, Way.NO_SESSION),
        (None, None, None, "", False, Way.NO_SESSION),
    ],
)
def test_a_request_has_one_way(
    method: object, header: str | None, meta: object, session: str, strict: bool, way: Way
) -> None:
    assert (
        classify(
            method=method,
            header=header,
            meta_version=meta,
            session=D if session == "live" else None,
            session_given=session != "",
            quirks=tolerated(ServerSettings(strict=strict)),
        )
        is way
    )


@pytest.mark.parametrize("revision", [A, B, C, D])
@pytest.mark.parametrize("header", [None, *VERSIONS, "v9", ""])
@pytest.mark.parametrize("strict", [False, True])
def test_in_a_session_the_version_header_has_to_fit(revision: int, header: str | None, strict: bool) -> None:
    """Before C the header was not defined: nothing is demanded of it, but to be a version."""
    fits = header is None or header in VERSIONS
    if strict and revision >= C:
        fits = header == VERSIONS[revision]
    way = classify(
        method="ping",
        header=header,
        meta_version=None,
        session=revision,
        session_given=True,
        quirks=tolerated(ServerSettings(strict=strict)),
    )
    assert way is (Way.SESSION if fits else Way.BAD_VERSION)


def test_negotiation_keeps_what_is_known_and_offers_the_newest_else() -> None:
    assert [negotiate(name) for name in ("2024-11-05", "2025-03-26", "2025-06-18", D_, E_, "", "x")] == [
        A,
        B,
        C,
        D,
        D,
        D,
        D,
    ]
