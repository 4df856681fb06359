# SPDX-License-Identifier: AGPL-3.0-or-later
"""What one connection sends, from first to last."""

from __future__ import annotations

from random import Random

import msgspec

from fuzz import forms

ENDS = ["close", "close", "close", "half_close", "reset", "reset_early"]


class Script(msgspec.Struct, frozen=True):
    """Steps one after the other, each after the answer to the one before; then the end."""

    number: int
    steps: list[forms.Step]
    end: str
    """`close`; `half_close`: say that nothing more comes, and read to the end; `reset`: with a RST; `reset_early`: the
    same, without waiting for the last step's answer."""

    @property
    def requests(self) -> int:
        """How many are sent."""
        return sum(step.requests for step in self.steps)


def script(seed: int, number: int) -> Script:
    """The script of this number: the same for the same seed, always."""
    rng = Random(f"{seed}-{number}")
    steps = []
    for _ in range(rng.choice([1, 2, 4, 8, 12])):
        kind = rng.random()
        if kind < 0.80:
            steps.append(forms.mcp(rng))
        elif kind < 0.88:
            steps.append(forms.rest(rng))
        elif kind < 0.93:
            steps.append(forms.session_verb(rng))
        else:
            steps.append(forms.pipelined(rng))
    if rng.random() < 0.45:
        steps.append(forms.cut_off(rng) if rng.random() < 0.3 else forms.unsound(rng))
    return Script(number, steps, rng.choice(ENDS))
