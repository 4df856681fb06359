# SPDX-License-Identifier: AGPL-3.0-or-later
"""Services between nodes: each an actor, under the runtime tag `p2p`."""
