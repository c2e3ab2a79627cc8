"""On a cluster of two nodes: our code travels to both, and one that dies costs little and changes no number."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import plugin_files
import pytest
import yaml
from digits_trial import TRIAL, spec_file

from orchestrator.settings import settings
from workers.messages import Report
from workers.trial import TrialSpec


@pytest.fixture(scope="module")
def on_two_nodes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What tests/end_to_end/scripts/two_nodes.py said; `folder`: where it ran."""
    folder = tmp_path_factory.mktemp("nodes")
    grid = {"optim.lr": [1e-3, 2e-3, 3e-3, 4e-3]}
    plugin_files.write(folder, {"own_hits.py": plugin_files.METRICS})
    own = {"name": "grid", "sweep": {"grid": grid}, "override": {"task.plugin_metrics": ["hits"]}}
    small = spec_file(folder, name="small", plugins=["own_hits"], stages=[own])
    large = spec_file(folder, name="large", stages=[{"name": "only"}], resources={"workers": 2})
    large.write_text(yaml.safe_dump({**yaml.safe_load(large.read_text()), "trial": OVER_BOTH}))
    script = Path(__file__).parent / "scripts" / "two_nodes.py"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    run = subprocess.run(
        [sys.executable, str(script), str(folder / "runs"), str(small), str(large)],
        capture_output=True, text=True, timeout=540, check=False, env=environment,
        cwd=folder,  # not the checkout, which workers on this machine would import from
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    return {"folder": folder, **json.loads(run.stdout.strip().splitlines()[-1])}


OVER_BOTH: dict[str, Any] = {
    **TRIAL,
    "optim": {**TRIAL["optim"], "batch": 4, "epochs": 6, "eps": 1e-3},
    "runtime": {"checkpoint_epochs": 1},
}


@pytest.mark.timeout(600)  # the fixture may take so long on a busy machine
def test_the_code_travels_to_the_nodes_of_a_cluster(on_two_nodes: dict[str, Any]) -> None:
    said = on_two_nodes["small"]
    assert (said["state"], said["started"]) == ("done", 4)
    assert len({place["node"] for place in said["places"]}) == 2
    assert all("py_modules" in place["code"] for place in said["places"])


def test_a_plugin_travels_to_the_nodes_of_a_cluster(on_two_nodes: dict[str, Any]) -> None:
    """It lies in the driver's folder alone, and the job after it has none: its processes are others."""
    from orchestrator.store.store import open_store

    where = settings(folder=on_two_nodes["folder"] / "runs")
    with contextlib.closing(open_store(where.database_url)) as store:
        small, large = (store.trials.placed(store.jobs.find(name)) for name in ("small", "large"))
        figures = store.trials.figures([row.key for row in (*small, *large)])
        versions = [store.trials.get(row.key).versions for row in small]
    assert all(figures[row.key]["hits"] == figures[row.key]["top1"] for row in small)
    assert all(len(each["plugin own_hits"]) == 12 for each in versions)
    assert "hits" not in figures[large[0].key]


def test_a_lost_node_costs_one_checkpoint_interval_and_no_number(on_two_nodes: dict[str, Any], tmp_path: Path) -> None:
    """Through Ray Train on gloo, two workers on two nodes, against the same trial in this process: the curve to 1e-4
    (sums in another order, over 450 steps)."""
    from orchestrator.store.store import open_store
    from workers.state import RankContext
    from workers.train import train

    said = on_two_nodes["large"]
    assert said["state"] == "done", said["message"]
    where = settings(folder=on_two_nodes["folder"] / "runs")
    with contextlib.closing(open_store(where.database_url)) as store:
        (row,) = store.trials.placed(said["job"])
        facts, reports = store.trials.get(row.key).facts, store.trials.reports(row.key)
        causes = [attempt.cause for attempt in store.trials.attempts(row.key)]
    # Two: where the trial's own process survives, it may begin again on the dead node before the cluster has noticed.
    assert causes in (["node_lost", "done"], ["node_lost", "node_lost", "done"])
    assert (facts["workers"], facts["parallel"]) == (2, "ddp")
    steps = facts["steps"] // 6
    assert said["killed_at"] - 1 <= facts["resumed_at"] // steps < 6
    alone: list[Report] = []
    train(TrialSpec.model_validate(OVER_BOTH), RankContext(tmp_path, tmp_path), alone.append, lambda: False)
    for mine, theirs in zip(alone, reports, strict=True):
        assert (mine.epoch, mine.step) == (theirs.epoch, theirs.step)
        for name in ("train_loss", "loss", "lr"):
            assert theirs.values[name] == pytest.approx(mine.values[name], rel=1e-4)
