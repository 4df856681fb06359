# SPDX-License-Identifier: AGPL-3.0-or-later
"""What is wrong with a definition: all of it at once, for people and models that write workflows."""

from __future__ import annotations

from typing import Final

import msgspec

from actors.errors import InvalidArgumentsError

MAX_FAULTS: Final = 100
"""That are told; how many more there are is told, too."""
_IN_MESSAGE: Final = 5
_MAX_CHARS: Final = 1000


class Fault(msgspec.Struct, frozen=True):
    """One thing that is wrong."""

    step: str
    """Its id; empty when it is the workflow that is meant."""
    code: str
    """For programs, such as `UNKNOWN_TOOL`."""
    message: str


class Faults:
    """Gathers them."""

    def __init__(self) -> None:
        self.kept: list[Fault] = []
        self.total = 0

    def add(self, step: str, code: str, message: str) -> None:
        """One more."""
        self.total += 1
        if len(self.kept) < MAX_FAULTS:
            self.kept.append(Fault(step[:_MAX_CHARS], code, shortened(message, _MAX_CHARS)))

    def raise_any(self) -> None:
        """Raises `InvalidArgumentsError` when there is one: all in its details, the first few in its message."""
        if not self.total:
            return
        count = "a fault" if self.total == 1 else f"{self.total} faults"
        lines = [_line(fault) for fault in self.kept[:_IN_MESSAGE]]
        if self.total > len(lines):
            lines.append(f"and {self.total - len(lines)} more")
        raise InvalidArgumentsError(
            f"the workflow has {count}: " + "; ".join(lines),
            faults=[msgspec.to_builtins(fault) for fault in self.kept],
            more_faults=self.total - len(self.kept),
        )


def _line(fault: Fault) -> str:
    return f"step `{shortened(fault.step, 100)}`: {fault.message}" if fault.step else fault.message


def shortened(text: str, most: int) -> str:
    """The text, or what of it fits, with a mark."""
    # What can't be encoded could not be told.
    text = text.encode("utf-8", "replace").decode() if not text.isascii() else text
    return text if len(text) <= most else text[: most - 1] + "…"
