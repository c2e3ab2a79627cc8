"""Tells which code runs: git commit, uncommitted changes, versions of the packages that figures depend on."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path

PACKAGES = ("orchestrator", "ray", "optuna", "torch", "torchvision", "timm", "mlflow", "pydantic", "sqlalchemy")


def git() -> tuple[str | None, bool | None]:
    """Commit of the checkout that this code runs from, and True if tracked files in it differ from that commit.

    (None, None) without a checkout or without git.
    """
    folder = Path(__file__).parent
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return commit, bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=20, check=True)
    return done.stdout.strip()


def versions() -> dict[str, str]:
    """Installed versions of Python and of PACKAGES; "absent" for a package that is not installed."""
    installed = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed[name] = "absent"
    return installed
