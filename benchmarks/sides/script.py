"""A benchmark of two sides as a script: its options, a line for each part, and the file of its results."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

Row = dict[str, Any]
"""As `turns.row` makes it."""


@dataclass(frozen=True)
class Part:
    """What is measured, and the package of its peer where that is no dependency of ours."""

    rows: Callable[[argparse.Namespace], Iterable[Row]]
    peer: str | None = None


def about(packages: Iterable[str]) -> dict[str, Any]:
    """Date, machine and versions."""
    return {
        "date": date.today().isoformat(), "cpu": platform.machine(), "cores": os.cpu_count(), "device": "cpu",
        "load": round(os.getloadavg()[0], 1), "versions": {name: version(name) for name in packages},
    }  # fmt: skip


def line(row: Row) -> str:
    low, high = min(row["ratios"]), max(row["ratios"])
    memory = f"; {row['memory_mib']:.0f} and {row['other_memory_mib']:.0f} MiB" if "memory_mib" in row else ""
    return (
        f"{row['part']}: {row['what']}: ours {row['ours']:.2f}, {row['peer']} {row['other']:.2f}, ratio "
        f"{row['ratio']:.2f} ({low:.2f} to {high:.2f}; {row['aim']}){memory}"
    )


def run(
    script: Path, words: str, parts: Mapping[str, Part], counts: Mapping[str, tuple[int, str]], packages: Iterable[str]
) -> None:
    """`counts`: options that are numbers, with their defaults and help, besides `--rounds`. One thread."""
    parser = argparse.ArgumentParser(description=words, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(parts), default=list(parts))
    for name, (count, meaning) in {**counts, "rounds": (3, "turns of each side")}.items():
        parser.add_argument(f"--{name}", type=int, default=count, help=meaning)
    parser.add_argument("--out", type=Path, help=f"JSON file; default benchmarks/results/{script.stem}-DATE-cpu.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    machine = about(packages)
    print(json.dumps(machine))
    rows = []
    for name in options.parts:
        peer = parts[name].peer
        if peer and importlib.util.find_spec(peer) is None:
            print(f"{name}: left out, {peer} not installed: pip install '.[benchmarks]'")
            continue
        for row in parts[name].rows(options):
            rows.append(row)
            print(line(row), flush=True)
    file = options.out or script.parent / "results" / f"{script.stem}-{machine['date']}-cpu.json"
    asked = {name: value for name, value in vars(options).items() if name != "out"}
    content = {"script": f"benchmarks/{script.name}", **machine, "asked": asked, "rows": rows}
    file.write_text(json.dumps(content, indent=1) + "\n")
    print(file)
