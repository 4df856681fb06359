# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a victim needs, imported once: processes that are forked from it start at once. No patch is applied yet."""

from __future__ import annotations

from actors.p2p.peer_registry.hardening import stand_ins

stand_ins.install()

import libp2p  # noqa: E402, F401

from actors.p2p.peer_registry import host  # noqa: E402, F401
