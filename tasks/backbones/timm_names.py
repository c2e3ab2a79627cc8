"""The only place that knows timm's model names without importing timm, which would take seconds in every command."""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path

from tasks.spelling import nearest

_REGISTERED = re.compile(r"^@register_model\s*\ndef (\w+)\(", re.MULTILINE)


@cache
def timm_names() -> frozenset[str]:
    """Every name that timm.create_model takes (without pre-training tag), read from the installed source and ours."""
    found = importlib.util.find_spec("timm")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("timm is not installed, though this project requires it")
    files = [*(Path(found.origin).parent / "models").glob("*.py"), Path(__file__).parent / "replknet.py"]
    return frozenset(name for file in files for name in _REGISTERED.findall(file.read_text(encoding="utf-8")))


def check_timm_name(name: str) -> str:
    """`name`, when timm has it; a pre-training tag after a dot is left to timm. Raises ValueError with the nearest."""
    if name.partition(".")[0] in timm_names():
        return name
    near = nearest(name, sorted(timm_names()), count=3)
    hint = f"; nearest: {', '.join(near)}" if near else ""
    raise ValueError(f"no such timm model{hint} (all: timm.list_models())")
