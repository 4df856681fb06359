# SPDX-License-Identifier: AGPL-3.0-or-later
"""What libp2p says to the log: almost nothing, since strangers decide how often it says it."""

from __future__ import annotations

import logging


def quiet_loggers() -> None:
    """B30: importing libp2p takes its logger's handlers away, connections log to the root logger (which then writes to
    stderr), and some errors are logged per frame. Closed by a level that lets nothing through and a logger of their own
    for connections.
    """
    from libp2p.network.connection import swarm_connection

    logging.getLogger("libp2p").setLevel(logging.CRITICAL)
    for name in list(logging.root.manager.loggerDict):
        # Some modules set a level for themselves, which would win.
        if name.startswith("libp2p."):
            logging.getLogger(name).setLevel(logging.NOTSET)
    swarm_connection.logging = logging.getLogger("libp2p.network.connection")
