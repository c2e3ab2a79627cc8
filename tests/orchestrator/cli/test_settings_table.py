"""The settings of studies, printed from their specs, are the paper's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from orchestrator.cli.settings_table import settings, settings_of
from orchestrator.report.training_settings import FIELDS
from tasks.classification.task import Classify

SPECS = Path(__file__).parents[3] / "specs"

TABLE_7 = {  # appendix E: CoG (1-5) and iNat18, per column
    ("cog", "RAND"): ("300", "1", "0.002", "0.05", "0.5"),
    ("inat18", "RAND"): ("300", "1", "0.004", "0.1", "0.5"),
    ("cog", "SUP"): ("100", "0.85", "0.0002", "0.05", "0.2"),
    ("inat18", "SUP"): ("100", "0.9", "0.0016", "0.1", "0.2"),
    ("cog", "MIM"): ("100", "0.8", "0.005", "0.05", "0.2"),
    ("inat18", "MIM"): ("100", "0.75", "0.016", "0.1", "0.2"),
}
PER_COLUMN = ("optim.epochs", "optim.layer_decay", "optim.lr", "optim.weight_decay", "backbone.drop_path")
COMMON = {
    "backbone.image_size": "224", "backbone.args.window_size": "14", "backbone.args.patch_size": "4",
    "optim.warmup_epochs": "20",
    "optim.batch": "2048", "optim.lr_convention": "absolute", "optim.eps": "1e-08", "optim.betas": "(0.9, 0.999)",
    "optim.schedule": "cosine", "optim.clip": "5", "task.augment.label_smoothing": "0.1",
    "task.augment.crop_scale": "(0.08, 1)", "task.augment.crop_ratio": "(0.75, 1.333)", "task.augment.flip": "0.5",
    "task.augment.color_jitter": "0.4", "task.augment.rand_augment": "rand-m9-mstd0.5-inc1",
    "task.augment.erasing": "0.25", "task.augment.mixup": "0.8", "task.augment.cutmix": "1",
}  # fmt: skip


@pytest.mark.parametrize("name", ["cog", "inat18"])
def test_the_specs_say_table_7(name: str) -> None:
    columns = {column.row: column for column in settings_of(SPECS / f"{name}.yaml", "table7")}
    assert list(columns) == ["RAND", "SUP", "MIM"]
    for row, column in columns.items():
        assert column.study == f"{name} (table7)"
        assert tuple(column.values[path] for path in PER_COLUMN) == TABLE_7[name, row]
        assert {path: column.values[path] for path in COMMON} == COMMON


def test_what_is_searched_is_told_as_a_range() -> None:
    found = {column.row: column.values for column in settings_of(SPECS / "k12_grid.yaml", "paper")}
    assert found["MIM"]["optim.lr"] == "0.000125 to 0.0025 (5 values)"
    assert found["MIM"]["optim.layer_decay"] == "0.75, 0.85, 0.95"
    assert found["MIM"]["backbone.drop_path"] == "0, 0.2"


def test_up_down_says_how_long_it_rises_and_other_schedules_that_they_do_not(tmp_path: Path) -> None:
    def told(**optim: object) -> tuple[str, str, str]:
        trial = {
            "task": {"kind": "classify", "dataset": "digits"}, "backbone": {"model": "resnet10t", "image_size": 32},
            "optim": {"lr": 1e-3, "batch": 40, "warmup_epochs": 0, **optim},
        }  # fmt: skip
        path = tmp_path / "x.yaml"
        path.write_text(yaml.safe_dump({"name": "x", "trial": trial, "stages": [{"name": "one"}]}))
        (column,) = settings_of(path, None)
        epochs, steps, power = (column.values[f"optim.up_{name}"] for name in ("epochs", "iterations", "power"))
        return epochs, steps, power

    assert told(schedule="up_down", epochs=25) == ("12", "–", "0.9")
    assert told(schedule="up_down", epochs=25, up_epochs=2.5, up_power=1) == ("2.5", "–", "1")
    assert told(epochs=25) == ("–", "–", "–")


def test_the_command_prints_a_table_or_json() -> None:
    files = [str(SPECS / name) for name in ("cog.yaml", "inat18.yaml")]
    table = CliRunner().invoke(settings, [*files, "--profile", "table7"]).output
    for name in (*FIELDS.values(), *Classify.setting_titles.values()):
        assert f"\n{name} " in table
    told = json.loads(CliRunner().invoke(settings, [*files, "--profile", "table7", "-o", "json"]).output)
    assert [(column["study"], column["row"]) for column in told][-1] == ("inat18 (table7)", "MIM")
