"""A job that trains, and looks at what it trained: plan, run without Ray, SQL, submit again."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import sqlalchemy as sa
from in_process_backend import Machine, drive_to_end

from orchestrator.launch.model_problems import check_models
from orchestrator.plan.cost import cost
from orchestrator.plan.durations import DurationModel
from orchestrator.plan.resource_fit import Node
from orchestrator.records.states import JobState
from orchestrator.spec.job import job_id
from orchestrator.spec.load import load
from orchestrator.store.store import open_store
from workers.run import run_trial

SPEC = """\
name: look
trial:
  task: {kind: classify, dataset: digits, normalize: half, augment: {rand_augment: none, color_jitter: 0}}
  backbone:
    model: vit_tiny_patch16_224
    image_size: 16
    args: {patch_size: 4, embed_dim: 16, depth: 2, num_heads: 2}
    init: {kind: none, name: RAND}
  optim: {lr: 3.0e-3, batch: 64, epochs: 1, warmup_epochs: 0}
stages:
  - {name: train}
  - name: look
    per: [backbone.init]
    override: {task: {kind: analysis, dataset: digits, normalize: half, images: 24, cka_batch: 12}}
    sweep: {grid: {backbone.init: [{kind: none, name: RAND}, {kind: stage, name: SUP, stage: train}]}}
"""
QUERY = """\
SELECT grp, avg(value) FROM measured
WHERE job_id = :job AND stage = 'look' AND figure = 'attention_distance' AND layer = 1 GROUP BY grp
"""


def test_a_job_answers_which_layer_looks_how_far(tmp_path: Path) -> None:
    (tmp_path / "look.yaml").write_text(SPEC)
    job = load(tmp_path / "look.yaml")
    planned = cost(job, lambda keys: {}, DurationModel(), [Node(2.0)])
    assert [stage.trials for stage in planned.stages] == [1, 2]
    machine, url = Machine(1, run_trial), f"sqlite:///{tmp_path / 'store.db'}"
    with contextlib.closing(open_store(url)) as store:
        state, _ = drive_to_end(store, job, machine, tmp_path)
        assert state is JobState.done
        rows = store.trials.placed(job_id(job), "look")
        assert [row.split for row in rows] == ["val", "val"]
        assert sum(machine.ran.values()) == 3
        again, _ = drive_to_end(store, job, machine, tmp_path)
        assert again is JobState.done
        assert sum(machine.ran.values()) == 3
    with sa.create_engine(url).connect() as connection:
        answer = dict(connection.execute(sa.text(QUERY), {"job": job_id(job)}).tuples().all())
    assert len(answer) == 2
    assert all(0 < value < 16 * 2**0.5 for value in answer.values())
    assert len(set(answer.values())) == 2


def test_a_model_without_attention_is_found_before_anything_runs(tmp_path: Path) -> None:
    from orchestrator.errors import SpecError

    path = tmp_path / "look.yaml"
    path.write_text(
        "name: look\ntrial:\n  task: {kind: analysis, dataset: digits, images: 24}\n"
        "  backbone: {model: resnet10t, image_size: 32}\nstages: [{name: look}]\n"
    )
    with pytest.raises(
        SpecError, match=r"look\.yaml:4:21: backbone\.model: resnet10t: ResNet has no attention"
    ) as caught:
        check_models(load(path), path)
    assert len(caught.value.problems) == 1
