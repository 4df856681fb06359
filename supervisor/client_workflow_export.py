# SPDX-License-Identifier: AGPL-3.0-or-later
"""The export of a workflow of a running tree, for the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec
import trio

from actors.channel import Channel
from actors.client import why_off
from actors.errors import MCPServerError, RuntimeUnavailableError
from actors.messages import State
from actors.workflow_messages import ExportWorkflow
from actors.workflow_report import MOST_EXPORT_BYTES
from supervisor.admin import open_admin, open_socket
from supervisor.client import ask_directory
from supervisor.rundir import find_running

_SCHEDULER: Final = "workflow_scheduler"
_EXPORT: Final = "workflows/export"
_EXPORT_TIMEOUT_S: Final = 600.0

_decode_piece = msgspec.msgpack.Decoder(bytes).decode


async def export(data_dir: Path, workflow_id: str) -> bytes:
    """The CAR file of a workflow. Raises `NotFoundError`, and `RuntimeUnavailableError` when there is no scheduler."""
    async with open_admin(find_running(data_dir)) as admin:
        directory = await ask_directory(admin)
    entries = [entry for entry in directory.entries if entry.name == _SCHEDULER]
    for entry in entries:
        if entry.state == State.READY:
            async with open_socket(entry.socket) as channel:
                return await read_export(channel, ExportWorkflow(workflow_id=workflow_id))
    raise RuntimeUnavailableError(why_off(_SCHEDULER, entries, "a workflow"))


async def read_export(channel: Channel, ask: ExportWorkflow, *, most_bytes: int = MOST_EXPORT_BYTES) -> bytes:
    """All pieces of an export, from the scheduler at the other end."""
    data = bytearray()
    with trio.CancelScope() as too_large:

        def on_item(body: msgspec.Raw) -> None:
            data.extend(_decode_piece(body))
            if len(data) > most_bytes:
                too_large.cancel()

        await channel.call(_EXPORT, ask, timeout_s=_EXPORT_TIMEOUT_S, on_item=on_item)
    if len(data) > most_bytes:
        raise MCPServerError(f"the export of {ask.workflow_id} is larger than {most_bytes} bytes")
    return bytes(data)
