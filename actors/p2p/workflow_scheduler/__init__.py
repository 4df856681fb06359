# SPDX-License-Identifier: AGPL-3.0-or-later
"""The workflow scheduler: graphs of tool calls, named by their content, run through the task queue."""
