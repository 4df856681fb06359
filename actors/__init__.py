# SPDX-License-Identifier: AGPL-3.0-or-later
"""Code that runs inside actor processes, and the vocabulary they speak.

Layers, each knowing only those before it:

    messages, errors, settings    plain values; no trio, nothing of ours
    channel                       frames between two processes
    base, client                  what every actor does; how calls find a tool
    toolkit                       all that a tool's author imports
    router, tools, p2p            the actors themselves
"""
