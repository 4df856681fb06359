# SPDX-License-Identifier: AGPL-3.0-or-later
"""How the two sides of a stream agree on a protocol."""

from __future__ import annotations

from typing import Any

from actors.p2p.peer_registry.hardening.limits import MOST_NAME


def bound_names() -> None:
    """B1: three bytes that are no text end the whole host, and a name of any announced length is read. Closed by a
    length limit, and by one kind of error for whatever is wrong with a name.
    """
    from libp2p.protocol_muxer.exceptions import MultiselectCommunicatorError
    from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
    from libp2p.utils.varint import read_varint_prefixed_bytes_limited

    async def read(communicator: Any) -> str:  # noqa: ANN401
        try:
            line: bytes = await read_varint_prefixed_bytes_limited(communicator.read_writer, MOST_NAME)
            if not line.endswith(b"\n"):
                raise ValueError("no line end")
            return line[:-1].decode()
        except Exception as error:
            raise MultiselectCommunicatorError("no protocol name came") from error

    MultiselectCommunicator.read = read
