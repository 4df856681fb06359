# SPDX-License-Identifier: AGPL-3.0-or-later
"""Work that runs on other nodes: tasks of this node's queue are offered to peers, those of peers are run here."""
