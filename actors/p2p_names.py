# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which actor answers which P2P tool, also while that actor is off: such a call is unavailable, not unknown."""

from __future__ import annotations

P2P_TOOLS = {"peer_id": "peer_registry"}
"""Tool name -> actor name."""
