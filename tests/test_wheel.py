"""What `pip install .` brings: a wheel with the specs, templates, migrations, and the console script."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUILD = "from setuptools import build_meta; build_meta.build_wheel('wheel')"
PACKAGES = ("orchestrator", "workers", "tasks")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from a copy, so that nothing is left in the sources."""
    copy = tmp_path_factory.mktemp("wheel") / "project"
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in (*PACKAGES, "specs"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=unwanted)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    subprocess.run([sys.executable, "-c", BUILD], cwd=copy, check=True, capture_output=True)
    (built,) = (copy / "wheel").glob("*.whl")
    return zipfile.ZipFile(built)


def test_every_file_that_the_code_reads_is_in_it(wheel: zipfile.ZipFile) -> None:
    inside = set(wheel.namelist())
    sources = [path for name in PACKAGES for path in (ROOT / name).rglob("*.py")]
    for folder in ("report/templates", "store/migrations"):
        sources += (path for path in (ROOT / "orchestrator" / folder).rglob("*") if path.is_file())
    wanted = {path.relative_to(ROOT).as_posix() for path in sources if "__pycache__" not in path.parts}
    specs = [path for pattern in ("*.yaml", "*.json", "tables/*") for path in (ROOT / "specs").glob(pattern)]
    wanted |= {f"orchestrator/shipped/{path.relative_to(ROOT / 'specs').as_posix()}" for path in specs}
    assert len(specs) > 15
    assert wanted - inside == set()


def test_it_has_the_command_and_the_licence(wheel: zipfile.ZipFile) -> None:
    (scripts,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "orchestrator = orchestrator.__main__:run" in wheel.read(scripts).decode()
    (metadata,) = (name for name in wheel.namelist() if name.endswith("METADATA"))
    assert "License-Expression: MIT" in wheel.read(metadata).decode()
    assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())


def test_other_files_that_are_no_code_would_be_noticed(wheel: zipfile.ZipFile) -> None:
    """Each file below the packages that is no Python code is in the wheel: a new kind needs a line in pyproject."""
    tracked = subprocess.run(
        ["git", "ls-files", *PACKAGES], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()  # fmt: skip
    others = {name for name in tracked if not name.endswith(".py") and not (ROOT / name).is_dir()}
    assert others
    assert others - set(wheel.namelist()) == set()
