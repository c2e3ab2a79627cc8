"""Addresses and folders, from flags and the environment: store, tracking server, data, cluster."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """Addresses and folders of one installation. Precedence: flag, environment, default."""

    folder: Path
    """Everything is written here unless an address names another place (default: runs/)."""
    database_url: str
    tracking_uri: str
    data_root: Path
    storage: Path
    """Folder of checkpoints and weights; every node must have it under this path."""
    address: str | None
    """Address of a Ray cluster; None: the local one of `folder`, which is started if needed."""


def settings(
    folder: str | Path | None = None,
    database_url: str | None = None,
    tracking_uri: str | None = None,
    data_root: str | Path | None = None,
    storage: str | Path | None = None,
    address: str | None = None,
) -> Settings:
    """Takes what is not given from ORCHESTRATOR_RUNS, DATABASE_URL, MLFLOW_TRACKING_URI, DATA_ROOT,
    ORCHESTRATOR_STORAGE and RAY_ADDRESS, then from defaults under `folder`. Writes nothing."""
    env = os.environ
    home = Path(folder or env.get("ORCHESTRATOR_RUNS") or "runs").absolute()
    return Settings(
        folder=home,
        database_url=database_url or env.get("DATABASE_URL") or f"sqlite:///{home / 'store.db'}",
        tracking_uri=tracking_uri or env.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home / 'mlflow.db'}",
        data_root=Path(data_root or env.get("DATA_ROOT") or "data").absolute(),
        storage=Path(storage or env.get("ORCHESTRATOR_STORAGE") or home / "storage").absolute(),
        address=address or env.get("RAY_ADDRESS") or None,
    )


def private_folder(folder: Path) -> Path:
    """Makes the folder, if needed, for its owner alone; the rights of one that exists do not change."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
