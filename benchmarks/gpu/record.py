"""What was found: rows, the table that is printed, and the JSON file."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import re
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

VERSIONS = ("torch", "torchvision", "timm", "numpy", "pydantic", "safetensors", "triton")


class State(StrEnum):
    """How a check ended."""

    passed = "passed"
    failed = "FAILED"
    """It ran, and its figures are not as they should be."""
    measured = "measured"
    """There is nothing to pass."""
    broke = "BROKE"
    """An exception, or the end of its process."""
    stopped = "STOPPED"
    """It took more time than it had."""
    not_run = "not run"


UNSOUND = {State.failed, State.broke, State.stopped}


@dataclass
class Row:
    """One line of the table."""

    name: str
    state: State
    figures: dict[str, Any] = field(default_factory=dict)
    """Numbers, words and truth values by name."""
    aim: str = ""
    """What the figures should reach, in words."""
    note: str = ""
    against: str = ""
    """Name of the row whose plain loop this one's images/s are compared with."""
    part: str = ""
    check: str = ""
    seconds: float = 0.0
    """Of the whole check so far."""
    traceback: str = ""

    def plain(self) -> dict[str, Any]:
        return {**asdict(self), "figures": {name: _rounded(value) for name, value in self.figures.items()}}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Row:
        return cls(**{**plain, "state": State(plain["state"])})


@dataclass
class Result:
    device: str
    small: bool
    budget: float
    rows: list[Row] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    refused: str = ""
    """Why nothing could run."""
    date: str = field(default_factory=lambda: time.strftime("%Y-%m-%d"))

    @property
    def sound(self) -> bool:
        return not any(row.state in UNSOUND for row in self.rows)


def compare(rows: Sequence[Row]) -> None:
    """Fills in how many times the plain loop's images/s the rows have that were measured without one of their own."""
    plain = {row.name: row.figures.get("plain images/s") for row in rows}
    for row in rows:
        rate, other = row.figures.get("images/s"), plain.get(row.against)
        if rate and other and "ratio" not in row.figures:
            row.figures["ratio"] = rate / other


def table(result: Result) -> str:
    """Parts, rows and figures as text."""
    machine = ", ".join(f"{name} {value}" for name, value in result.machine.items())
    versions = ", ".join(f"{name} {version}" for name, version in installed().items())
    lines = ["", f"benchmarks/gpu.py{' --small' * result.small}, {result.date}, {result.device}", machine, versions]
    lines += ["tiny models: the figures of speed and many mean nothing"] * result.small
    width = max((len(row.name) for row in result.rows), default=0)
    for part in dict.fromkeys(row.part for row in result.rows):
        lines += ["", part]
        for row in (row for row in result.rows if row.part == part):
            words = [f"{name} {_shown(value)}" for name, value in row.figures.items()]
            words += [f"[{row.aim}]"] if row.aim else []
            words += [row.note] if row.note else []
            lines.append(f"  {row.name:{width}}  {row.state:8}  {', '.join(words)}".rstrip())
    counts = {state: sum(row.state == state for row in result.rows) for state in State}
    told = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    return "\n".join([*lines, "", f"{told}; {result.seconds:.0f} s of {result.budget:.0f} s"])


def write(result: Result, path: Path, root: Path) -> Path:
    """Everything as JSON."""
    content = {
        "script": "benchmarks/gpu.py",
        "date": result.date,
        "commit": commit(root),
        "small": result.small,
        "device": result.device,
        "budget_s": result.budget,
        "seconds": round(result.seconds, 1),
        "machine": result.machine,
        "versions": {"python": platform.python_version(), **installed()},
        "rows": [row.plain() for row in result.rows],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path


def default_path(result: Result, root: Path) -> Path:
    device = re.sub(r"[^a-z0-9]+", "-", str(result.machine.get("gpu", "cpu")).lower()).strip("-")
    small = "-small" * result.small
    return root / "benchmarks" / "results" / f"gpu-{result.date}-{device}{small}.json"


def installed() -> dict[str, str]:
    """Versions of what the figures depend on; a package that is not there has none."""
    versions = {}
    for name in VERSIONS:
        try:
            versions[name] = importlib.metadata.version(name)  # type: ignore[no-untyped-call]
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def commit(root: Path) -> str | None:
    """Of the project's folder; None where it is no clone."""
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def machine(device: str) -> dict[str, Any]:
    """What this runs on. Called in a child process, which has torch."""
    import torch

    cpu = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    about: dict[str, Any] = {
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
    }
    if not device.startswith("cuda"):
        return about
    properties = torch.cuda.get_device_properties(device)
    gpu = {
        "gpu": properties.name,
        "gpu_gib": round(properties.total_memory / 2**30, 1),
        "capability": f"{properties.major}.{properties.minor}",
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "driver": _driver(),
    }
    return {**gpu, **about}


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.split()[0]
    except (OSError, IndexError, subprocess.SubprocessError):
        return None


def _rounded(value: Any) -> Any:
    """Four digits; JSON has no word for what is not finite."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.4g}") if math.isfinite(value) else str(value)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
