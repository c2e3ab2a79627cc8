"""`describe TRIAL --parameters`: the optimizer's table of a recorded trial, and what is said where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_job import run

from orchestrator.cli.parameter_groups import built, table
from orchestrator.errors import OrchestratorError
from orchestrator.records.rows import JobRecord, Placement
from orchestrator.store.store import Store, open_store
from workers.trial import TrialSpec

SWIN = {
    "model": "swinv2_base_window12_192",
    "args": {"embed_dim": 16, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 4, 8], "window_size": 4},
    "image_size": 64,
}
OPTIM = {"lr": 1e-3, "batch": 16, "epochs": 4, "warmup_epochs": 1, "layer_decay": 0.5, "layer_decay_scheme": "swin26"}


def trial(**optim: Any) -> TrialSpec:
    return TrialSpec.model_validate(
        {"task": {"kind": "classify", "dataset": "digits"}, "backbone": SWIN, "optim": {**OPTIM, **optim}}
    )


def recorded(folder: Path, specs: list[dict[str, Any]]) -> Store:
    """A store with a job of these trials, none of which has run; their keys are a, b, ... 64 times."""
    store = open_store(f"sqlite:///{folder / 'store.db'}")
    store.jobs.put(
        JobRecord(
            id="one-1", name="one", profile="", spec={}, spec_text=""
        )
    )  # fmt: skip
    store.jobs.put_stages("one-1", [("only", 0, {})])
    store.trials.place(
        "one-1",
        [
            Placement(
                stage="only", group="", group_values={}, key=letter * 64, spec=spec, settings={}, name=f"only#{letter}",
                position=n, metric="top1", mode="max", seed=0, epochs=4,
            )
            for n, (letter, spec) in enumerate(zip("abc", specs, strict=False))
        ],
    )  # fmt: skip
    return store


def test_the_table_as_it_is_typed(tmp_path: Path) -> None:
    recorded(tmp_path, [trial().model_dump(mode="json")]).close()
    said = run("describe", "aaaa", "--parameters", "--runs", tmp_path)
    assert said.returncode == 0, said.stderr
    lines = said.stdout.splitlines()
    assert lines[1] == "layer decay 0.5, levels by swin26: 7 learning rates"  # 5 blocks, input, head
    assert lines[2] == "adamw, weight decay 0.05, exemptions by timm"
    assert any(line.split()[:3] == ["0.01562", "1.563e-05", "0.05"] and "patch_embed.proj.weight" in line
               for line in lines)  # fmt: skip


def test_every_parameter_is_in_one_group(tmp_path: Path) -> None:
    store = recorded(tmp_path, [trial().model_dump(mode="json")])
    data = table(store, "a" * 64).to_json()
    store.close()
    model = built(trial())
    every = [name for group in data["groups"] for name in group["names"]]
    assert sorted(every) == sorted(name for name, _ in model.named_parameters())
    assert sum(group["parameters"] for group in data["groups"]) == sum(p.numel() for p in model.parameters())
    (head,) = [group for group in data["groups"] if "head.fc.weight" in group["names"]]
    assert (head["lr_scale"], head["lr"], head["weight_decay"], head["tensors"]) == (1, 1e-3, 0.05, 1)


def test_what_cannot_be_shown_is_said(tmp_path: Path) -> None:
    other = trial().model_dump(mode="json")
    other["optim"]["dampening"] = 0.9
    unfit = trial(layer_decay_scheme="timm").model_dump(mode="json")
    unfit["backbone"]["args"]["depths"] = "many"
    store = recorded(tmp_path, [other, unfit])
    with pytest.raises(OrchestratorError, match=r"(?s)other specs.*optim.dampening"):
        table(store, "a" * 64)
    with pytest.raises(OrchestratorError, match=r"trial bbbbbbbbbbbb: .*swinv2_base_window12_192"):
        table(store, "b" * 64)
    store.close()


def test_the_model_has_shapes_alone() -> None:
    assert {parameter.device.type for parameter in built(trial()).parameters()} == {"meta"}
    assert torch.zeros(1).device.type == "cpu"
