# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tools that show whether the system works."""
