# SPDX-License-Identifier: AGPL-3.0-or-later
"""The root: it starts, watches, restarts and stops every other process, and does nothing else.

spec            what a child is: plain values
core            decisions: events in, commands out; no clock, no I/O
spawn           what a way of starting processes must offer; spawn_tractor is the real one, spawn_fake the tests'
runtime         carries the core's commands out
tree            the production tree
config, cli     where settings come from; what a person types
"""
