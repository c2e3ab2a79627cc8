"""Digests of data that are present enter the keys of the trials that use them, and no others."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from data_commands import command, trees

from orchestrator import spec
from orchestrator.engine.plan_rows import placement_of
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
      task: {kind: pretrain, dataset: pets, mask_patch: 4, val_fraction: 0.2}
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
    planned_job = with_manifests(job, where(tmp_path))
    trials = planned(planned_job)
    assert list(trials["grid", "pets", 1e-3]) == list(trials["grid", "pets", 2e-3]) == ["pets/0.2/2"]
    assert list(trials["other", "pets", 1e-3]) == ["pets/0.4/0"]
    assert list(trials["masked", "pets", 1e-3]) == ["pets/0.2/0"]
    assert trials["grid", "dtd", 1e-3] == {}
    assert trials["grid", "faces", 1e-3] == {"faces/official": trees.card_of("faces").digest}
    assert {path.name for path in (tmp_path / "splits").iterdir()} >= {"pets-0.2-2.jsonl"}
    keys = {p.key for p in Planner(planned_job, DurationModel()).placed}
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
    """Even if a later stage has another data set than the winner."""
    trees.plant("pets", tmp_path, monkeypatch)
    trees.plant("dtd", tmp_path, monkeypatch)
    planned_job = with_manifests(job, where(tmp_path))
    winner = next(
        p.spec for p in Planner(planned_job, DurationModel()).placed if p.group_values["task.dataset"] == "pets"
    )
    stage = planned_job.stages[1].model_copy(
        update={"override": {**planned_job.stages[1].override, "task.dataset": "dtd"}}
    )
    (moved,) = successors(winner, stage, may_test=True, workers=1)
    assert list(moved.task.manifests) == ["dtd/official"]  # type: ignore[union-attr]


def test_every_split_that_a_winner_may_bring_along_has_a_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A winner may have another split seed than the stand-in for it, and the final stage puts it on other data."""
    trees.plant("pets", tmp_path, monkeypatch)
    trees.plant("food101", tmp_path, monkeypatch)
    text = (
        SPEC[: SPEC.index("stages:")]
        + """stages:
  - {name: grid, sweep: {grid: {task.dataset: [pets], task.split_seed: [0, 1], optim.lr: [1e-3]}}, per: [task.dataset]}
  - {name: final, from: grid, sweep: {grid: {task.dataset: [pets, food101]}}, override: {task.evaluate: test}}
"""
    )
    (tmp_path / "cuts.yaml").write_text(text)
    job = with_manifests(spec.load(tmp_path / "cuts.yaml", None, ()), where(tmp_path))
    assert set(job.stages[1].override["task.manifests"]) == {
        f"{name}/0.2/{seed}" for name in ("pets", "food101") for seed in (0, 1)
    }
    winner = next(p.spec for p in Planner(job, DurationModel()).placed if p.spec.task.split_seed == 1)  # type: ignore[attr-defined]
    finals = successors(winner, job.stages[1], may_test=True, workers=1)
    assert [list(final.task.manifests) for final in finals] == [["pets/0.2/1"], ["food101/0.2/1"]]  # type: ignore[attr-defined]


def test_an_axis_of_whole_tasks_gets_digests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.plant("pets", tmp_path, monkeypatch)
    text = (
        SPEC[: SPEC.index("stages:")]
        + """stages:
  - name: both
    sweep:
      grid:
        task: [{kind: pretrain, dataset: pets, mask_patch: 4, val_fraction: 0.2}, {kind: classify, dataset: faces}]
        optim.lr: [1e-3]
"""
    )
    (tmp_path / "cuts.yaml").write_text(text)
    job = with_manifests(spec.load(tmp_path / "cuts.yaml", None, ()), where(tmp_path))
    tasks = [p.spec.task for p in Planner(job, DurationModel()).placed]
    assert [list(task.manifests) for task in tasks] == [["pets/0.2/0"], ["faces/official"]]  # type: ignore[attr-defined]


def test_a_job_does_not_go_on_with_other_data(job: JobSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.plant("pets", tmp_path, monkeypatch)
    place = where(tmp_path)
    place.folder.mkdir()
    with closing(open_store(place.database_url)) as store:
        planned_job, identity = with_manifests(job, place), job_id(job)
        record_job(store, job, identity)
        store.trials.place(identity, [placement_of(trial) for trial in Planner(planned_job, DurationModel()).placed])
        check_unchanged(store, identity, planned_job)
        rows = (tmp_path / "oxford-iiit-pet" / "annotations" / "test.txt").read_text().splitlines()
        (tmp_path / "oxford-iiit-pet" / "annotations" / "test.txt").write_text("\n".join(rows[1:]) + "\n")
        check_unchanged(store, identity, with_manifests(job, place))  # the written manifest counts
        assert command(tmp_path, "split", "pets", "--split-seed", "2").exit_code == 0
        with pytest.raises(Conflict, match=r"ran on other data: the split pets/0.2/2 had SHA-256 \w+, what is here"):
            check_unchanged(store, identity, with_manifests(job, place))


def test_data_of_later_stages_are_missed_at_once(job: JobSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CoG is searched on L1 and then runs on five levels: a missing L5 is reported before the search."""
    trees.plant("pets", tmp_path, monkeypatch)
    trees.plant("dtd", tmp_path, monkeypatch)
    levels = job.stages[1].model_copy(
        update={"sweep": Grid.model_validate({"grid": {"task.dataset": ["faces", "cog-l5"]}})}
    )
    later = job.model_copy(update={"stages": [job.stages[0], levels]})
    with pytest.raises(NotFound, match=r"(?s)cog-l5: not found under .*Nothing was started"):
        submit(later, where(tmp_path))
