# SPDX-License-Identifier: AGPL-3.0-or-later
<<<<<<< HEAD
"""The workflow scheduler: graphs of tool calls, run through the task queue (`docs/workflows.md`)."""
=======
"""The workflow scheduler: workflows of tool calls, named by their content, run through the task queue."""
>>>>>>> event-clock
