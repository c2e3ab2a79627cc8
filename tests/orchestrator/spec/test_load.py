"""Spec files to jobs: profiles, overrides, sweeps, and every mistake named at its place."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from good_spec import GOOD, GRID, Write, _problems

from orchestrator.errors import SpecError
from orchestrator.spec import json_schema, load
from orchestrator.spec.check_paths import trial_schema_paths
from orchestrator.spec.job import PLANNER_ONLY, JobSpec, job_id
from orchestrator.spec.load import profiles, recorded
from orchestrator.spec.sweep import LinSpace, LogSpace, axis_values, points
from orchestrator.spec.trial_fields import apply
from workers.trial import TrialSpec

ROOT = Path(__file__).parents[3]


def test_a_batch_is_shared_out_among_the_workers(write: Write) -> None:
    large = "    resources: {workers: 3}\n"
    text = GOOD.replace("    per: [task.dataset, backbone.init]\n", "    per: [task.dataset, backbone.init]\n" + large)
    (problem,) = _problems(write(text))
    assert re.search(r":12:26: stages.grid: resources.workers: 3: does not go with optim.batch 32: mixup", problem)
    assert problem.endswith("use a batch that is a multiple of 6")
    plain = _problems(write(text), None, "task.augment.mixup=0", "task.augment.cutmix=0")[0]
    assert "each of 3 workers takes an equal share; use a batch that is a multiple of 3" in plain
    assert len(_problems(write(text), None, "optim.batch=2")) == 1
    load(write(text), None, ["optim.batch=36"])
    load(write(GOOD), None, ["resources.workers=8"])


def test_a_workers_part_of_a_batch_is_even_where_images_are_paired(write: Write) -> None:
    (problem,) = _problems(write(GOOD), None, "optim.batch=33")[:1]
    assert "33: mixup and cutmix pair the images of each worker's share: use a multiple of 2" in problem
    assert "a multiple of 4" in _problems(write(GOOD), None, "resources.workers=2", "optim.batch=34")[0]
    load(write(GOOD), None, ["optim.batch=33", "task.augment.mixup=0", "task.augment.cutmix=0"])


# What a good file means


def test_good_file_loads_in_its_default_profile(write: Write) -> None:
    job = load(write(GOOD))
    assert (job.name, job.profile) == ("test-grid", "small")
    assert job.trial["seed"] == 1
    assert [stage.name for stage in job.stages] == ["pretrain", "grid", "refine", "final"]
    assert job.stages[2].from_ == ["grid"]
    assert len(points(job.stages[1].sweep)) == 2 * 2 * 3 * 2


def test_profile_merges_mappings_replaces_lists_and_other_kinds(write: Write) -> None:
    job = load(write(GOOD), "large")
    assert job.trial["optim"] == {"lr": 1e-3, "batch": 32, "epochs": 8, "warmup_epochs": 1}
    assert job.trial["backbone"]["init"] == {"kind": "file", "name": "MIM", "path": "w.safetensors"}
    assert [stage.name for stage in job.stages] == ["grid", "refine", "final", "again"]
    grid = job.stages[0]
    assert grid.resources is not None
    assert grid.resources.gpus == 1
    assert {point["optim.lr"] for point in points(grid.sweep)} == {0.1, 0.2, 0.3}  # logspace gave way to linspace
    assert {point["task.dataset"] for point in points(grid.sweep)} == {"digits", "faces"}  # kept from the base


def test_no_profile_can_be_asked_for(write: Write) -> None:
    assert load(write(GOOD), "").profile == ""
    assert profiles(write(GOOD)) == ["small", "large"]


def test_overrides_set_fields_of_trial_and_job(write: Write) -> None:
    job = load(
        write(GOOD),
        overrides=[
            "optim.epochs=5", "backbone.args={embed_dim: 64}", "trial.optim.clip=1e0", "stages.grid.resources.gpus=0.5",
            "stages.final.override.seed=3", "stages.grid.sweep.grid.optim.lr=[1e-3]", "priority=3", "resources.cpus=2",
        ],
    )  # fmt: skip
    assert job.trial["optim"] == {"lr": 1e-3, "batch": 32, "epochs": 5, "warmup_epochs": 1, "clip": 1.0}
    assert job.trial["backbone"]["args"] == {"embed_dim": 64}
    assert job.stages[1].resources is not None
    assert job.stages[1].resources.gpus == 0.5
    assert job.stages[3].override == {"task.train": "trainval", "task.evaluate": "test", "seed": 3}
    assert {point["optim.lr"] for point in points(job.stages[1].sweep)} == {1e-3}
    assert (job.priority, job.resources.cpus) == (3, 2)


def test_list_of_grids_is_their_union(write: Write) -> None:
    grids = """\
        - {task.dataset: [digits, faces], optim.lr: [1e-3, 1e-2]}
        - {task.dataset: [digits], optim.lr: [1.0]}
"""
    text = GOOD.replace(GRID, "      grid:\n" + grids)
    assert points(load(write(text)).stages[1].sweep) == [
        {"task.dataset": "digits", "optim.lr": 1e-3},
        {"task.dataset": "digits", "optim.lr": 1e-2},
        {"task.dataset": "faces", "optim.lr": 1e-3},
        {"task.dataset": "faces", "optim.lr": 1e-2},
        {"task.dataset": "digits", "optim.lr": 1.0},
    ]


def test_computed_axes_have_twelve_digits() -> None:
    lrs = axis_values(LogSpace(logspace=(1.25e-4, 2.5e-3, 5)))
    assert lrs == [float(f"{1.25e-4 * 20 ** (i / 4):.12g}") for i in range(5)]
    assert (lrs[0], lrs[-1]) == (1.25e-4, 2.5e-3)
    assert axis_values(LinSpace(linspace=(0.75, 0.95, 3))) == [0.75, 0.85, 0.95]
    assert axis_values([{"kind": "none"}, 3]) == [{"kind": "none"}, 3]


def test_apply_sets_paths_and_leaves_its_base_alone() -> None:
    base = {"optim": {"lr": 1, "batch": 2}, "seed": 0}
    assert apply(base, {"optim.lr": 3, "backbone.args.depth": 4, "optim": {"lr": 5}, "optim.clip": 6}) == {
        "optim": {"lr": 5, "clip": 6}, "seed": 0, "backbone": {"args": {"depth": 4}},
    }  # fmt: skip
    assert base == {"optim": {"lr": 1, "batch": 2}, "seed": 0}
    with pytest.raises(ValueError, match=r"seed\.x: seed is 0, not a mapping"):
        apply(base, {"seed.x": 1})


def test_job_id_names_the_content(write: Write) -> None:
    job = load(write(GOOD))
    assert re.fullmatch(r"test-grid-small-[0-9a-f]{8}", job_id(job))
    assert job_id(load(write("# moved\n" + GOOD))) == job_id(job)
    assert job_id(JobSpec.model_validate(json.loads(job.model_dump_json(by_alias=True)))) == job_id(job)
    assert job_id(load(write(GOOD), overrides=["optim.lr=2e-3"])) != job_id(job)
    assert re.fullmatch(r"test-grid-[0-9a-f]{8}", job_id(load(write(GOOD), "")))


def test_thousands_of_trials_are_checked_without_torch(write: Write) -> None:
    path = write(GOOD.replace("[0.75, 0.95]", "{linspace: [0.5, 1.0, 250]}"))
    code = (
        "import sys\nfrom orchestrator.spec import load, points\n"
        f"assert len(points(load({str(path)!r}).stages[1].sweep)) == 3000\n"
        "print([name for name in ('torch', 'timm', 'ray', 'mlflow', 'numpy', 'sqlalchemy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"


# The schema of specs


def test_schema_in_the_repository_is_current() -> None:
    stored = (ROOT / "specs" / "schema.json").read_text()
    current = json.dumps(json_schema(), indent=1) + "\n"
    assert stored == current, "run: python -m orchestrator schema > specs/schema.json"


def test_schema_knows_what_a_spec_may_say() -> None:
    schema = json_schema()
    fields, definitions = schema["properties"], schema["$defs"]
    named = "name profile plugins trial stages resources priority report claims profiles"
    assert set(named.split()) == set(fields)
    assert "may_test" not in definitions["TrialSpec"]["properties"]
    assert "optim.lr" in definitions["TrialPath"]["anyOf"][0]["enum"]
    assert "required" not in definitions["OptimSpec"]  # stages and profiles may complete it
    used = set(re.findall(r"#/\$defs/(\w+)", json.dumps(schema)))
    assert used <= set(definitions)


def test_paths_of_a_trial_reach_into_every_member_of_a_union() -> None:
    paths = trial_schema_paths()
    assert {"optim.lr", "backbone.init", "backbone.init.path", "task.dataset", "task.augment.mixup"} <= set(paths)
    assert not set(PLANNER_ONLY) & {path.partition(".")[0] for path in paths}
    assert set(TrialSpec.model_fields) - set(PLANNER_ONLY) <= set(paths)


def test_a_recorded_spec_that_this_version_refuses_is_named_by_its_fields(write: Write) -> None:
    """`retry` runs what an earlier version recorded."""
    job = load(write(GOOD))
    values = job.model_dump(mode="json")
    assert recorded(values, "good-12ab") == job
    values["priority"] = "high"
    values["stages"][0]["of_old"] = True
    with pytest.raises(SpecError, match="refuses what an earlier one recorded") as refused:
        recorded(values, "good-12ab")
    assert [line.split(": ")[:3] for line in refused.value.problems] == [
        ["good-12ab", "stages.0.of_old", "true"],
        ["good-12ab", "priority", "high"],
    ]
