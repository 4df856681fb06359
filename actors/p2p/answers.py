# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the tools of all P2P actors answer with."""

from __future__ import annotations

from typing import Any, NoReturn

import msgspec

from actors.errors import from_info
from actors.messages import ErrorInfo


class Done(msgspec.Struct, kw_only=True):
    """What each tool answers at least; a failed call is an error with a code instead."""

    success: bool = True


def refuse(code: str, message: str, **details: Any) -> NoReturn:  # noqa: ANN401 - JSON
    """Raise the error with this code."""
    raise from_info(ErrorInfo(code=code, message=message, details=details))
