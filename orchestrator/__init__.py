"""Decides what runs, where, and what it showed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

_ROOT = Path(__file__).parents[1]
_BESIDE = ("workers", "tasks")
"""Packages of this project with names that folders and files of users have, too."""


class _FindBeside:
    """Finds our packages beside this one, before a folder or file of that name where the user works."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        return PathFinder.find_spec(name, [str(_ROOT)]) if name in _BESIDE else None


for _name in _BESIDE:
    _loaded = sys.modules.get(_name)
    if _loaded is not None and str(_ROOT / _name) not in list(getattr(_loaded, "__path__", ())):
        raise ImportError(
            f"another module named {_name!r} is loaded ({getattr(_loaded, '__file__', None)}), which hides the package "
            f"{_ROOT / _name}: import orchestrator first, or rename the other one"
        )
if not any(finder is _FindBeside for finder in sys.meta_path):
    sys.meta_path.insert(0, _FindBeside)  # type: ignore[arg-type]
