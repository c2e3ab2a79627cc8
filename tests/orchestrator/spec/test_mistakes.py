"""Mistakes in a spec: each is named once, where it stands. § marks the place in the cases."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from good_spec import GOOD, GRID, Write, _problems

from orchestrator.spec import load

BAD = {
    "misspelt field": ("batch: 32", "§bacth: 32", "trial.optim.bacth: 32: no such field", "nearest: batch"),
    "misspelt field of a stage": ("per: [task", "§pre: [task", "stages.grid.pre", "nearest: per"),
    "misspelt field of the job": ("report:\n", "§reprot:\n", "reprot", "nearest: report"),
    "misspelt axis": ("optim.layer_decay: [", "§optim.layer_decai: [", "optim.layer_decai: no such field of a trial",
                      "nearest: optim.layer_decay"),
    "axis without its section": ("optim.layer_decay: [", "§layer_decay: [", "nearest: optim.layer_decay"),
    "axis that is the planner's": ("optim.layer_decay: [0.75, 0.95]", "§may_test: [true]", "planner alone"),
    "misspelt override": ("{task.dataset: digits-", "{§task.datasets: digits-", "nearest: task.dataset"),
    "misspelt per": ("per: [task.dataset", "per: [§task.datset", "nearest: task.dataset"),
    "misspelt neighbour": ("optim.lr: {multiply", "§optim.lrr: {multiply", "nearest: optim.lr"),
    "unknown data set": ("[digits, faces]\n", "[digits, §facess]\n", "facess: unknown data set", "nearest: 'faces'"),
    "unknown data set in base": ("dataset: digits}\n  back", "dataset: §cifar}\n  back", "cifar: unknown data set",
                                 "nearest: 'cifar10'"),
    "misspelt field of described data": ("[digits, faces]\n", "[digits, {kind: folder, §pth: my/set}]\n",
                                         "pth: my/set: no such field; fields: kind, path, name, test_fr",
                                         "nearest: path"),
    "unknown kind of described data": ("[digits, faces]\n", "[digits, §{kind: tabel, path: my/set}]\n",
                                       "must be the name of a data set, or {kind: folder, table or huggingface"),
    "number for a data set": ("[digits, faces]\n", "[digits, §5]\n", "must be the name of a data set"),
    "unknown probe": ("dataset: digits}\n  back", "dataset: digits, probe: §lineal}\n  back",
                      "trial.task.probe: lineal: not allowed", "nearest: linear"),
    "misspelt preset": ("dataset: digits}\n  back", "dataset: digits, augment: §lihgt}\n  back",
                        "trial.task.augment: lihgt: no such preset; presets: none, light, table7; nearest: light"),
    "preset by its own path": ("{task.dataset: digits-", "{§task.augment.preset: light, task.dataset: digits-",
                               "a preset is the value of the field itself: task.augment: none"),
    "more neighbours than images": ("dataset: digits}\n  back", "dataset: digits, knn: {k: §100001}}\n  back",
                                    "trial.task.knn.k: 100001: must be less than or equal to 100000"),
    "neighbours of a small set": ("[digits, faces]\n", "[faces, digits]\n        task.knn: [{k: 41}]\n",
                                  "knn.k 41 is more than the 40 training images of faces: lower it"),
    "unknown optimizer": ("batch: 32", "batch: 32, optimizer: §adam", "trial.optim.optimizer: adam: not allowed",
                          "nearest: adamw"),
    "momentum of another optimizer": ("optim: {lr: 1e-3", "optim: {momentum: §0.8, lr: 1e-3",
                                      "momentum is of the optimizers sgd, momentum, lars, not of adamw"),
    "shards under an optimizer of norms": ("  optim: {lr", "  runtime: {parallel: fsdp}\n  optim: {optimizer: lamb, lr",
                                           "optim.optimizer lamb needs the norm of whole weights"),
    "decay of an average": ("batch: 32", "batch: 32, ema: {decay: §1}",
                            "trial.optim.ema.decay: 1: must be less than 1"),
    "stem that trains below frozen blocks": ("image_size: 32", "image_size: 32, freeze: {blocks: §2, stem: false}",
                                             "blocks 2 freezes the stem below them too: leave stem out"),
    "unknown timm model": ("vit_tiny_patch16_224", "§vit_tini_patch16_224", "trial.backbone.model",
                           "no such timm model; nearest: vit_tiny_patch16_224"),
    "unknown kind": ("{kind: none, name: RAND}", "{kind: §scratch}", "no such kind",
                     "kinds: none, file, timm, stage, trial"),
    "unknown choice": ("kind: classify,", "kind: classify, train: §trainvall,", "trainvall: not allowed",
                       "allowed: train, trainval; nearest: trainval"),
    "negative lr": ("[1e-4, 1e-2, 3]", "[§-1e-4, 1e-2, 3]", "-0.0001: must be greater than 0"),
    "negative lr in a list": (
        "{logspace: [1e-4, 1e-2, 3]}", "[1e-3, §-1e-3]", "optim.lr: -0.001: must be greater than 0"),
    "decay above 1": ("[0.75, 0.95]", "[0.75, §1.5]", "1.5: must be less than or equal to 1"),
    "text for a number in an axis": ("[0.75, 0.95]", "[0.75, §high]", "high: must be a number"),
    "quoted number": ("batch: 32", 'batch: §"32"', 'trial.optim.batch: "32": must be a whole number'),
    "boolean for a number": ("batch: 32", "batch: §true", "true: must be a whole number"),
    "fraction for a count": ("epochs: 4", "epochs: §4.5", "4.5: must be a whole number"),
    "list for a mapping": ("{kind: classify, dataset: digits}", "§[classify]", "trial.task"),
    "empty grid": (GRID, "      grid: §{}\n",
                   "stages.grid.sweep.grid", "at least 1 item"),
    "one empty grid of two": (GRID, "      grid: [{seed: [0]}, §{}]\n", "stages.grid.sweep.grid", "at least 1 item"),
    "value twice in an axis": ("[0.75, 0.95]", "[0.75, 0.95, §0.75]", "0.75: twice in this axis"),
    "empty axis": ("[0.75, 0.95]", "§[]", "optim.layer_decay", "at least 1 item"),
    "axis that is a number": ("[0.75, 0.95]", "§0.75", "must be a list of values, or logspace or linspace"),
    "logspace backwards": ("[1e-4, 1e-2, 3]", "§[1e-2, 1e-4, 3]", "the low end 0.01 must be below the high end"),
    "logspace of one": ("[1e-4, 1e-2, 3]", "[1e-4, 1e-2, §1]", "1: must be greater than or equal to 2"),
    "logspace without count": ("[1e-4, 1e-2, 3]", "§[1e-4, 1e-2]", "missing"),
    "too large a grid": ("    sweep:\n      grid:\n        task.dataset: [digits, faces]\n",
                          "    §sweep:\n      grid:\n        task.dataset: [digits, faces]\n        "
                          "backbone.drop_path: {linspace: [0, 0.5, 9999]}\n",
                          "stages.grid.sweep: 239,976 trials (239,977 with the stages before); a job has at most "
                          "100,000"),
    "axis and override": ("  - name: refine", "    override: {§optim.lr: 1}\n  - name: refine",
                          "also an axis of this stage's grid (", "keep one of them"),
    "duplicate stage": ("- name: refine", "- name: §grid", "a second stage of this name", "the first: "),
    "stage that refers to a later one": ("from: grid", "from: §final", "final: comes later than refine",
                                         "earlier stages: pretrain, grid"),
    "stage that refers to itself": ("from: grid", "from: §refine", "a stage cannot take from itself"),
    "cycle": ("  - name: grid\n    per: [task.dataset, backbone.init]", "  - name: grid\n    from: §refine",
              "refine: comes later than grid", "earlier stages: pretrain"),
    "unknown stage": ("from: grid", "from: §grd", "grd: no such stage", "nearest: grid"),
    "weights of an unknown stage": (
        "stage: pretrain}", "stage: §pretrian}", "pretrian: no such stage", "nearest: pretrain"),
    "weights of a later stage": ("stage: pretrain}", "stage: §final}", "final: comes later than grid"),
    "weights of the stage itself": ("stage: pretrain}", "stage: §grid}", "cannot take from itself"),
    "weights that are not kept": ("  - name: grid\n", "    keep_weights: false\n  - name: grid\n",
                                  "its keep_weights is false"),
    "weights of many winners": (
        "  - name: grid\n", "    per: seed\n    sweep: {grid: {seed: [0, 1]}}\n  - name: grid\n",
                                "pretrain: ends with a winner in each of 2 groups"),
    "weights of a group that is not there": ("{kind: stage, name: SUP, stage: pretrain}",
                                             "{kind: stage, name: SUP, stage: pretrain, group: §faces}",
                                             "no such group of stage pretrain"),
    "weights of a trial by key": ("{kind: stage, name: SUP, stage: pretrain}", "{kind: §trial, name: X, trial: abc}",
                                  "set by the planner alone", "write {kind: stage, ...}"),
    "neighbourhood without from": ("    from: grid\n    neighbourhood", "    §neighbourhood", "needs `from`"),
    "neighbourhood with a grid": ("    from: grid\n", "    from: grid\n    §sweep: {grid: {seed: [0, 1]}}\n",
                                  "a grid or a neighbourhood, not both"),
    "neighbourhood without moves": ("{multiply: [0.5, 2]}", "§{}", "needs values in multiply or add"),
    "neighbourhood of a word": ("optim.lr: {multiply", "task.dataset: §{multiply", "digits: not a number"),
    "neighbourhood that leaves the range": ("0.05], high: 1}", "0.15]}", "must be less than or equal to 1",
                                            "moved from 0.95; set low or high"),
    "per with from": ("    from: grid\n", "    from: grid\n    §per: seed\n", "has the groups of its source"),
    "sources with other groups": ("    from: [grid, refine]", "    §from: [pretrain, grid]", "form different groups",
                                  "give them the same `per`"),
    "one winner for all data sets": ("    per: [task.dataset, backbone.init]", "    §per: [backbone.init]",
                                     "lacks task.dataset", "add task.dataset"),
    "no per": ("  - name: grid\n    per: [task.dataset, backbone.init]\n", "  - §name: grid\n",
               "lacks backbone.init, task.dataset, whose values are tried", "add backbone.init, task.dataset"),
    "tie that is no rule": ("    from: grid\n", "    from: grid\n    ties: [§loss]\n", "figure:NAME:min"),
    "tie on an unknown field": (
        "    from: grid\n", "    from: grid\n    ties: [§'optim.lrr:min']\n", "nearest: optim.lr"),
    "test in the base": ("dataset: digits}\n  back", "dataset: digits, evaluate: §test}\n  back",
                         "test data before selection", "evaluate on another split here"),
    "test before selection": ("  - name: refine", "    override: {task.evaluate: §test}\n  - name: refine",
                              "winners are chosen from this stage (by refine, final)", "task.evaluate: test"),
    "test in a grid": ("[0.75, 0.95]\n", "[0.75, 0.95]\n        task.evaluate: [val, §test]\n",
                       "test data before selection", "task.evaluate: test"),
    "test while searching": ("    from: grid\n", "    from: grid\n    override: {task.evaluate: §test}\n",
                             "test data before selection"),
    "test of several settings": ("trainval, task.evaluate: test}\n",
                                 "trainval, task.evaluate: §test}\n    sweep: {grid: {backbone.drop_path: [0, 0.1]}}\n",
                                 "test data before selection: this stage tries several values of backbone.drop_path"),
    "test without winners": ("    override: {task.dataset: digits-pretrain}",
                             "    override: {task.dataset: faces, task.evaluate: §test}", "starts from its weights"),
    "test opened by hand": ("  task: {kind", "  §may_test: true\n  task: {kind", "set by the planner alone"),
    "two fields that do not go together": ("warmup_epochs: 1}", "warmup_epochs: §9}",
                                           "warmup_epochs 9 must be below epochs 4"),
    "missing field": ("optim: {lr: 1e-3, ", "optim: §{", "optim.lr: missing",
                      "set it in trial, or as an axis or override"),
    "missing name": ("name: test-grid\n", "§", "name: missing"),
    "no stages": (GOOD[GOOD.index("stages:") : GOOD.index("report:")], "stages: §[]\n", "stages", "at least 1 item"),
    "bad name": ("name: test-grid", "name: §Test Grid", "must look like"),
    "non-finite number": ("lr: 1e-3", "lr: §.inf", "trial.optim.lr: .inf: not a finite number"),
    "not a number": ("[0.75, 0.95]", "[0.75, §.nan]", "not a finite number"),
    "duplicate key": ("  optim: {lr", "  optim: {lr: 1, §lr", "duplicate key 'lr', first in line 6", "keep one"),
    "report of an unknown stage": ("report:\n", "report:\n  stage: §finl\n", "nearest: final"),
    "report by an unknown field": ("report:\n", "report:\n  rows: §backbone.inti\n", "nearest: backbone.init"),
    "average over an unknown column": ("over: [digits, faces]", "over: [digits, §face]",
                                       "report.averages.over: face: no trial has this column; task.dataset: digits, "
                                       "faces; nearest: faces"),
    "reference for an unknown column": ("report:\n", "report:\n  reference: {source: x, values: {SUP: {§face: 1}}}\n",
                                        "report.reference.values.SUP: face: no trial has this column",
                                        "nearest: faces"),
    "reference for an unknown row": ("report:\n", "report:\n  reference: {source: x, values: {§RAN: {faces: 1}}}\n",
                                     "report.reference.values: RAN: no trial has this row; backbone.init: RAND, SUP",
                                     "nearest: RAND"),
    "part of a GPU too many": ("report:\n", "resources: {gpus: §1.5}\nreport:\n", "above 1 only whole GPUs"),
    "too little of a processor": ("report:\n", "resources: {cpus: §1e-5}\nreport:\n", "Ray counts in steps of 0.0001"),
    "too little of a resource": ("report:\n", "resources: {custom: §{a100: 1e-5}}\nreport:\n", "a100: 1e-05: Ray "),
    "processors as a resource": ("report:\n", "resources: {custom: §{CPU: 1}}\nreport:\n", "CPU: write resources.cpus"),
    "memory as a resource": ("report:\n", "resources: {custom: §{memory: 8}}\nreport:\n", "Ray keeps this name for"),
    "a resource without a name": ("report:\n", 'resources: {custom: §{"": 1}}\nreport:\n', "at least one character"),
    "unknown profile by default": ("profile: small", "profile: §smal", "profiles: small, large; nearest: small"),
    "profile that is no mapping": ("small: {trial: {seed: 1}}", "small: §3", "must be a mapping of what it changes"),
    "profile with a misspelt field": ("{trial: {seed: 1}}", "{trial: {§sead: 1}}", "nearest: seed"),
    "profile with a wrong value": (
        "{trial: {seed: 1}}", "{trial: {seed: §-1}}", "-1: must be greater than or equal to 0"),
    "profile that changes no stage": ("{trial: {seed: 1}}", "{stages: {§gird: {per: seed}}}", "no such stage to change",
                                      "nearest: grid"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_mistake_is_named_at_its_place(case: str, write: Write) -> None:
    old, new, *words = BAD[case]
    assert GOOD.count(old) >= 1
    marked = GOOD.replace(old, new, 1)
    path = write(marked.replace("§", ""))
    problems = _problems(path)
    before = marked.partition("§")[0]
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    place = f"{path}:{line}:{column}: " if "§" in marked else f"{path}:"
    found = [problem for problem in problems if all(word in problem for word in words)]
    assert found, problems
    assert found[0].startswith(place), (found, place)
    assert len(problems) == 1, problems  # nothing of what follows from the mistake


def test_a_winner_is_of_one_data_set_even_where_data_sets_are_no_columns(write: Write) -> None:
    """Top-1 on two data sets cannot be compared, whatever the table shows."""
    text = GOOD.replace("report:\n  averages: [{name: Mean, over: [digits, faces]}]", "report: {columns: optim.batch}")
    text = text.replace("{task.train: trainval, task.evaluate: test}", "{optim.clip: 4}")
    load(write(text))
    (problem,) = _problems(write(text.replace("per: [task.dataset, backbone.init]", "per: [backbone.init]")))
    assert ":11:5: stages.grid.per: lacks task.dataset, whose values are tried" in problem


OTHER_TEST = {
    "official val chosen by": ("imagenet", "task.official_val: test", "", "task.official_val: val"),
    "other draw of Caltech's test": ("caltech101", "task.split_seed: 1", "", "task.split_seed: 0"),
    "pre-trained on another draw": (
        "caltech101", "", "{task: {kind: pretrain, dataset: caltech101, mask_patch: 16, split_seed: 2}}",
        "task.split_seed: 2"),
    "pre-training measured on it": (
        "imagenet, official_val: test", "", "{task: {kind: pretrain, dataset: imagenet, mask_patch: 16}}",
        "task.official_val: val"),
    "pre-trained on the same photographs": (
        "textures", "", "{task: {kind: pretrain, dataset: photo-tiles, mask_patch: 16}}", "task.dataset: photo-tiles"),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHER_TEST)
def test_images_that_are_test_to_one_stage_are_opened_by_no_other(case: str, write: Write) -> None:
    dataset, final, pretrain, rule = OTHER_TEST[case]
    name = dataset.partition(", ")[0]
    text = GOOD.replace("dataset: digits}", f"dataset: {dataset}}}").replace("[digits, faces]", f"[{name}]")
    text = text.replace("{task.dataset: digits-pretrain}", pretrain or f"{{task.dataset: {name}}}")
    asks = text.replace("task.evaluate: test", f"task.evaluate: test{final and ', '}{final}")
    (problem,) = _problems(write(asks))
    assert "final: " in problem
    assert f"test images of {name} are chosen here by task." in problem
    assert rule in problem


@pytest.mark.parametrize("dataset", ["imagenet, official_val: test", "caltech101, split_seed: 1"])
def test_any_rule_of_what_is_test_may_hold_for_a_whole_job(dataset: str, write: Write) -> None:
    name, own = dataset.split(", ")
    text = GOOD.replace("dataset: digits}", f"dataset: {dataset}}}").replace("[digits, faces]", f"[{name}]")
    override = f"{{task: {{kind: pretrain, dataset: {name}, mask_patch: 16, {own}}}}}"
    job = load(write(text.replace("{task.dataset: digits-pretrain}", override)))
    field, _, value = own.partition(": ")
    assert str(job.stages[0].override["task"][field]) == value
    assert str(job.trial["task"][field]) == value


def test_several_mistakes_are_told_in_one_go_in_the_order_of_the_text(write: Write) -> None:
    text = GOOD.replace("batch: 32", "bacth: 32, betas: .inf").replace("[digits, faces]\n", "[digits, facess]\n")
    text = text.replace("optim.layer_decay: [", "optim.layer_decai: [").replace("from: grid", "from: grd")
    text = text.replace("    per: [task", "    pre: [task")
    problems = _problems(write(text))
    assert [int(problem.split(":")[1]) for problem in problems] == [6, 6, 11, 17, 19]
    assert len(set(problems)) == len(problems)


def test_a_wrong_value_in_a_grid_is_told_once_for_all_its_trials(write: Write) -> None:
    problems = _problems(write(GOOD.replace("[0.75, 0.95]", "[0.75, -1]")))
    assert len(problems) == 1


def test_position_is_that_of_the_value_in_the_profile(write: Write) -> None:
    text = GOOD.replace("epochs: 8", "epochs: -8")
    load(write(text))  # the other profile is not laid over
    (problem,) = _problems(write(text), "large")
    line = next(i for i, line in enumerate(text.splitlines(), 1) if "epochs: -8" in line)
    assert f"spec.yaml:{line}:{text.splitlines()[line - 1].index('-8') + 1}: trial.optim.epochs: -8" in problem


def test_unknown_profile_names_the_known(write: Write) -> None:
    (problem,) = _problems(write(GOOD), "papr")
    assert problem.startswith("--profile papr: ")
    assert "profiles: small, large" in problem
    assert "nearest: large" in _problems(write(GOOD), "larg")[0]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optim.epocs=5", ["trial.optim.epocs", "no such field", "nearest: epochs"]),
        ("optm.epochs=5", ["trial.optm", "no such field", "nearest: optim"]),
        ("optim.epochs=five", ["trial.optim.epochs: five: must be a whole number"]),
        ("optim.epochs=[1", ["not YAML"]),
        ("optim.epochs", ["write it as path=value"]),
        ("=5", ["write it as path=value"]),
        ("optim..lr=5", ["write it as path=value"]),
        ("optim.clip=.nan", ["not a finite number"]),
        ("may_test=true", ["planner alone"]),
        ("stages.gird.resources.gpus=1", ["no 'gird' here", "allowed: pretrain, grid, refine, final", "nearest: grid"]),
        ("stages.grid.resources.gpu=1", ["stages.grid.resources.gpu", "nearest: gpus"]),
        ("stages.grid.override.optim.epocs=1", ["stages.grid.override", "nearest: optim.epochs"]),
        ("priority=high", ["priority: high: must be a whole number"]),
        ("name=other", ["cannot be overridden"]),
        ("profile=large", ["cannot be overridden"]),
        ("task.evaluate=test", ["test data before selection"]),
        ("stages.grid.sweep.grid.optim.lr=[-1]", ["optim.lr: -1: must be greater than 0"]),
        ("task.dataset=faces", ["has no effect: set by stage pretrain, grid", "override it there: stages.pretrain"]),
    ],
)
def test_wrong_override_is_named(override: str, words: list[str], write: Write) -> None:
    problems = _problems(write(GOOD), None, override)
    found = [problem for problem in problems if all(word in problem for word in words)]
    assert found, problems
    assert found[0].startswith(f"--set {override}: ")


def test_file_that_is_no_spec(tmp_path: Path, write: Write) -> None:
    assert "no such file" in _problems(tmp_path / "missing.yaml")[0]
    assert "is a directory" in _problems(tmp_path)[0]
    assert "a spec is a mapping" in _problems(write("- a\n- b\n"))[0]
    assert "empty file" in _problems(write(""))[0]
    (tmp_path / "binary.yaml").write_bytes(bytes(range(256)))
    assert "not a text file" in _problems(tmp_path / "binary.yaml")[0]
    assert "larger than" in _problems(write("#" * (1 << 20) + "\n"))[0]
    bomb = "\n".join(["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40)])
    (problem,) = _problems(write(bomb))
    assert re.search(r"spec\.yaml:1\d:\d+: more than 100,000 values", problem)
