"""Where a trial keeps its files."""

from __future__ import annotations

from pathlib import Path


def trial_folder(storage: str | Path, key: str) -> Path:
    """Where a trial keeps its files: two levels, so that no folder holds tens of thousands."""
    return Path(storage) / "trials" / key[:2] / key
