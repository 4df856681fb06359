# SPDX-License-Identifier: AGPL-3.0-or-later
"""The durable task queue: tasks, leases and results in one file, owned by one process."""
