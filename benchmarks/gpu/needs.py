"""Says which packages that the benchmark needs are missing or too old, without importing any."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re

PACKAGES = {
    # name to import: (name to install, least version)
    "numpy": ("numpy", (1, 26)),
    "torch": ("torch", (2, 11)),
    "torchvision": ("torchvision", (0, 26)),
    "timm": ("timm", (1, 0, 22)),  # the first with calculate_drop_path_rates
    "pydantic": ("pydantic", (2, 12)),
    "safetensors": ("safetensors", (0, 5)),
    "PIL": ("pillow", (10,)),
    "workers": ("", ()),
    "tasks": ("", ()),
}
ON_CPU = {"psutil": ("psutil", (6,))}
"""For the memory of a process, which a GPU reports by itself."""


def missing(device: str) -> list[str]:
    """A line for each package that is not there or too old."""
    needed = {**PACKAGES, **({} if device.startswith("cuda") else ON_CPU)}
    lines = (_problem(module, package, least) for module, (package, least) in needed.items())
    return [line for line in lines if line]


def _problem(module: str, package: str, least: tuple[int, ...]) -> str | None:
    wanted = ".".join(map(str, least))
    try:
        there = importlib.util.find_spec(module) is not None
    except ImportError:
        there = False
    if not there and not package:
        return f"no folder {module}/ beside benchmarks/: take the whole project along"
    if not there:
        return f"{package} is not installed: {package} {wanted} or later is needed"
    version = importlib.metadata.version(package) if package else ""
    numbers = tuple(int(number) for number in re.findall(r"\d+", version.partition("+")[0])[: len(least)])
    return f"{package} is {version}: {wanted} or later is needed" if numbers < least else None
