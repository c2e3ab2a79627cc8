"""Presets of augmentation: the fields that they stand for, wherever a spec may name one, and under the same keys."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from in_process_backend import Machine, drive_to_end

from orchestrator.errors import SpecError
from orchestrator.plan.durations import DurationModel
from orchestrator.plan.planner import Planner
from orchestrator.records.recorded_spec import expected
from orchestrator.records.states import JobState
from orchestrator.report.build import build
from orchestrator.report.formats.markdown import markdown
from orchestrator.spec.job import JobSpec, job_id
from orchestrator.spec.load import load
from orchestrator.spec.presets import presets_of
from orchestrator.spec.trial_fields import group_of
from orchestrator.store.store import open_store
from tasks.datasets.augment import PRESETS, Augment
from workers.trial import TrialSpec

SPEC = """\
name: preset
trial:
  task: {kind: classify, dataset: digitsAUGMENT}
  backbone: {model: vit_tiny_patch16_224, image_size: 16, args: {patch_size: 4, embed_dim: 16, depth: 1, num_heads: 2}}
  optim: {lr: 1e-3, batch: 20, epochs: 2, warmup_epochs: 1}
stages:
  - {name: onlySTAGE}
profiles:
  other: {trial: {task: {dataset: facesPROFILE}}}
"""


def job_of(folder: Path, augment: str = "", stage: str = "", profile: str = "", *sets: str) -> JobSpec:
    path = folder / "spec.yaml"
    names = {"AUGMENT": augment, "STAGE": stage, "PROFILE": profile}
    text = SPEC
    for name, value in names.items():
        text = text.replace(name, f", {value}" if value else "")
    path.write_text(text)
    return load(path, "other" if profile else "", sets)


def trials(job: JobSpec) -> list[TrialSpec]:
    return Planner(job, DurationModel()).specs()


def augment_of(job: JobSpec) -> Augment:
    (trial,) = trials(job)
    augment: Augment = trial.task.augment  # type: ignore[attr-defined]
    return augment


def written_out(name: str, **changed: Any) -> str:
    return f"augment: {json.dumps({**PRESETS[name], **changed})}"


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_its_fields_in_key_and_id(tmp_path: Path, name: str) -> None:
    short, long = job_of(tmp_path, f"augment: {name}"), job_of(tmp_path, written_out(name))
    assert [trial.key for trial in trials(short)] == [trial.key for trial in trials(long)]
    assert job_id(short) == job_id(long)
    assert short.trial["task"]["augment"] == dict(PRESETS[name])


def test_all_presets_state_the_same_fields_and_differ() -> None:
    """So that one replaces another wholly where mappings merge."""
    assert len({frozenset(fields) for fields in PRESETS.values()}) == 1
    assert len({Augment.model_validate(fields).model_dump_json() for fields in PRESETS.values()}) == len(PRESETS) == 3


def test_table7_is_the_default_and_none_is_none(tmp_path: Path) -> None:
    assert augment_of(job_of(tmp_path, "augment: table7")) == Augment()
    assert trials(job_of(tmp_path, "augment: table7"))[0].key == trials(job_of(tmp_path))[0].key
    assert augment_of(job_of(tmp_path, "augment: none")) == Augment.none()


def test_what_stands_beside_a_preset_wins(tmp_path: Path) -> None:
    short = job_of(tmp_path, "augment: {flip: 0, preset: light, mixup: 0.2}")
    assert trials(short)[0].key == trials(job_of(tmp_path, written_out("light", flip=0, mixup=0.2)))[0].key


@pytest.mark.parametrize(
    ("augment", "stage", "profile", "sets", "name", "changed"),
    [
        ("augment: light", "override: {task.augment: none}", "", [], "none", {}),
        ("augment: light", "override: {task.augment.flip: 0}", "", [], "light", {"flip": 0}),
        ("augment: light", "override: {task: {kind: classify, dataset: faces, augment: none}}", "", [], "none", {}),
        ("augment: light", "", "augment: {flip: 0}", [], "light", {"flip": 0}),
        ("augment: {preset: light, flip: 0}", "", "augment: table7", [], "table7", {}),
        ("augment: light", "", "", ["task.augment=none"], "none", {}),
        ("augment: light", "", "", ["task.augment.flip=0"], "light", {"flip": 0}),
        ("augment: light", "", "", ["task.augment.preset=none"], "none", {}),
        ("augment: light", "", "", ["task.augment={preset: none, flip: 0.5}"], "none", {"flip": 0.5}),
        ("augment: light", "override: {task.augment: light}", "", ["stages.only.override.task.augment=none"], "none",
         {}),
    ],
)  # fmt: skip
def test_profiles_overrides_and_stages_change_fields_of_a_preset(
    tmp_path: Path, augment: str, stage: str, profile: str, sets: list[str], name: str, changed: dict[str, Any]
) -> None:
    job = job_of(tmp_path, augment, stage, profile, *sets)
    assert augment_of(job) == Augment.model_validate({**PRESETS[name], **changed})


@pytest.mark.parametrize(
    "sweep",
    [
        "sweep: {grid: {task.augment: [none, {preset: light, flip: 0}, table7]}}",
        "sweep: {grid: [{task.augment: [none, {preset: light, flip: 0}]}, {task.augment: [table7]}]}",
        "sweep: {grid: {task: [{kind: classify, dataset: digits, augment: none}, {kind: classify, dataset: digits, "
        "augment: {preset: light, flip: 0}}, {kind: classify, dataset: digits, augment: table7}]}}",
    ],
)
def test_presets_are_values_of_an_axis(tmp_path: Path, sweep: str) -> None:
    wanted = [PRESETS["none"], {**PRESETS["light"], "flip": 0}, PRESETS["table7"]]
    made = trials(job_of(tmp_path, stage=sweep))
    found = [trial.task.augment.model_copy(update={"name": ""}) for trial in made]  # type: ignore[attr-defined]
    assert found == [Augment.model_validate(fields) for fields in wanted]
    assert [trial.key for trial in made] == [
        trials(job_of(tmp_path, f"augment: {json.dumps(fields)}"))[0].key for fields in wanted
    ]


def test_presets_that_are_compared_have_names(tmp_path: Path) -> None:
    listed = "[none, {preset: light, flip: 0}, {name: mine, preset: light}, {flip: 0}]"
    job = job_of(tmp_path, stage=f"per: [task.augment], sweep: {{grid: {{task.augment: {listed}}}}}")
    names = ["none", "light, flip 0", "mine"]
    groups = [group_of(trial, job.stages[0].per) for trial in trials(job)]
    assert [group for group, _ in groups][:3] == names
    plain = job.model_dump(mode="json")
    assert [group["task.augment"] for group in expected(plain, ["only"])][:3] == names


def test_a_table_has_a_row_for_each_preset(tmp_path: Path) -> None:
    stage = "per: [task.dataset, task.augment], sweep: {grid: {task.augment: [none, {preset: light, flip: 0}]}}"
    path = tmp_path / "spec.yaml"
    job_of(tmp_path, stage=stage)
    path.write_text(path.read_text() + "report: {rows: task.augment}\n")
    job = load(path, "")
    with contextlib.closing(open_store(f"sqlite:///{tmp_path / 'store.db'}")) as store:
        assert drive_to_end(store, job, Machine(), tmp_path)[0] is JobState.done
        text = markdown(build(store, job_id(job)))
    assert "| none |" in text
    assert "| light, flip 0 |" in text
    assert "missing" not in text


def test_a_search_chooses_among_presets(tmp_path: Path) -> None:
    stage = "sweep: {search: {task.augment: {choice: [none, light]}}, trials: 2}"
    job = job_of(tmp_path, stage=stage)
    (sweep,) = [stage.sweep for stage in job.stages]
    assert sweep.search["task.augment"].choice == [  # type: ignore
        {**PRESETS[name], "name": name} for name in ("none", "light")
    ]


@pytest.mark.parametrize(
    ("augment", "stage", "sets", "message"),
    [
        ("augment: lihgt", "", [], r"spec.yaml:3:52: trial.task.augment: lihgt: no such preset; presets: none, light, "
         "table7; nearest: light"),
        ("augment: {preset: 7}", "", [], "spec.yaml:3:61: trial.task.augment: 7: no such preset; presets: none"),
        ("", "override: {task.augment: tabel7}", [], r"stages.only.override.task.augment: tabel7: no such preset; .*7"),
        ("", "sweep: {grid: {task.augment: [none, lite]}}", [], r"task.augment\.?\w*: lite: no such preset"),
        ("", "override: {task.augment.preset: light}", [], "preset: a preset is the value of the field itself: "
         "task.augment: none"),
        ("", "", ["task.augment=lihgt"], "--set task.augment=lihgt: trial.task.augment: lihgt: no such preset"),
        ("augment: {preset: light, flipp: 0}", "", [], r"trial.task.augment.flipp: 0: no such field; .*nearest: flip"),
        ("augment: {preset: light, flip: 2}", "", [], r"trial.task.augment.flip: 2: must be less than or equal to 1"),
        ("augment: {preset: light, auto_augment: original, rand_augment: rand-m9}", "", [],
         "auto_augment original takes the place of rand_augment"),
    ],
)  # fmt: skip
def test_one_mistake_is_one_message(tmp_path: Path, augment: str, stage: str, sets: list[str], message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        job_of(tmp_path, augment, stage, "", *sets)
    assert len(caught.value.problems) == 1


def test_the_presets_are_those_of_the_kind_beside_the_field() -> None:
    assert presets_of("augment", "classify") is presets_of("augment") is presets_of("task.augment") is PRESETS
    assert presets_of("augment", "pretrain") is presets_of("augment", "mine") is presets_of("augment", ["x"]) is None
    assert presets_of("task.dataset") is presets_of("dataset", "classify") is None


def test_tasks_without_presets_take_none(tmp_path: Path) -> None:
    text = SPEC.replace("kind: classify, dataset: digitsAUGMENT", "kind: pretrain, dataset: digits, augment: light")
    path = tmp_path / "spec.yaml"
    path.write_text(text.partition("profiles")[0].replace("STAGE", ""))
    with pytest.raises(SpecError, match=r"trial.task.augment: light: must be a mapping; fields: crop_scale"):
        load(path)
