"""benchmarks/gpu.py --small: every part on the CPU, with no package but those that it says it needs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.parts import PARTS

ROOT = Path(__file__).parents[2]
ENTRY = ROOT / "benchmarks" / "gpu.py"
BLOCKED = (
    "ray",
    "mlflow",
    "sqlalchemy",
    "alembic",
    "optuna",
    "scipy",
    "sklearn",
    "skimage",
    "pandas",
    "torchmetrics",
    "faster_coco_eval",
)
BLOCKER = """
import sys

class Without:
    # as if nothing were installed under these names: nothing is found, and an import raises ModuleNotFoundError
    def __init__(self, finder):
        self._finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {blocked!r} else self._finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self._finder, name)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""
LOADS = {
    "SimMIM SwinV2-B, 192", "SimMIM SwinV2-L, 192", "SimMIM ViT-B, 224", "SimMIM RepLKNet-31B, 192",
    "fine-tune SwinV2-B, 224",
}  # fmt: skip


def without(folder: Path, *blocked: str) -> dict[str, str]:
    """An environment in which no Python process can import these packages."""
    (folder / "sitecustomize.py").write_text(BLOCKER.format(blocked=blocked))
    return {**os.environ, "PYTHONPATH": str(folder)}


@pytest.mark.timeout(1000)
def test_every_part_runs_small_without_the_packages_of_the_service(tmp_path: Path) -> None:
    environment, out = without(tmp_path, *BLOCKED), tmp_path / "results" / "gpu.json"
    for package in BLOCKED:
        imported = subprocess.run([sys.executable, "-c", f"import {package}"], env=environment, capture_output=True)
        assert b"ModuleNotFoundError" in imported.stderr
    done = subprocess.run(
        [sys.executable, str(ENTRY), "--small", "--budget", "900", "--out", str(out)],
        capture_output=True, text=True, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(out.read_text())
    assert (result["small"], result["device"], result["budget_s"]) == (True, "cpu", 900)
    assert {"python", "torch", "torchvision", "timm", "numpy"} <= set(result["versions"])
    assert {"cpu", "cores"} <= set(result["machine"])
    rows = {row["name"]: row for row in result["rows"]}
    assert len(rows) == len(result["rows"])
    assert {(row["part"], row["check"]) for row in rows.values()} == {
        (part.name, check.name) for part in PARTS for check in part.checks
    }
    states: dict[str, set[str]] = {"correctness": {"passed"}, "speed": {"measured"}, "many": {"measured"}}
    states["dense"] = {"passed", "measured"}
    without_scipy = rows.pop("mask2former")
    assert (without_scipy["state"], "scipy" in without_scipy["note"].lower()) == ("not run", True)
    for row in rows.values():
        assert row["state"] in states[row["part"]], row
        assert row["name"] in done.stdout
    _is_correct({name: row["figures"] for name, row in rows.items()})
    _is_timed({name: row["figures"] for name, row in rows.items()})
    _is_dense({name: row["figures"] for name, row in rows.items()})


def _is_correct(figures: dict[str, dict[str, Any]]) -> None:
    """Tighter than the script's own bounds, which are a GPU's."""
    for family in ("SwinV2", "Swin", "BEiT", "ViT", "RepLKNet"):
        apart = figures[f"fp32 against float64: {family}"]
        assert 0 < apart["forward cpu"] < 5e-5
        assert 0 < apart["gradients cpu"] < 5e-4
    assert 0 < figures["accumulation of 4 against one batch"]["weights apart"] < 1e-4
    assert figures["channels-last against not"]["weights apart"] < 1e-4
    assert figures["compiled against not"]["weights apart"] < 1e-3  # twenty steps, with drop path
    assert figures["compiled, resumed"]["weights apart"] < 1e-4
    assert figures["SimMIM SwinV2-B, 192: compiled, CUDA graphs"]["loss apart"] < 1e-4
    for name in ("DDP of one process", "FSDP2 of one process"):
        assert figures[name]["weights apart"] < 1e-5
        assert figures[name]["optimizer loads again"]
    memory = figures["out of memory at the whole batch"]
    assert (memory["micro-batch"], memory["same bits"], memory["weights apart"]) == (16, True, 0)
    curves = figures["loss in bf16 against fp32"]
    assert 0 < curves["most apart"] < 0.01  # 0: it was no bf16
    assert curves["another seed: most apart"] > curves["most apart"]
    assert curves["to"] < 0.95 * curves["fp32 from"]
    for name in ("resumed after SIGKILL, at will", "resumed after SIGKILL, deterministic"):
        assert (figures[name]["same bits"], figures[name]["resumed at step"]) == (True, 10)


def _is_timed(figures: dict[str, dict[str, Any]]) -> None:
    for name in LOADS:
        assert figures[name]["images/s"] > 0
        assert figures[name]["ratio"] == pytest.approx(
            figures[name]["images/s"] / figures[name]["plain images/s"], rel=1e-3
        )
    plain = figures["SimMIM SwinV2-B, 192"]["plain images/s"]
    variants = [name for name in figures if name.startswith("SimMIM SwinV2-B, 192: ")]
    assert len(variants) == 5
    for name in variants:
        assert figures[name]["ratio"] == pytest.approx(figures[name]["images/s"] / plain, rel=1e-3)
    assert {"fused ms", "foreach ms", "ratio"} <= set(figures["AdamW over SwinV2-B"])
    alone, two = figures["1 trial alone"], figures["2 trials at once"]
    assert alone["gain"] == 1
    assert two["gain"] == pytest.approx(two["images/s"] / alone["images/s"], rel=1e-3)


def _is_dense(figures: dict[str, dict[str, Any]]) -> None:
    for task in ("detection", "upernet"):
        assert figures[f"fp32 against {'the CPU' if task == 'detection' else 'float64'}: {task}"]["gradients"] < 1e-4
        assert any(row["images/s"] > 0 for name, row in figures.items() if name.startswith(f"{task} "))
    for task in ("pose", "depth", "tracking"):
        apart = figures[f"fp32 against float64: {task}"]
        assert apart["loss"] < 1e-6
        assert 0 < apart["gradients"] < 1e-4
        assert apart["inputs"] == 0  # both were made on the CPU
        steps = [row for name, row in figures.items() if name.startswith(f"{task} ")]
        assert all(row["images/s"] > 0 and row["GFLOP an image"] > 0 for row in steps)
    seen = figures["kernels of SimMIM SwinV2-B, 192"]
    assert 0 < seen["busy"] <= 1
    assert sum(seen[kind] for kind in seen if not kind.startswith(("step", "busy", "kernels", "mean"))) == (
        pytest.approx(1, abs=1e-3)
    )
    assert len(figures["longest kernels of SimMIM SwinV2-B, 192"]) == 12


def test_a_package_that_is_missing_is_named(tmp_path: Path) -> None:
    command = [sys.executable, str(ENTRY), "--small", "--out", str(tmp_path / "out.json")]
    done = subprocess.run(command, capture_output=True, text=True, env=without(tmp_path, "timm", "safetensors"))
    assert done.returncode == 2
    for package in ("timm", "safetensors"):
        assert f"{package} is not installed: {package}" in done.stderr
    assert "torch" not in done.stderr
    assert not (tmp_path / "out.json").exists()


def test_without_the_rest_of_the_project_it_says_so(tmp_path: Path) -> None:
    shutil.copytree(ENTRY.parent, tmp_path / "benchmarks", ignore=shutil.ignore_patterns("results", "__pycache__"))
    elsewhere = tmp_path / "benchmarks" / "gpu.py"
    environment = without(tmp_path, "workers", "tasks")  # which an installed project would still bring
    done = subprocess.run([sys.executable, str(elsewhere), "--small"], capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    for folder in ("workers", "tasks"):
        assert f"no folder {folder}/ beside benchmarks/" in done.stderr
