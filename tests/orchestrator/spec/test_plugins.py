"""`plugins` of a spec: imported before the rest is read, in keys and ids by their digest, and off by a switch."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import plugin_files as made
import pytest
import yaml

from orchestrator.errors import SpecError
from orchestrator.plan.durations import DurationModel
from orchestrator.plan.planner import Planner
from orchestrator.spec import job_id
from orchestrator.spec.job import JobSpec
from orchestrator.spec.load import load, load_checking_profiles
from workers.trial import TrialSpec

SPEC: dict[str, Any] = {
    "name": "own",
    "plugins": ["plug_v.all", "plug_w"],
    "trial": {
        "task": {"kind": "mine", "dataset": "digits", "plugin_metrics": ["hits"], "choose_by": "hits"},
        "backbone": {"model": "own_net_d"},
        "optim": {"lr": 1e-3, "batch": 20, "epochs": 2, "warmup_epochs": 0, "layer_decay": 1},
    },
    "stages": [
        {"name": "grid", "sweep": {"grid": {"optim.lr": [1e-3, 2e-3]}}},
        {"name": "around", "from": "grid", "neighbourhood": {"near": {"optim.lr": {"multiply": [2]}}}},
        {"name": "search", "sweep": {"search": {"optim.lr": {"loguniform": [1e-4, 1e-3]}}, "trials": 2}},
    ],
}
FILES = {
    "plug_v/__init__.py": "",
    "plug_v/all.py": made.MODEL.replace("NAME", "own_net_d") + made.TASK,
    "plug_w.py": made.METRICS,
}


@pytest.fixture(autouse=True)
def as_a_new_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with made.forgotten():
        yield


def spec(folder: Path, **fields: Any) -> Path:
    path = made.write(folder, FILES) / "own.yaml"
    path.write_text(yaml.safe_dump({**SPEC, **fields}, sort_keys=False))
    return path


def trials(job: JobSpec) -> list[TrialSpec]:
    planner = Planner(job, DurationModel())
    return [*planner.specs(), *planner.foreseen()]


def test_every_trial_of_the_job_names_its_plugins(tmp_path: Path) -> None:
    job = load(spec(tmp_path))
    assert [plugin.module for plugin in job.plugins] == ["plug_v.all", "plug_w"]
    made_ = trials(job)
    assert len(made_) >= 4
    for trial in made_:
        assert trial.plugins == tuple(job.plugins)
        assert trial.metric == "hits"
        assert TrialSpec.model_validate_json(trial.model_dump_json()) == trial
    assert {"numpy", "timm", "torch"} >= job.plugins[0].versions.keys() >= {"timm", "torch"}


def test_a_changed_plugin_is_another_job_with_other_trials(tmp_path: Path) -> None:
    before = load(spec(tmp_path))
    ids, keys = job_id(before), {trial.key for trial in trials(before)}
    made.forget()
    assert (job_id(load(spec(tmp_path))), {trial.key for trial in trials(load(spec(tmp_path)))}) == (ids, keys)
    made.forget()
    path = spec(tmp_path)
    made.write(tmp_path, {"plug_w.py": made.METRICS + "\n# as before, one would think\n"})
    after = load(path)
    assert job_id(after) != ids
    assert keys.isdisjoint(trial.key for trial in trials(after))


def test_a_spec_without_plugins_has_the_key_that_it_always_had(tmp_path: Path) -> None:
    """Also in a process that has imported some for another job."""
    plain = {
        **SPEC, "stages": [{"name": "only"}],
        "trial": {**SPEC["trial"], "task": {"kind": "classify", "dataset": "digits"},
                  "backbone": {"model": "vit_tiny_patch16_224", "image_size": 32}},
    }  # fmt: skip
    del plain["plugins"]
    path = tmp_path / "plain.yaml"
    path.write_text(yaml.safe_dump(plain))
    (trial,) = trials(load(path))
    assert "plugins" not in trial.model_dump()
    assert "plugins" not in load(path).model_dump()
    load(spec(tmp_path))
    (again,) = trials(load(path))
    assert (again.key, again.plugins) == (trial.key, ())
    path.write_text(yaml.safe_dump({**plain, "trial": SPEC["trial"]}))
    with pytest.raises(SpecError) as caught:
        load(path)
    assert [line for line in caught.value.problems if "mine: no such kind" in line]
    assert [line for line in caught.value.problems if "own_net_d: no such timm model" in line]


def test_a_spec_without_plugins_imports_nothing_of_anybody(tmp_path: Path) -> None:
    path = spec(tmp_path, plugins=[], trial={"task": {"kind": "plug_v.all"}, "backbone": {"model": "plug_w"}})
    before = set(sys.modules)
    with pytest.raises(SpecError, match="no such kind"):
        load(path)
    assert {"plug_v", "plug_w"}.isdisjoint(set(sys.modules) - before)


def test_the_job_as_it_is_recorded_takes_the_same_version_alone(tmp_path: Path) -> None:
    job = load(spec(tmp_path))
    recorded = JobSpec.model_validate(job.model_dump(mode="json", by_alias=True))
    assert recorded == job
    assert job_id(recorded) == job_id(job)
    written = spec(tmp_path, plugins=[plugin.model_dump() for plugin in job.plugins])
    assert job_id(load(written)) == job_id(job)
    made.forget()
    made.write(tmp_path, {"plug_w.py": made.METRICS.replace("100.0", "1.0")})
    with pytest.raises(SpecError, match=r"own\.yaml:\d+:3: plugins: plug_w: .*plug_w\.py has digest .* was asked for"):
        load(written)


def test_off_is_one_line_and_nothing_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_PLUGINS", "off")
    with pytest.raises(SpecError) as caught:
        load(spec(tmp_path))
    (line,) = caught.value.problems
    assert line.startswith(f"{tmp_path}/own.yaml:3:3: plugins: plug_v.all: plugins are switched off here (")
    assert caught.value.exit_code == 3
    assert "plug_v" not in sys.modules


def test_a_broken_plugin_is_the_only_line(tmp_path: Path) -> None:
    path = spec(tmp_path)
    made.write(tmp_path, {"plug_w.py": "import torch\nraise ValueError('no licence\\nfor this machine')\n"})
    with pytest.raises(SpecError) as caught:
        load(path)
    (line,) = caught.value.problems
    assert line.startswith(f"{path}:4:3: plugins: plug_w: {tmp_path}/plug_w.py, line 2: ValueError: no licence for th")


def test_each_profile_has_its_own_plugins(tmp_path: Path) -> None:
    profiles: Any = {"plain": {"plugins": [], "trial": {"task": {"kind": "classify", "dataset": "digits"}}}}
    with pytest.raises(SpecError) as caught:
        load_checking_profiles(spec(tmp_path, profiles=profiles))
    assert len(caught.value.problems) == 1, "of the profile without plugins"
    assert "own_net_d: no such timm model" in caught.value.problems[0]
    profiles["plain"]["trial"]["backbone"] = {"model": "vit_tiny_patch16_224", "image_size": 32}
    job = load_checking_profiles(spec(tmp_path, profiles=profiles))
    assert trials(job)[0].metric == "hits", "those of the job count at the end"
