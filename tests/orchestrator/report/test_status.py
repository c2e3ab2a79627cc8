"""What `ls`, `status` and `describe` say of jobs and trials, from the store alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from recorded_study import Plot, Study

from orchestrator.errors import NotFound
from orchestrator.records.rows import JobRecord
from orchestrator.report import describe, status
from orchestrator.store.store import open_store


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    store = open_store(f"sqlite:///{tmp_path_factory.mktemp('views') / 'store.db'}")
    made = Study(
        store, Plot(failed_grid=("faces/RAND",), diverged_grid=("digits/RAND",), final_state={"faces/SUP": "running"})
    )
    made.run()
    yield made
    store.close()


def test_ls(study: Study) -> None:
    view = status.ls(study.store)
    assert [job["id"] for job in view.to_json()] == [study.job_id]
    assert view.to_json()[0]["states"]["diverged"] == 2
    line = view.text().splitlines()[2]
    assert study.job_id in line
    assert "incomplete" in line
    assert "83 of 85" in line


def test_ls_of_an_empty_store(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    assert status.ls(store).to_json() == []
    assert "submit SPEC" in status.ls(store).text()
    store.close()


def test_status_counts_by_stage_and_by_cell(study: Study) -> None:
    view = status.status(study.store, study.job_id)
    told = view.to_json()
    json.dumps(told, allow_nan=False)
    stages = {stage["stage"]: stage for stage in told["stages"]}
    assert stages["grid"]["states"] == {"done": 57, "diverged": 2, "failed": 1}
    assert stages["refine"]["placed"] == 15
    assert stages["refine"]["expected"] == 20, "the group that failed would have had five too"
    assert stages["final"]["expected"] == 12
    assert stages["grid"]["mean_seconds"] == pytest.approx(4.0 * 57 / 60, abs=0.1), (
        "trials without figures count their wall time, here none"
    )
    cells = {(cell["row"], cell["column"]): cell for cell in told["groups"]}
    assert cells["RAND", "digits"]["states"] == {"done": 21, "diverged": 2}
    assert cells["RAND", "digits"]["best"] == pytest.approx(90.0)
    assert cells["RAND", "digits"]["table"] == pytest.approx(89.2), "the mean over the seeds, not the best of them"
    assert cells["RAND", "faces"]["table"] is None
    assert cells["SUP", "faces"]["states"]["running"] == 1
    assert [one["error_class"] for one in told["failed"]] == ["code"]
    text = view.text()
    assert "✕1 failed best 90.0 %" in text
    assert re.search(r"22/23 ▸1 best 96\.0 %$", text, re.MULTILINE), "no mean before all seeds have ended"
    assert f"retry {study.job_id}" in text
    assert max(len(line) for line in text.splitlines()) <= 100


def test_trials_to_come_are_counted_with_their_seeds(study: Study) -> None:
    pretrain, grid, refine, final = study.spec["stages"]
    stages = [pretrain, {**grid, "replicates": 2}, {**refine, "replicates": {"n": 2, "first": 4}},
              {**final, "sweep": {}, "replicates": 3}]  # fmt: skip
    spec = {**study.spec, "stages": stages}
    study.store.jobs.put(JobRecord(id="seeds", name="seeds", profile="", spec=spec, spec_text=""))
    told = status.status(study.store, "seeds").to_json()
    # 15 settings, 5 neighbours and one winner in each of 4 groups
    assert {stage["stage"]: stage["expected"] for stage in told["stages"]} == {
        "pretrain": 1, "grid": 60 * 2, "refine": 20 * 2, "final": 4 * 3,
    }  # fmt: skip


def test_time_left(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    study = Study(store, Plot())
    assert status.status(store, study.job_id).to_json()["seconds_left"] is None, "nothing has ended yet"
    study.pretrain()
    study.grid("digits/RAND")
    store.jobs.set_state(study.job_id, "running")
    told = status.status(store, study.job_id).to_json()
    assert told["seconds_left"] is None, "its driver has estimated nothing yet"
    store.jobs.put_seconds_left(study.job_id, 500.0)
    store.jobs.put_seconds_left(study.job_id, 170.0)
    told = status.status(store, study.job_id).to_json()
    assert 165 < told["seconds_left"] <= 170, "the driver's last estimate, less the time since"
    assert "about 3 min left" in status.status(store, study.job_id).text()
    store.jobs.set_state(study.job_id, "interrupted")
    assert "about 3 min left once it runs again" in status.status(store, study.job_id).text()
    store.jobs.set_state(study.job_id, "done")
    assert status.status(store, study.job_id).to_json()["seconds_left"] is None
    store.close()


def test_describe_job(study: Study) -> None:
    view = describe.job(study.store, study.job_id)
    told = view.to_json()
    json.dumps(told, allow_nan=False)
    assert len(told["winners"]) == 6
    assert told["winners"][0]["settings"]["optim.lr"] in (1.18e-3, 2.64e-4)
    assert told["spec"]["name"] == "k12-grid"
    assert told["tracked_runs"] == 85
    text = view.text()
    assert "layer decay high (0.95)" in text
    assert "torch 2.14.0" in text
    assert "0123456789abcdef" in text


def test_describe_trial(study: Study, tmp_path: Path) -> None:
    key = next(trial.key for trial in study.store.trials.placed(study.job_id) if trial.stage == "final")
    folder = tmp_path / "trials" / key[:2] / key
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(b"x" * 1234)
    view = describe.trial(study.store, key, tmp_path)
    told = view.to_json()
    json.dumps(told, allow_nan=False)
    assert told["figures"]["top1"] == pytest.approx(0.89)
    assert told["host"] == "laptop"
    assert told["data_digest"] == "digest-of-digits"
    assert told["places"][0]["stage"] == "final"
    assert [attempt["cause"] for attempt in told["attempts"]] == ["done"]
    assert told["files"] == {"weights.safetensors": 1234}
    assert told["reports"] == 8
    assert told["seconds"] == 4.0
    text = view.text()
    assert "* top1 0.89" in text
    assert "epoch 8 of 8, step 80, seed 0" in text
    assert "1,234  weights.safetensors" in text
    assert "on laptop, cpu, AVX512 kernels, 1 thread\n" in text
    assert "ran_on" not in text


def test_describe_says_why_a_trial_failed(study: Study, tmp_path: Path) -> None:
    lost = next(trial for trial in study.store.trials.placed(study.job_id) if trial.state == "failed")
    text = describe.trial(study.store, lost.key, tmp_path).text()
    assert "code: ValueError: <img> & co\nline 2" in text


def test_lineage(tmp_path: Path) -> None:
    """A trial names the trials whose weights it comes from, nearest first."""
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    study = Study(store, Plot())
    first = study.placement("pretrain", "all", 0, {}, 0, "all")
    second = study.placement("pretrain", "all", 1, {"x": 1}, 0, "all")
    third = study.placement("pretrain", "all", 2, {"x": 2}, 0, "all")
    for child, parent in ((second, first), (third, second)):
        init = {"kind": "trial", "name": "SUP", "trial": parent.key}
        child.spec["backbone"] = {"init": init}  # type: ignore[index]
    store.trials.place(study.job_id, [first, second, third])
    told = describe.trial(store, third.key, tmp_path).to_json()
    assert [step.get("key") for step in told["lineage"]] == [second.key, first.key, None]
    children = describe.trial(store, first.key, tmp_path).to_json()["children"]
    assert (children["count"], children["first"][0]["key"]) == (1, second.key)
    assert f"weights from {second.name} {second.key[:12]}" in describe.trial(store, third.key, tmp_path).text()
    store.close()


def test_what_is_not_there(study: Study, tmp_path: Path) -> None:
    for ask in (
        lambda: status.status(study.store, "nothing"),
        lambda: describe.job(study.store, "nothing"),
        lambda: describe.trial(study.store, "0" * 64, tmp_path),
    ):
        with pytest.raises(NotFound, match=r"no job nothing in this store|no trial"):
            ask()


def test_a_dead_drivers_trials_do_not_run_for_ever(study: Study) -> None:
    before = study.store.jobs.get(study.job_id)
    study.store.jobs.set_state(study.job_id, "running")
    view = status.status(study.store, study.job_id)
    recorded = sum(stage["states"].get("running", 0) for stage in view.to_json()["stages"])
    assert view.to_json()["without_driver"] == recorded == 1
    assert "1 of the pending trials began and lost their driver" in view.text()
    assert "▸" not in view.text()
    study.store.leases.register(study.driver)
    view = status.status(study.store, study.job_id)
    assert view.to_json()["without_driver"] == 0
    assert "lost their driver" not in view.text()
    assert "▸1" in view.text()
    study.store.leases.unregister(study.driver.id)
    study.store.jobs.set_state(study.job_id, before.state, before.message)
