# SPDX-License-Identifier: AGPL-3.0-or-later
"""Stand-ins for two packages that libp2p imports and that are not installed.

`fastecdsa` has no Linux wheel and serves ECDSA keys and the secio channel only, `trio_typing` serves type checkers.
None of it is used here: whatever would need the real package raises `NotImplementedError`.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Generic, NoReturn, TypeVar

_T = TypeVar("_T")


class Curve:
    """A curve that nothing can be computed on."""


class Point:
    """A point of it."""


class SEC1Encoder:
    """Writes keys, were there any."""

    @staticmethod
    def encode_public_key(*_: object, **__: object) -> NoReturn:
        """Not there."""
        _missing()

    @staticmethod
    def decode_public_key(*_: object, **__: object) -> NoReturn:
        """Not there."""
        _missing()


class TaskStatus(Generic[_T]):
    """What type checkers are told of `trio.TaskStatus`."""


def _missing(*_: object, **__: object) -> NoReturn:
    raise NotImplementedError("fastecdsa is not installed: there are no ECDSA keys here")


def _same(function: Any) -> Any:  # noqa: ANN401
    return function


_MODULES: dict[str, dict[str, object]] = {
    "fastecdsa": {},
    "fastecdsa.curve": {"Curve": Curve, "P256": Curve()},
    "fastecdsa.keys": {"gen_private_key": _missing, "get_public_key": _missing},
    "fastecdsa.point": {"Point": Point},
    "fastecdsa.encoding": {},
    "fastecdsa.encoding.sec1": {"SEC1Encoder": SEC1Encoder},
    "fastecdsa.encoding.util": {"int_bytelen": _missing},
    "trio_typing": {"TaskStatus": TaskStatus, "takes_callable_and_args": _same},
}


def install() -> None:
    """Put them where `import` finds them, unless the package itself is there."""
    absent = {top for top in ("fastecdsa", "trio_typing") if top not in sys.modules and find_spec(top) is None}
    for name, content in _MODULES.items():
        if name.partition(".")[0] not in absent:
            continue
        module = ModuleType(name, "A stand-in: see actors/p2p/peer_registry/hardening/stand_ins.py.")
        module.__dict__.update(content)
        module.__path__ = []
        sys.modules[name] = module
        parent, _, last = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], last, module)
