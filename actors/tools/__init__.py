# SPDX-License-Identifier: AGPL-3.0-or-later
"""The tools: the pool actor, the loader, how a tool is run, and one folder per category with one file per tool."""
