# SPDX-License-Identifier: AGPL-3.0-or-later
"""The task queue for older nodes: the protocol `/ipfs-datasets/task-queue/1.0.0`, both sides of it."""
