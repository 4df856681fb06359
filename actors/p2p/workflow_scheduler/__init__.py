# SPDX-License-Identifier: AGPL-3.0-or-later
"""The workflow scheduler: graphs of tool calls, run through the task queue (`docs/workflows.md`)."""
