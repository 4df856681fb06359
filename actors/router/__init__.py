# SPDX-License-Identifier: AGPL-3.0-or-later
"""The router: what tools there are, where they run, and how many calls of each may run at once."""
