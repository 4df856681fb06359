# SPDX-License-Identifier: AGPL-3.0-or-later
"""Datasets: load, query with SQL, convert, save, list, describe and delete."""
