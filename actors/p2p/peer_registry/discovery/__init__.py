# SPDX-License-Identifier: AGPL-3.0-or-later
"""Ways for nodes to find each other, besides the nodes that are configured to begin with and the peers that other nodes
tell of. Each is off until it is switched on."""
