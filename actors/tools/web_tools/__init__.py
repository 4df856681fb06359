# SPDX-License-Identifier: AGPL-3.0-or-later
"""Fetching from the network, with care for where it goes."""
