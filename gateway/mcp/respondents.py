# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the two kinds of respondents (`rounds`, `requests`) have in common."""

from __future__ import annotations

import hashlib

from actors.messages import Question


def fingerprint(question: Question) -> bytes:
    """Tells two questions with the same key apart."""
    return hashlib.sha256(question.method.encode() + b"\n" + question.params).digest()[:12]
