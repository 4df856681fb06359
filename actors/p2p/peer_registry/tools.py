# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tools about peers."""

from __future__ import annotations

import msgspec

from actors.p2p.identity import load_or_create_key
from actors.p2p.identity import peer_id as peer_id_of
from actors.toolkit import ToolContext, tool


class Identity(msgspec.Struct):
    """Who this node is."""

    peer_id: str
    """libp2p peer id."""
    key_type: str


@tool(read_only=True, idempotent=True, open_world=False)
def peer_id(ctx: ToolContext) -> Identity:
    """The identity of this node in the peer-to-peer network."""
    return Identity(peer_id=peer_id_of(load_or_create_key(ctx.data_dir)), key_type="ed25519")
