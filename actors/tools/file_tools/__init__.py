# SPDX-License-Identifier: AGPL-3.0-or-later
"""Files below the configured roots: what they are, and their digests."""
