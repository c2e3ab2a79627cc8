"""Mirrors jobs into MLflow."""

from orchestrator.tracking.mlflow_mirror import sync
from orchestrator.tracking.mlflow_runs import Synced
from orchestrator.tracking.process import MirrorProcess, follow

__all__ = ["MirrorProcess", "Synced", "follow", "sync"]
