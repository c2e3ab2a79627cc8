"""The layout of trials' files in the storage folder."""

from __future__ import annotations

from pathlib import Path

from orchestrator.paths import inside


def trial_folder(storage: str | Path, key: str) -> Path:
    """The folder of a trial's files: storage/trials/KE/KEY, so that no folder holds tens of thousands of others."""
    return inside(Path(storage) / "trials", key[:2], key)
