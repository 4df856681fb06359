# SPDX-License-Identifier: AGPL-3.0-or-later
"""The kinds of values in the configuration, with their bounds."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

Port = Annotated[int, Meta(ge=0, le=65535)]
Processes = Annotated[int, Meta(ge=1, le=256)]
Spares = Annotated[int, Meta(ge=0, le=16)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Seconds = Annotated[float, Meta(ge=0.001, le=31_536_000)]
"""From a millisecond to a year; neither infinity nor "not a number" can be sent to an actor."""
Size = Annotated[int, Meta(ge=1024, le=1024**3)]
"""Bytes of one thing that is held in memory."""
Limit = Annotated[int, Meta(ge=1, le=2**62)]
"""A resource limit of the operating system, in its own unit."""
