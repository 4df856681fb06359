# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the record of running calls and the check against the quarantine cost one call: microseconds of one core.

    ./dev bench guard

Median of repeated rounds, over calls of an echo with a short text; `nothing refused` is the usual case.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path

import msgspec

from actors.flight import FlightRecorder
from actors.messages import Marks, QuarantinedCall
from actors.tool_messages import ToolCall
from actors.tools.guard import CallGuard

ROUNDS, CALLS = 21, 2000
Arguments = msgspec.defstruct("Arguments", [("text", str)], frozen=True, gc=False, kw_only=True)


def per_call_us(guard: CallGuard, text: str) -> float:
    """Microseconds for the begin and the end of one call."""
    call = ToolCall(name="echo", arguments=msgspec.json.encode({"text": text}), call_id="12-345678")
    arguments = Arguments(text=text)
    took = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(CALLS):
            guard.end(guard.begin(call.name, call, arguments), answered=True)
        took.append((time.perf_counter() - began) / CALLS * 1e6)
    return round(statistics.median(took), 2)


def main() -> None:
    """Print one JSON object."""
    with tempfile.TemporaryDirectory() as folder:
        guard = CallGuard(FlightRecorder.create(Path(folder) / "1.flight", 256), b"k" * 32, lambda _: None)
        found = {"nothing refused": per_call_us(guard, "hello"), "64 KiB of text": per_call_us(guard, "x" * 65536)}
        digests = [f"{number:032x}" for number in range(1000)]
        marks = Marks(
            watched=digests,
            quarantined=[
                QuarantinedCall(id=one[:12], digest=one, tool="divide", deaths=2, last_at="", cause="")
                for one in digests
            ],
        )
        guard.take(marks)
        found["1000 calls refused, 1000 watched"] = per_call_us(guard, "hello")
    print(json.dumps({"microseconds_per_call": found}))


if __name__ == "__main__":
    main()
