"""The only place that says which code this is: git commit, uncommitted changes, versions of what numbers depend on."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path

PACKAGES = ("orchestrator", "ray", "optuna", "torch", "torchvision", "timm", "mlflow", "pydantic", "sqlalchemy")


def git() -> tuple[str | None, bool | None]:
    """Commit of the checkout this code runs from, and whether files in it differ from that commit.

    (None, None) where there is no checkout or no git.
    """
    here = Path(__file__).parent
    try:
        commit = _git(here, "rev-parse", "HEAD")
        return commit, bool(_git(here, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=20, check=True)
    return done.stdout.strip()


def versions() -> dict[str, str]:
    """Installed versions, and Python's."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found
