# SPDX-License-Identifier: AGPL-3.0-or-later
"""Faults on purpose, against a running tree, under load, with a check of what was promised. See docs/chaos.md.

A client of the tree, run by the command line: `schedule` says which fault comes when (pure, from a seed), `load` calls
tools all the while, `nemesis` injects, `checker` looks at the history of all calls afterwards (pure). Only `enabling`
runs in the root.
"""
