"""Random initial weights are the row RAND, however a spec writes them: before, while and after trials run."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from in_process_backend import Machine, drive_to_end, made_up

from orchestrator.launch.submit import record_job
from orchestrator.records.recorded_spec import RANDOM, label
from orchestrator.report import status
from orchestrator.report.build import build
from orchestrator.report.formats.markdown import markdown
from orchestrator.report.verify import verify
from orchestrator.spec.job import JobSpec, job_id
from orchestrator.spec.load import load
from orchestrator.store.store import Store, open_store
from tasks.backbones.spec import Scratch

SPEC = """\
name: rand
trial:
  task: {kind: classify, dataset: digits, augment: light}
  backbone: {model: vit_tiny_patch16_224, image_size: 16, args: {patch_size: 4, embed_dim: 16, num_heads: 2}INIT}
  optim: {lr: 1e-3, batch: 20, epochs: 1, warmup_epochs: 0}
stages:
  - {name: grid, per: [task.dataset, backbone.init], SWEEP}
  - {name: final, from: grid, override: {task.train: trainval, task.evaluate: test}}
"""
LRS = "optim.lr: [1e-3, 2e-3]"
CASES = {
    "an axis": ("", f"sweep: {{grid: {{backbone.init: [{{kind: none}}], {LRS}}}}}"),
    "an axis with others": ("", "sweep: {grid: {backbone.init: [{kind: none}, {kind: timm, name: SUP, tag: "
                                f"test_vit.r160_in1k}}], {LRS}}}}}"),
    "the base": (", init: {kind: none}", f"sweep: {{grid: {{{LRS}}}}}"),
    "an override": ("", f"override: {{backbone.init: {{kind: none}}}}, sweep: {{grid: {{{LRS}}}}}"),
    "a whole backbone": ("", "override: {backbone: {model: test_vit, image_size: 16, args: {patch_size: 4}}}, sweep: "
                             f"{{grid: {{{LRS}}}}}"),
    "an axis of backbones": ("", "sweep: {grid: {backbone: [{model: test_vit, image_size: 16, args: {patch_size: 4}}], "
                                 f"{LRS}}}}}"),
    "nothing": ("", f"sweep: {{grid: {{{LRS}}}}}"),
    "a search": ("", "sweep: {each: {task.dataset: [digits], backbone.init: [{kind: none}]}, search: "
                     "{optim.lr: {loguniform: [1e-4, 1e-2]}}, trials: 2}"),
}  # fmt: skip


@pytest.fixture(params=CASES)
def job(request: pytest.FixtureRequest, tmp_path: Path) -> JobSpec:
    init, sweep = CASES[request.param]
    path = tmp_path / "spec.yaml"
    text = SPEC.replace("INIT", init).replace("SWEEP", sweep)
    path.write_text(text.replace("per: [task.dataset, backbone.init], ", "") if "each" in sweep else text)
    return load(path)


def rows(store: Store, job: JobSpec) -> list[str]:
    report = build(store, job_id(job))
    assert "| RAND |" in markdown(report)
    return list(report.rows)


def test_the_row_is_called_rand_before_and_after(job: JobSpec, tmp_path: Path) -> None:
    with contextlib.closing(open_store(f"sqlite:///{tmp_path / 'store.db'}")) as store:
        record_job(store, job, job_id(job))
        before = rows(store, job)
        assert before[0] == "RAND"
        assert not {"None", "none"} & set(before)
        drive_to_end(store, job, Machine(execute=made_up), tmp_path)
        assert rows(store, job) == before
        assert verify(store, job_id(job), None) == []
        text = status.status(store, job_id(job)).text()
        assert "RAND" in text
        assert not {"none", "None", "digits/none", "digits/None"} & set(text.split())
        assert {trial.group for trial in store.trials.placed(job_id(job))} >= {"digits/RAND"}


def test_the_name_is_that_of_the_spec() -> None:
    assert RANDOM["name"] == Scratch().name == label({"kind": "none"}) == label(Scratch().model_dump(mode="json"))
    assert label({"kind": "none", "name": "scratch"}) == "scratch"
