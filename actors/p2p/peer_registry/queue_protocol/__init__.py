# SPDX-License-Identifier: AGPL-3.0-or-later
"""The task queue for older nodes: the protocol `/ipfs-datasets/task-queue/1.0.0`, both sides of it.

One request and one reply, each a JSON object on a line of its own, for each stream. The same requests come as calls of
the tool `task_queue.rpc` (`mcp/legacy.py`). Every request shows the shared secret; what a peer may do with it is given
from outside.

words, fields, names, rows      errors; values of requests; how peers are called in the queue; tasks as they are shown
sealed, clock, seen, cache      encrypted payloads, a clock that decides nothing, who was here, values kept for peers
reach                           the queue, and what a peer may do with it
tasks, work, beside             the operations: for who submits, for who works, all others
answering                       one request and its reply, whichever way they travel
lines, server, client           both sides of a stream
"""
