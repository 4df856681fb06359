# SPDX-License-Identifier: AGPL-3.0-or-later
"""The peer registry: who this node is, and which others it knows."""
