# SPDX-License-Identifier: AGPL-3.0-or-later
"""Does the tasks of the queue whose type is the name of a tool."""
