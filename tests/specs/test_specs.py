"""The contract of every file in specs/: it plans, keeps its job ids, has a smoke profile, and begins by saying what,
how, at what cost and with which result."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import click
import pytest
from spec_files import SPECS, UNREADABLE

from orchestrator import api
from orchestrator.cli.main import cli
from orchestrator.launch.inputs import missing_data
from orchestrator.launch.other_jobs import assume_all, assumed_snapshots
from orchestrator.plan.cost import cost
from orchestrator.plan.durations import DurationModel
from orchestrator.plan.planner import Planner
from orchestrator.plan.resource_fit import Node
from orchestrator.settings import settings
from orchestrator.spec import load
from orchestrator.spec.job import job_id
from orchestrator.spec.load import profiles
from orchestrator.spec.seeds import StageSeeds
from orchestrator.spec.sweep import Grid, axis_values, points
from tasks.backbones.dropped_layers import drawn_blocks

ROOT = Path(__file__).parents[2]
CASES = [(path, name) for path in SPECS for name in dict.fromkeys([load(path).profile, *profiles(path)])]
JOB_IDS = Path(__file__).with_name("job_ids.json")
"""Spec -> profile ("": none) -> job id. A new spec or profile adds its line; a changed one loses the job's record."""

every_spec = pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
every_profile = pytest.mark.parametrize(
    ("path", "profile"), CASES, ids=["-".join(filter(None, (path.stem, name))) for path, name in CASES]
)


def paragraphs(path: Path) -> list[str]:
    """The comment that a spec begins with, without its first line, which is for editors."""
    comment = re.match(r"(#.*\n)+", path.read_text())
    assert comment
    first, *lines = [line[2:] for line in comment[0].splitlines()]
    assert first == "yaml-language-server: $schema=../specs/schema.json"
    return "\n".join(lines).strip().split("\n\n")


def commands(path: Path) -> list[list[str]]:
    """The words of its command lines after `python -m orchestrator`; two spaces begin a remark."""
    lines = re.findall(r"^ +python -m orchestrator (.+)$", "\n".join(paragraphs(path)), re.MULTILINE)
    return [shlex.split(line.partition("  ")[0]) for line in lines]


@every_profile
def test_every_profile_plans(path: Path, profile: str, tmp_path: Path) -> None:
    job = load(path, profile)
    where = settings(folder=tmp_path, database_url=f"sqlite:///{tmp_path / 'store.db'}", data_root=tmp_path)
    planned = api.plan(job, where, nodes=2, cpus=64, gpus=8)
    assert [stage.name for stage in planned.stages] == [stage.name for stage in job.stages]
    assert all(stage.trials > 0 for stage in planned.stages)
    assert planned.problems == []
    assert planned.makespan_hours > 0


def test_job_ids_are_the_recorded_ones() -> None:
    ids: dict[str, dict[str, str]] = {path.stem: {} for path in SPECS}
    for path, profile in CASES:
        ids[path.stem][profile] = job_id(load(path, profile))
    recorded = json.loads(JOB_IDS.read_text())
    assert ids == {stem: by_profile for stem, by_profile in recorded.items() if stem not in UNREADABLE}


@every_spec
def test_smoke_profile_has_every_stage_and_needs_no_data(path: Path, tmp_path: Path) -> None:
    smoke = load(path, "smoke")
    planner = Planner(smoke, DurationModel())
    assert missing_data([*planner.specs(), *planner.foreseen()], tmp_path) == ""
    stages = {stage.name for stage in smoke.stages}
    for profile in profiles(path):
        assert stages >= {stage.name for stage in load(path, profile).stages}
    assert "the numbers mean nothing" in smoke.report.caption


@every_spec
def test_first_lines_say_what_command_cost_and_expected(path: Path) -> None:
    text = paragraphs(path)
    assert re.match(r"[A-Z].{80,}\.$", text[0], re.DOTALL)
    assert any(words[:2] == ["submit", f"specs/{path.name}"] for words in commands(path))
    (costs,) = [part for part in text if part.startswith("Cost")]
    assert len([part for part in text if part.startswith("Expected")]) == 1
    for profile in profiles(path):
        if profile != "smoke":
            assert profile in costs, profile


@every_spec
def test_commands_in_the_first_lines_are_valid(path: Path) -> None:
    """Every one is a command with known options, and each of its specs has the profile that it names."""
    for name, *arguments in commands(path):
        command = cli.get_command(click.Context(cli), name)
        assert command, name
        given = command.make_context(name, list(arguments)).params
        for spec in [given["spec"]] if "spec" in given else given.get("specs", []):
            load(ROOT / spec, given["profile"])


CLAIMED = {
    ("k12_grid", "paper"): {350: ("814", "4.3 days")},
    ("cog", "paper"): {350: ("4,080", "21 days")},
    ("cog", "table7"): {350: ("2,530", "13 days")},
    ("inat18", "paper"): {350: ("174", "22 hours")},
    ("imagenet_finetune", "paper"): {350: ("102", "13 hours")},
    ("imagenet_finetune", "figure2a"): {350: ("2,850", "15 days")},
    ("pretrain_supervised", "swinv2_b"): {350: ("305", "38 hours")},
    ("imagenet_finetune", "replknet"): {112: ("318", "40 hours")},
    ("pretrain_supervised", "replknet"): {112: ("954", "5 days")},
    ("search", "paper"): {350: ("537", "")},
    ("pose", "paper"): {190: ("222", "28 hours")},
    ("pose", "paper_384"): {50: ("210", "26 hours")},
    ("pose", "replknet"): {85: ("198", "25 hours")},
    ("drop_layers", "paper"): {27: ("262", "33 hours")},
    ("drop_layers", "paper_pose"): {260: ("1,030", "5.4 days")},
    ("sampled_layers", "paper_pose"): {260: ("884", "4.6 days")},
    ("drop_layers", "cars"): {350: ("31", "4 hours")},
    ("sampled_layers", "paper"): {27: ("224", "28 hours")},
    ("sampled_layers", "cars"): {350: ("27", "3.4 hours")},
    ("depth", "paper"): {20: ("82", "10 hours")},
    ("tracking", "paper"): {48: ("1,140", "6 days")},
    ("segmentation", "paper"): {7.3: ("390", "49 hours")},
    ("detection", "paper"): {16: ("147", "18 hours")},
    ("detection", "figure7_equal"): {16: ("294", "37 hours")},
    ("pretrain_simmim", "swinv2_b"): {586: ("486", "")},
    ("pretrain_simmim", "swinv2_l"): {302: ("943", "")},
    ("pretrain_simmim", "vit_b"): {1202: ("237", "")},
    ("pretrain_simmim", "replknet"): {152: ("703", "")},
}
"""Spec, profile -> images/s of a GPU -> GPU-hours, and time on 8 such GPUs where it is given, as in the first lines."""


@pytest.mark.parametrize(
    ("name", "profile"),
    [case for case in CLAIMED if case[0] not in UNREADABLE],
    ids=[f"{name}-{profile}" for name, profile in CLAIMED if name not in UNREADABLE],
)
def test_first_lines_have_the_cost_that_plan_estimates(name: str, profile: str) -> None:
    path = ROOT / "specs" / f"{name}.yaml"
    (text,) = [part for part in paragraphs(path) if part.startswith("Cost")]
    for rate, (gpu_hours, on_eight) in CLAIMED[name, profile].items():
        job = load(path, profile)
        assert {(stage.resources or job.resources).images_per_second for stage in job.stages} == {rate}
        found = cost(assume_all(job), assumed_snapshots, DurationModel(), [Node(cpus=64, gpus=8)] * 2).gpu_hours
        assert found == pytest.approx(float(gpu_hours.replace(",", "")), rel=0.02)
        assert re.search(rf"(?<![\d.,]){gpu_hours}(?!,?\d)", text)
        number, _, unit = on_eight.partition(" ")
        if number:
            assert found / 8 / (24 if unit == "days" else 1) == pytest.approx(float(number), rel=0.06)
            assert re.search(rf"(?<![\d.,]){number}( and \S+)? {unit}", text)


def test_k12_paper_profile_is_the_papers_protocol() -> None:
    job = load(ROOT / "specs" / "k12_grid.yaml", "paper")
    grid = points(job.stages[0].sweep)
    assert len(grid) == 11 * 2 * 15
    for name in ("cars", "aircraft", "dtd", "caltech101", "flowers", "pets", "food101", "birdsnap", "sun397"):
        for label, low, high in (("MIM", 1.25e-4, 2.5e-3), ("SUP", 2.5e-5, 5e-4)):
            cell = [p for p in grid if p["task.dataset"] == name and p["backbone.init"]["name"] == label]
            assert len(cell) == 15
            lrs = sorted({p["optim.lr"] for p in cell})
            assert (len(lrs), lrs[0], lrs[-1]) == (5, low, high)
            assert {p["optim.layer_decay"] for p in cell} == {0.75, 0.85, 0.95}
            small = name in ("cars", "aircraft", "dtd", "caltech101", "flowers", "pets")
            assert {p["backbone.drop_path"] for p in cell} == {0.0 if small and label == "MIM" else 0.2}
    reference = job.report.reference
    assert reference is not None
    seven = job.report.averages[0].over
    means = {row: sum(values[column] for column in seven) / 7 for row, values in reference.values.items()}
    assert {row: round(mean, 1) for row, mean in means.items()} == {"SUP": 89.7, "MIM": 86.1}  # as in Table 1


@pytest.mark.parametrize(
    ("name", "profile"),
    [
        ("cog", "paper"), ("cog", "table7"), ("inat18", "paper"), ("inat18", "table7"), ("k12_grid", "paper"),
        ("drop_layers", "cars"), ("imagenet_finetune", "paper"), ("imagenet_finetune", "replknet"),
        *(("pretrain_simmim", profile) for profile in ("swinv2_b", "swinv2_l", "vit_b", "replknet")),
    ],
)  # fmt: skip
def test_what_the_public_code_of_simmim_trains_has_the_learning_rate_that_it_has(name: str, profile: str) -> None:
    """It reads the schedule after a step. Its configurations state rates at 512 images and multiply by batch / 512."""
    for trial in Planner(assume_all(load(ROOT / "specs" / f"{name}.yaml", profile)), DurationModel()).specs():
        optim = trial.optim
        assert optim.lr_lag == 1
        scaled = optim.lr_convention == "per_512" or name in ("k12_grid", "drop_layers")  # these two state the rates
        expected = (5e-7 if trial.task.kind == "pretrain" else 2.5e-7) * (1 if scaled else optim.batch / 512)
        assert optim.warmup_lr == pytest.approx(expected, rel=1e-12)
        if optim.schedule == "cosine":
            assert optim.min_lr == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("profile", ["laptop", "cars"])
def test_layers_are_dropped_with_one_recipe_for_every_depth(profile: str) -> None:
    job = load(ROOT / "specs" / "drop_layers.yaml", profile)
    final = points(job.stages[-1].sweep)
    dropped = {"laptop": [None, 1, 2, 3, 4, 5], "cars": [None, 0, 2, 4, 6, 8, 9]}[profile]
    assert [p["backbone.drop_last"] for p in final] == dropped
    tune = [trial for trial in Planner(job, DurationModel()).specs() if trial.backbone.init.name in ("SUP", "MIM")]
    assert {trial.backbone.drop_last for trial in tune} == {None}
    assert {trial.seed for trial in tune} == {0}
    assert StageSeeds(job).of["final"] == (1, 2, 3), "none of which chose the learning rate"
    if profile == "laptop":
        assert StageSeeds(job).of["supervised"] == StageSeeds(job).of["simmim"] == (0, 1, 2)
    assert not any(trial.task.reads_test for trial in tune)


@pytest.mark.parametrize(("profile", "dropped"), [("laptop", 3), ("cars", 9)])
def test_drawn_layers_have_five_draws_and_the_first_blocks_as_baseline(profile: str, dropped: int) -> None:
    job = load(ROOT / "specs" / "sampled_layers.yaml", profile)
    planner = Planner(job, DurationModel())
    started = [trial for trial in planner.specs() if trial.backbone.init.name in ("SUP", "MIM")]
    assert {(t.backbone.drop_last, t.backbone.sample_layers) for t in started} == {(dropped, None)}
    assert {trial.seed for trial in started} == {0}
    assert StageSeeds(job).of["final"] == (1, 2, 3), "none of which chose the learning rate"
    finals = [trial.backbone for trial in planner.foreseen()]
    for name in ("SUP", "MIM"):
        drawn = [b.sample_layers and b.sample_layers.draw for b in finals if b.init.name == name]
        assert drawn == [None, 0, 1, 2, 3, 4]
    assert {b.drop_last for b in finals} == {dropped}
    assert {b.sample_layers.order for b in finals if b.sample_layers} == {"drawn"}
    assert {stage.name: stage.override.get("backbone.drop_last") for stage in job.stages}["tune"] == dropped


@pytest.mark.parametrize("profile", ["paper", "paper_384", "replknet"])
def test_pose_is_trained_with_the_papers_recipe_and_measured_again_without_training(profile: str) -> None:
    job = load(ROOT / "specs" / "pose.yaml", profile)
    planner = Planner(job, DurationModel())
    trials = [*planner.specs(), *planner.foreseen()]
    rows = {"paper": 5, "paper_384": 1, "replknet": 2}[profile]
    trained = [trial for trial in trials if trial.optim.epochs]
    on_coco = [trial for trial in trained if trial.task.dataset == "coco-keypoints"]  # type: ignore[attr-defined]
    assert len(on_coco) == rows
    assert {trial.task.split for trial in on_coco} == {"val"}
    for trial in trained:
        optim = trial.optim
        assert (optim.lr, optim.batch, optim.epochs, optim.step_epochs, optim.clip) == (5e-4, 512, 150, (120,), 0)
        large = "large" in trial.backbone.model
        assert (optim.layer_decay, trial.backbone.drop_path) == ((0.85, 0.5) if large else (0.9, 0.3))
        assert trial.task.boxes == "detections"  # type: ignore[attr-defined]
        windows = {"paper": 16, "paper_384": 24}.get(profile)
        assert trial.backbone.args.get("window_size") == windows
    crowded = [trial.task for trial in trained if trial not in on_coco]
    assert {(task.train, task.split) for task in crowded} == {("trainval", "test")}  # type: ignore[attr-defined]
    again = [trial.task for trial in trials if not trial.optim.epochs]
    assert len(again) == {"paper": 5, "paper_384": 3, "replknet": 2}[profile]
    assert {task.head for task in again} == {"keep"}  # type: ignore[attr-defined]


def test_pose_prints_the_papers_values() -> None:
    reference = load(ROOT / "specs" / "pose.yaml", "paper").report.reference
    assert reference is not None
    values = [row["coco-keypoints"] for row in reference.values.values()]
    assert values == [75.2, 75.9, 77.6, 76.5, 78.1]  # Table 2, COCO val


def test_tracking_is_trained_with_swintracks_recipe_and_prints_the_papers_values() -> None:
    job = load(ROOT / "specs" / "tracking.yaml", "paper")
    planner = Planner(job, DurationModel())
    trials = [*planner.specs(), *planner.foreseen()]
    trained = [trial for trial in trials if trial.optim.epochs]
    rows = ["B 1K-SUP", "B 22K-SUP", "B 1K-MIM", "L 22K-SUP", "L 1K-MIM"]
    assert [trial.backbone.init.name for trial in trained] == rows
    for trial in trained:
        optim, task = trial.optim, trial.task
        recipe = (optim.lr, optim.batch, optim.epochs, optim.step_epochs, optim.clip, optim.weight_decay)
        assert recipe == (5e-4, 160, 300, (210,), 0.1, 1e-4)
        assert (optim.backbone_lr_factor, optim.no_decay, optim.warmup_epochs) == (0.1, "none", 3)
        assert task.pairs == 131_072  # type: ignore[attr-defined]
        assert task.train_sets == ("got10k", "trackingnet", "lasot", "coco-boxes")  # type: ignore[attr-defined]
        assert trial.backbone.image_size == 2 * task._template(224) == 224  # type: ignore[attr-defined]
    again = [trial.task for trial in trials if not trial.optim.epochs]
    assert len(again) == 15
    assert {(task.head, task.split) for task in again} == {("keep", "test")}  # type: ignore[attr-defined]
    reference = job.report.reference
    assert reference is not None
    assert [row["lasot"] for row in reference.values.values()] == [69.4, 67.8, 70.0, 69.2, 70.7]  # Table 2


def test_specs_on_generated_scenes_share_their_pre_training() -> None:
    """The second job finds the trials of the first."""
    keys = {}
    for name in ("pose", "depth", "tracking"):
        planner = Planner(load(ROOT / "specs" / f"{name}.yaml", "laptop"), DurationModel())
        first = [trial for trial in planner.specs() if trial.seed == 0 and trial.task.kind in ("classify", "pretrain")]
        keys[name] = {trial.key for trial in first}
    assert len(keys["pose"]) == 2
    assert keys["tracking"] == keys["depth"] == keys["pose"]


def test_figure_5_and_drawn_layers_on_depth_are_the_papers_protocol() -> None:
    """The recipe of specs/depth.yaml, the levels and draws of the paper, test opened once and nothing chosen."""
    paper = Planner(load(ROOT / "specs/depth.yaml", "paper"), DurationModel()).specs()
    table = {trial.backbone.init.name: trial for trial in paper if trial.task.model_dump()["dataset"] == "nyuv2"}
    assert len(table) == 5
    recipe = table["SwinV2-B 1K-MIM"]
    for name, levels, draws in (
        ("drop_layers", [None, 0, 2, 4, 6, 8, 9], {None}),
        ("sampled_layers", [9], {None, *range(5)}),
    ):
        job = load(ROOT / f"specs/{name}.yaml", "paper")
        assert [stage.name for stage in job.stages] == ["final"]
        trials = Planner(job, DurationModel()).specs()
        for init in ("SUP", "MIM"):
            own = [trial for trial in trials if trial.backbone.init.name == init]
            assert list(dict.fromkeys(trial.backbone.drop_last for trial in own)) == levels
            assert {trial.backbone.sample_layers and trial.backbone.sample_layers.draw for trial in own} == draws
            assert {trial.seed for trial in own} == {0, 1, 2}
        for trial in trials:
            assert (trial.optim, trial.task, trial.runtime) == (recipe.optim, recipe.task, recipe.runtime)
            assert (trial.backbone.image_size, trial.backbone.norm_eps, trial.backbone.drop_path) == (480, 1e-6, 0.3)


@pytest.mark.parametrize(("profile", "pool", "left"), [("laptop", 6, 3), ("laptop_depth", 4, 2), ("paper", 18, 9)])
def test_no_draw_of_blocks_is_the_baseline(profile: str, pool: int, left: int) -> None:
    sweep = load(ROOT / "specs/sampled_layers.yaml", profile).stages[-1].sweep
    assert isinstance(sweep, Grid)
    draws = {draw for axes in sweep.grid for draw in axis_values(axes.get("backbone.sample_layers.draw", []))}
    assert len(draws) == 5
    for draw in draws:
        assert drawn_blocks(pool, left, draw, "drawn") != tuple(range(left)), draw


def test_figure_5_and_drawn_layers_on_pose_have_the_recipe_of_the_pose_spec() -> None:
    paper = Planner(load(ROOT / "specs/pose.yaml", "paper"), DurationModel()).specs()
    recipe = next(trial for trial in paper if trial.backbone.init.name == "B 1K-MIM")
    for name, trials in (("drop_layers", 2 * 7 * 3), ("sampled_layers", 2 * 6 * 3)):
        planned = Planner(load(ROOT / f"specs/{name}.yaml", "paper_pose"), DurationModel()).specs()
        assert len(planned) == trials
        for trial in planned:
            assert (trial.optim, trial.task, trial.runtime) == (recipe.optim, recipe.task, recipe.runtime)
            assert trial.backbone.model_dump(
                include={"image_size", "norm_eps", "drop_path"}
            ) == recipe.backbone.model_dump(include={"image_size", "norm_eps", "drop_path"})


def test_depths_paper_profile_has_the_facts_of_appendix_e() -> None:
    trials = Planner(load(ROOT / "specs/depth.yaml", "paper"), DurationModel()).specs()
    assert len(trials) == 10
    for trial in trials:
        optim, backbone, task = trial.optim, trial.backbone, trial.task.model_dump()
        large = backbone.model == "swinv2_large_window12_192"
        assert (optim.batch, optim.epochs, optim.lr, optim.min_lr, optim.clip) == (24, 25, 5e-4, 3e-5, 0)
        assert (optim.schedule, optim.up_length, optim.weight_decay) == ("up_down", 12, 0.05)
        assert (optim.layer_decay, backbone.drop_path) == ((0.85, 0.5) if large else (0.9, 0.3))
        side, window = {"nyuv2": (480, 30), "kitti-eigen": (352, 22)}[task["dataset"]]
        assert (backbone.image_size, backbone.args["window_size"]) == (side, window)
        assert task["evaluate"] == "test"


def test_detection_starts_from_the_pre_training_of_pose() -> None:
    """Trial for trial the first seed of the stages of specs/pose.yaml, so a store that has these trains none anew."""
    planned = {
        name: Planner(load(ROOT / "specs" / f"{name}.yaml", "laptop"), DurationModel())
        for name in ("pose", "detection")
    }
    for stage in ("supervised", "simmim"):
        first, *_ = (trial.key for trial in planned["pose"].in_stage(stage))
        assert [trial.key for trial in planned["detection"].in_stage(stage)] == [first]
