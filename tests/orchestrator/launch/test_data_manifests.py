"""The digests of data that are there enter the keys of the trials that use them, and nothing else."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from data_commands import command, trees

from orchestrator import spec
from orchestrator.engine.driver import _placement
from orchestrator.errors import Conflict, NotFound
from orchestrator.launch.data_manifests import check_unchanged, with_manifests
from orchestrator.launch.submit import record_job, submit
from orchestrator.plan.durations import DurationModel
from orchestrator.plan.expansion import successors
from orchestrator.plan.planner import Planner
from orchestrator.settings import Settings, settings
from orchestrator.spec.job import JobSpec, job_id
from orchestrator.spec.sweep import Grid
from orchestrator.store.store import open_store
from tasks.datasets.labelled.catalog import CARDS

SPEC = """
name: cuts
trial:
  task: {kind: classify, augment: {mixup: 0, cutmix: 0}, split_seed: 2}
  backbone: {model: vit_tiny_patch16_224, image_size: 16, args: {patch_size: 4}}
  optim: {batch: 2, epochs: 2, warmup_epochs: 1, layer_decay: 1}
stages:
  - name: grid
    per: [task.dataset]
    sweep: {grid: {task.dataset: [pets, dtd, faces], optim.lr: [1e-3, 2e-3]}}
  - name: final
    from: grid
    override: {task.train: trainval, task.evaluate: test}
  - name: masked
    override:
      task: {kind: pretrain, dataset: pets, mask_patch: 4}
      optim.lr: 1e-3
  - name: other
    override: {task: {kind: classify, dataset: pets, val_fraction: 0.4}, optim.lr: 1e-3}
"""


@pytest.fixture
def job(tmp_path: Path) -> JobSpec:
    (tmp_path / "cuts.yaml").write_text(SPEC)
    return spec.load(tmp_path / "cuts.yaml", None, ())


def where(tmp_path: Path) -> Settings:
    return settings(folder=tmp_path / "runs", data_root=tmp_path)


def planned(job: JobSpec) -> dict[tuple[str, str, float], dict[str, str]]:
    placed = Planner(job, DurationModel()).placed
    return {(p.stage, p.spec.task.dataset, p.spec.optim.lr): p.spec.task.manifests for p in placed}  # type: ignore[union-attr]


def test_trials_name_the_digests_of_the_data_that_are_there(
    job: JobSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {p.key for p in Planner(job, DurationModel()).placed}
    trees.plant("pets", tmp_path, monkeypatch)
    told = with_manifests(job, where(tmp_path))
    trials = planned(told)
    assert list(trials["grid", "pets", 1e-3]) == list(trials["grid", "pets", 2e-3]) == ["pets/0.2/2"]
    assert list(trials["other", "pets", 1e-3]) == ["pets/0.4/0"]
    assert list(trials["masked", "pets", 1e-3]) == ["pets/0.02/0"]
    assert trials["grid", "dtd", 1e-3] == {}
    assert trials["grid", "faces", 1e-3] == {"faces/official": CARDS["faces"].digest}
    assert {path.name for path in (tmp_path / "splits").iterdir()} >= {"pets-0.2-2.jsonl"}
    keys = {p.key for p in Planner(told, DurationModel()).placed}
    assert len(keys & before) == 2  # those of dtd, which is not there
    again = with_manifests(job, where(tmp_path))
    assert {p.key for p in Planner(again, DurationModel()).placed} == keys
    (tmp_path / "splits" / "pets-0.2-2.jsonl").unlink()
    (tmp_path / "oxford-iiit-pet" / "annotations" / "test.txt").write_text("x\n")
    with pytest.raises(NotFound, match="pets: lists under"):
        with_manifests(job, where(tmp_path))


def test_the_jobs_id_does_not_depend_on_data(job: JobSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = job_id(job)
    trees.plant("pets", tmp_path, monkeypatch)
    with_manifests(job, where(tmp_path))
    assert job_id(job) == identity


def test_winners_keep_the_digest_of_their_own_data(
    job: JobSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a later stage takes another data set than the winner's."""
    trees.plant("pets", tmp_path, monkeypatch)
    trees.plant("dtd", tmp_path, monkeypatch)
    told = with_manifests(job, where(tmp_path))
    winner = next(p.spec for p in Planner(told, DurationModel()).placed if p.group_values["task.dataset"] == "pets")
    stage = told.stages[1].model_copy(update={"override": {**told.stages[1].override, "task.dataset": "dtd"}})
    (moved,) = successors(winner, stage, may_test=True, workers=1)
    assert list(moved.task.manifests) == ["dtd/official"]  # type: ignore[union-attr]


def test_a_job_does_not_go_on_with_other_data(job: JobSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.plant("pets", tmp_path, monkeypatch)
    there = where(tmp_path)
    there.folder.mkdir()
    with closing(open_store(there.database_url)) as store:
        told, identity = with_manifests(job, there), job_id(job)
        record_job(store, job, identity)
        store.trials.place(identity, [_placement(trial) for trial in Planner(told, DurationModel()).placed])
        check_unchanged(store, identity, told)
        rows = (tmp_path / "oxford-iiit-pet" / "annotations" / "test.txt").read_text().splitlines()
        (tmp_path / "oxford-iiit-pet" / "annotations" / "test.txt").write_text("\n".join(rows[1:]) + "\n")
        check_unchanged(store, identity, with_manifests(job, there))  # the written manifest counts
        assert command(tmp_path, "split", "pets", "--split-seed", "2").exit_code == 0
        with pytest.raises(Conflict, match=r"ran on other data: the split pets/0.2/2 had SHA-256 \w+, what is here"):
            check_unchanged(store, identity, with_manifests(job, there))


def test_data_of_later_stages_are_missed_at_once(job: JobSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CoG is searched on L1 and then runs on five levels: that L5 is not there is said before the search."""
    trees.plant("pets", tmp_path, monkeypatch)
    trees.plant("dtd", tmp_path, monkeypatch)
    levels = job.stages[1].model_copy(
        update={"sweep": Grid.model_validate({"grid": {"task.dataset": ["faces", "cog-l5"]}})}
    )
    later = job.model_copy(update={"stages": [job.stages[0], levels]})
    with pytest.raises(NotFound, match=r"(?s)cog-l5: not found under .*Nothing was started"):
        submit(later, where(tmp_path))
