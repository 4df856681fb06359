# SPDX-License-Identifier: AGPL-3.0-or-later
"""What several benchmarks need: process trees, the load generator, the MCP request that is measured."""
