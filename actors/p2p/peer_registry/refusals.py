# SPDX-License-Identifier: AGPL-3.0-or-later
"""How often somebody asks for what it may not have. Mistakes are forgiven with time; whoever goes on is found out.
Pure; times are seconds of any clock."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

MOST_SUBJECTS: Final = 10_000
"""That are remembered; whoever was refused longest ago goes first."""


class Refusals:
    """See the module's text."""

    def __init__(self, most: int, forgive_s: float, *, subjects: int = MOST_SUBJECTS) -> None:
        """Of `most` at once, one is forgiven every `forgive_s` seconds."""
        self._most = most
        self._forgive_s = forgive_s
        self._subjects = subjects
        self._known: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """How many were not forgiven, and when that was so."""

    def __len__(self) -> int:
        return len(self._known)

    def add(self, subject: str, now: float) -> bool:
        """One more. True = one too many: it is forgotten, since something is done about it."""
        count, at = self._known.pop(subject, (0.0, now))
        count = max(0.0, count - max(0.0, now - at) / self._forgive_s) + 1.0
        if count > self._most:
            return True
        self._known[subject] = (count, max(at, now))
        if len(self._known) > self._subjects:
            self._known.popitem(last=False)
        return False
