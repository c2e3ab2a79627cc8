"""Lists timm's model names without importing timm, which would add seconds to every command."""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path

from tasks.spelling import nearest

_REGISTERED = re.compile(r"^@register_model\s*\ndef (\w+)\(", re.MULTILINE)


@cache
def timm_names() -> frozenset[str]:
    """Every name that timm.create_model takes (without pre-training tag), read from timm's source files and ours."""
    package = importlib.util.find_spec("timm")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("timm is not installed, though this project requires it")
    files = [*(Path(package.origin).parent / "models").glob("*.py"), Path(__file__).parent / "replknet.py"]
    return frozenset(name for file in files for name in _REGISTERED.findall(file.read_text(encoding="utf-8")))


def check_timm_name(name: str) -> str:
    """Returns `name` if timm has it, else raises ValueError with similar names. Any tag after a dot passes."""
    if name.partition(".")[0] in timm_names():
        return name
    near = nearest(name, sorted(timm_names()), count=3)
    hint = f"; nearest: {', '.join(near)}" if near else ""
    raise ValueError(f"no such timm model{hint} (all: timm.list_models())")
