"""`make install`: with uv where there is one, with pip elsewhere; the same packages at the same versions."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WHAT = "--constraint constraints.txt --editable '.[dev]'"


def commands(folder: Path, *variables: str, uv: bool) -> list[str]:
    """What `make install` would run with no other programs than make's own and, perhaps, uv in reach."""
    programs = folder / "bin"
    programs.mkdir()
    for name in ("sh", "make", "python3"):
        found = shutil.which(name)
        assert found is not None
        (programs / name).symlink_to(found)
    if uv:
        (programs / "uv").write_text("#!/bin/sh\nexit 1\n")
        (programs / "uv").chmod(0o755)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder / name)
    done = subprocess.run(
        ["make", "--dry-run", "install", *variables], cwd=folder, env={"PATH": str(programs)}, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    return [line for line in done.stdout.splitlines() if "venv" in line or "install " in line]


def test_uv_is_used_where_it_is(tmp_path: Path) -> None:
    venv, install, _ = commands(tmp_path, uv=True)
    uv = tmp_path / "bin" / "uv"
    assert venv == f"{uv} venv --quiet --allow-existing --seed --python python3 .venv"
    assert install == f"{uv} pip install --quiet --python .venv/bin/python {WHAT}"


@pytest.mark.parametrize(("variables", "uv"), [((), False), (("UV=",), True)], ids=["no uv", "not wanted"])
def test_pip_is_the_fallback(tmp_path: Path, variables: tuple[str, ...], uv: bool) -> None:
    venv, install, _ = commands(tmp_path, *variables, uv=uv)
    assert venv == "python3 -m venv .venv"
    assert install == f".venv/bin/python -m pip install --quiet --disable-pip-version-check {WHAT}"


def test_the_python_that_is_asked_for_is_taken(tmp_path: Path) -> None:
    venv, *_ = commands(tmp_path, "PYTHON=python3.12", uv=True)
    assert "--python python3.12 .venv" in venv


def test_every_target_is_listed_by_help() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, env=dict(os.environ), check=True, capture_output=True, text=True)
    listed = {line.split()[0] for line in done.stdout.splitlines()}
    assert {"install", "demo", "studies", "test", "check", "fmt", "ui"} <= listed
