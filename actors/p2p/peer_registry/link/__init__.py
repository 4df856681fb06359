# SPDX-License-Identifier: AGPL-3.0-or-later
"""Protocol `/greenroom/link/1.0.0`: one long-lived stream between two nodes, with many calls in flight.

From the bottom up: `rules` (limits), `reasons` (why a link ends), `frames` (bytes), `messages` (what is said), `hello`
(who speaks), `outgoing`, `calls` and `serving` (the parts of a link), `link` (one link), `links` (all of this node).
"""
