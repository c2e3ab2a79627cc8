"""Detection on two workers: they measure what one does, and train on what each of them samples by itself."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from object_trees import described, detection_trial, shared_tree
from tiny_task import run

from tasks.base import DataContext
from workers.trial import TrialSpec

LEARNT = 14
"""Images of train with an object."""


def trial(name: str, tree: str, workers: int = 2) -> TrialSpec:
    """`measured`: the weights as drawn; `trained`: one step that learns nothing."""
    optim = {"epochs": 0} if name == "measured" else {"lr": 1e-30, "min_lr": 0, "weight_decay": 0, "batch": LEARNT}
    made = detection_trial(described(dataset={"kind": "coco", "path": tree}), optim=optim)
    return made.model_copy(update={"batch_workers": workers if name == "trained" else 1})


def on_two_ranks(rank: int, folder: str, tree: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    for name in ("measured", "trained"):
        outcome, reports = run(trial(name, tree), Path(folder) / name, rank=rank, world=2)
        if rank == 0:
            said = {"figures": dict(outcome.figures), "values": dict(reports[0].values)}
            (Path(folder) / f"{name}.json").write_text(json.dumps(said))
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # see tests/workers/test_distributed.py


def test_two_ranks_measure_what_one_does_and_their_losses_are_the_means_of_both(tmp_path: Path) -> None:
    tree = str(shared_tree())
    torch.multiprocessing.spawn(on_two_ranks, (str(tmp_path), tree), nprocs=2)
    alone, _ = run(trial("measured", tree), tmp_path / "alone")
    two = json.loads((tmp_path / "measured.json").read_text())
    assert two["figures"] == dict(alone.figures)
    spec = trial("trained", tree)
    single, (report,) = run(trial("trained", tree, 1), tmp_path / "single")
    values = json.loads((tmp_path / "trained.json").read_text())["values"]
    # of these terms every image has as many samples, wherever it is trained on: the mean over both is that of one
    for name in ("train_rpn_class", "train_rpn_box"):
        assert values[name] == pytest.approx(report.values[name], rel=1e-5)
    shares = [spec.task.loaders(DataContext(tmp_path, (64, 64), "cpu", 0, LEARNT, rank, 2)).epoch(0) for rank in (0, 1)]
    seeds = [seed for share in shares for batch in share for seed in batch["seeds"]]
    assert len(set(seeds)) == LEARNT
    assert spec.key != trial("trained", tree, 1).key
    assert single.facts["steps"] == 1
