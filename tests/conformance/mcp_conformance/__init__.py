# SPDX-License-Identifier: AGPL-3.0-or-later
"""The official conformance suites against a running Greenroom: `./dev conformance`.

`suites` fetches them, `legs` runs them, `verdict` says what their checks mean, `__main__` is the command.
"""
