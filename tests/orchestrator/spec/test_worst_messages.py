"""Mistakes that once had many, misplaced or misleading messages: each now has one, whole, where the mistake is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from good_spec import GOOD, GRID, Write, _problems

from orchestrator.spec.load import load, load_checking_profiles

ROOT = Path(__file__).parents[3]
K12 = (ROOT / "specs/k12_grid.yaml").read_text()
SEARCH = (ROOT / "specs/search.yaml").read_text()
STAGE = "fields: name, sweep, per, from, neighbourhood, override, ties, replicates, resources, keep_weights"
JOB = "fields: name, profile, trial, stages, resources, priority, report, claims, profiles"
KINDS = "kinds: classify, pretrain, analysis, pose, depth, detection, segmentation, tracking"
WORST = {
    "1 misspelt kind": (GOOD, "kind: classify,", "kind: §clasify,",
        f"trial.task.kind: clasify: no such kind; {KINDS}; nearest: classify"),
    "1 misspelt key kind": (GOOD, "kind: classify,", "§knd: classify,",
        f"trial.task.knd: no such field; nearest: kind; {KINDS}"),
    "1 misspelt kind in an axis": (GOOD, "{kind: stage, name: SUP", "{kind: §stag, name: SUP",
        "stages.grid: backbone.init.kind: stag: no such kind; kinds: none, file, timm, stage, trial; nearest: stage"),
    "1 misspelt key in an axis": (GOOD, "{kind: stage, name: SUP", "{§kid: stage, name: SUP",
        "stages.grid: backbone.init.kid: no such field; nearest: kind; kinds: none, file, timm, stage, trial"),
    "1 list for a kind": (GOOD, "kind: classify,", "kind: §[classify],",
        f'trial.task.kind: ["classify"]: no such kind; {KINDS}; nearest: classify'),
    "1 no kind": (GOOD, "{kind: classify, dataset: digits}", "§{dataset: digits}",
        f"trial.task: needs `kind`; {KINDS}"),
    "2 overrid": (K12, "    override: {task.dataset: digits-pretrain", "    §overrid: {task.dataset: digits-pretrain",
        'stages.supervised.overrid: {"task.dataset": "digits-pretrain", "backbone.init": {"ki...: no such field; '
        f"{STAGE}; nearest: override"),
    "3 stage": (K12, "\nstages:", "\n§stage:",
        'stage: [{"name": "supervised", "override": {"task.dataset": "dig...: no such field; '
        f"{JOB}; nearest: stages"),
    "4 broken stages": (K12, K12[K12.index("\nstages:"): K12.index("\nprofiles:")], "\nstages: §5\n",
        "stages: 5: must be a list"),
    "5 no values in an axis": (GOOD, "task.dataset: [digits, faces]", "task.dataset:§",
        "stages.grid.sweep.grid.task.dataset: null: must be a list of values, or logspace or linspace: [low, high, "
        "count]"),
    "5 null in an axis": (GOOD, "[0.75, 0.95]", "[0.75, §null]",
        "stages.grid: optim.layer_decay: null: must be a number"),
    "5 two values of three": (GOOD, "{logspace: [1e-4, 1e-2, 3]}", "{logspace: §[1e-4, 1e-2]}",
        "stages.grid.sweep.grid.optim.lr.logspace: missing item 3"),
    "5 an axis that one grid lacks": (
        GOOD.replace("lr: 1e-3, ", "").replace("digits-pretrain}", "digits-pretrain, optim.lr: 1e-3}"), GRID,
        "      grid:\n      - {optim.lr: [1e-3], backbone.drop_path: [0, 0.1]}\n      - §{backbone.drop_path: [0.2]}\n",
        "stages.grid: optim.lr: missing; another grid of this stage has it as an axis: add it here, or set it in trial"
    ),
    "6 not a number": (GOOD, "{task.dataset: digits-pretrain}",
        "{task: {kind: pretrain, dataset: digits, mask_patch: §.nan}, backbone.image_size: 48}",
        "stages.0.override.task.mask_patch: .nan: not a finite number; write one, or quote it as text"),
    "7 grace_epocsh": (SEARCH, "{grace_epochs: 8", "{§grace_epocsh: 8",
        "stages.search.sweep.stopping.asha.grace_epocsh: 8: no such field; fields: grace_epochs, reduction_factor, "
        "brackets, inside_warmup; nearest: grace_epochs"),
    "8 grid of numbers": (GOOD, GRID, "      grid: §[1, 2]\n",
        "stages.grid.sweep.grid: [1, 2]: must be {field: values, ...}, or a list of such grids"),
    "9 frm": (K12, "from: [grid, refine]", "§frm: grid",
        f"stages.final.frm: grid: no such field; {STAGE}; nearest: from"),
    "9 frm of a neighbourhood": (GOOD, "from: grid", "§frm: grid",
        f"stages.refine.frm: grid: no such field; {STAGE}; nearest: from"),
    "9 python's name": (GOOD, "from: grid", "§from_: grid",
        f"stages.refine.from_: grid: no such field; {STAGE}; nearest: from"),
    "10 workers": (GOOD, "    per: [task", "    resources: {workers: §3}\n    per: [task",
        "stages.grid: resources.workers: 3: does not go with optim.batch 32: mixup and cutmix pair the images of each "
        "worker's share; use a batch that is a multiple of 6"),
    "11 infinite range": (GOOD, "{logspace: [1e-4, 1e-2, 3]}", "{linspace: [§-1e308, 1e308, 3]}",
        "stages.grid.sweep.grid.optim.lr.linspace.0: -1e+308: must be greater than or equal to -1000000000000"),
    "13 long value": (GOOD, "epochs: 4", "epochs: §" + "x" * 9_999,
        f"trial.optim.epochs: {'x' * 57}...: must be a whole number"),
    "13 very long value": (GOOD, "epochs: 4", "epochs: §" + "x" * 200_000,
        "trial.optim.epochs: text of 200,000 characters; at most 10,000"),
    "13 long key": (GOOD, "epochs: 4", "§" + "x" * 300 + ": 4",
        f"trial.optim.{'x' * 57}...: 4: no such field; fields: "),
    "13 long name of a stage": (GOOD, "from: grid", "from: §" + "x" * 190,
        f"stages.refine.from: {'x' * 57}...: no such stage; earlier stages: pretrain, grid"),
    "14 C1": (GOOD, "name: test-grid", "name: test-§\x9bgrid",
        "control character U+009B: a spec is YAML text in UTF-8 without control characters; remove it"),
    "15 text for a stage": (GOOD, "  - name: refine\n", "  - §refine\n  - name: refine\n",
        f"stages.2: refine: must be a mapping; {STAGE}"),
    "15 text for a plot": (GOOD, "report:\n", "report:\n  plots: [§x]\n",
        "report.plots.0: x: must be a mapping; fields: title, x, of, y, second"),
    "15 list for the report": (GOOD, GOOD[GOOD.index("report:"):GOOD.index("profiles:")], "report: §[1]\n",
        "report: [1]: must be a mapping; fields: stage, rows, columns, figures, averages, reference, plots, layers, "
        "caption"),
    "15 misspelt form of a sweep": (GOOD, "      grid:\n", "      §gird:\n".replace("§", ""),
        "stages.grid.sweep: "),
}  # fmt: skip


@pytest.mark.parametrize("case", WORST)
def test_one_mistake_has_one_message_at_its_place(case: str, tmp_path: Path) -> None:
    text, old, new, message = WORST[case]
    assert text.count(old) >= 1
    marked = text.replace(old, new, 1)
    path = tmp_path / "spec.yaml"
    path.write_bytes(marked.replace("§", "").encode())
    problems = _problems(path)
    before = marked.partition("§")[0]
    place = f"{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}" if "§" in marked else r"\d+:\d+"
    assert len(problems) == 1, problems
    whole = message.endswith(("fields: ", "sweep: "))
    assert re.match(rf"{re.escape(str(path))}:{place}: {re.escape(message)}{'' if whole else '$'}", problems[0]), (
        problems
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("nan", "trial.optim.lr: nan: must be a number"),
        (".nan", ".nan: not a finite number; write one, or quote it as text"),
        ("-1", "trial.optim.lr: -1: must be greater than 0"),
        ("1", "optim.lr: has no effect: set by stage grid; override it there: stages.grid..."),
    ],
)
def test_12_an_override_without_effect_is_first_of_all_wrong(value: str, message: str, write: Write) -> None:
    text = GOOD.replace("  - name: pretrain\n    override: {task.dataset: digits-pretrain}\n", "")
    text = text.replace(", {kind: stage, name: SUP, stage: pretrain}", "")
    assert _problems(write(text), None, f"optim.lr={value}") == [f"--set optim.lr={value}: {message}"]


# What was accepted, and should not be


@pytest.mark.parametrize("profiles", ["[p]", "5", "p", "null", "[{small: {}}]"])
def test_profiles_are_a_mapping_whether_one_is_applied_or_not(profiles: str, write: Write) -> None:
    text = GOOD[: GOOD.index("profiles:")].replace("profile: small\n", "") + f"profiles: {profiles}\n"
    for asked in (None, "", "small"):
        (problem,) = _problems(write(text), asked)
        assert ":28:11: profiles: " in problem
        assert problem.endswith("must be a mapping from a profile's name to what it changes")


UNUSED = {
    "no mapping": (GOOD[GOOD.index("  large:") :], "  large: §5\n", "profiles.large: 5: must be a mapping"),
    "misspelt": ("optim: {epochs: 8}", "optim: {§epcohs: 8}", "trial.optim.epcohs: 8: no such field"),
    "unknown stage": ("      pretrain: null", "      §pretrian: null", "stages.pretrian: no such stage to change"),
    "field of the job": ("    stages:\n      pretrain", "    §stage:\n      pretrain", "stage: {"),
    "later stage": ("from: grid, sweep: {grid: {seed", "from: §gird, sweep: {grid: {seed", "gird: no such stage"),
    "wrong value": ("{linspace: [0.1, 0.3, 3]}", "{linspace: [0.1, 0.3, §1]}", "1: must be greater than or equal to 2"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNUSED)
def test_validate_checks_the_profiles_that_are_not_applied(case: str, write: Write) -> None:
    from orchestrator.errors import SpecError

    old, new, words = UNUSED[case]
    assert old in GOOD
    marked = GOOD.replace(old, new, 1)
    path = write(marked.replace("§", ""))
    with pytest.raises(SpecError, match=re.escape(words)) as caught:
        load_checking_profiles(path)
    (problem,) = caught.value.problems
    before = marked.partition("§")[0]
    place = f":{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}: " if "§" in marked else ":"
    assert problem.startswith(f"{path}{place}")
    if case != "no mapping":
        load(path)  # a job does not wait for what it does not use


def test_a_mistake_outside_the_profiles_is_told_once_by_validate(write: Write) -> None:
    from orchestrator.errors import SpecError

    with pytest.raises(SpecError, match="bacth") as caught:
        load_checking_profiles(write(GOOD.replace("batch: 32", "bacth: 32")))
    assert len(caught.value.problems) == 1
    assert load_checking_profiles(write(GOOD)) == load(write(GOOD))
    assert load_checking_profiles(write(GOOD), "large") == load(write(GOOD), "large")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs: 4", "epochs: !!null 20", "trial.optim.epochs: tag !!null: the value is something else; remove"),
        ("epochs: 4", "epochs: !!float 4", "trial.optim.epochs: tag !!float: the value is something else; remove"),
        ("epochs: 4", "epochs: !!bool 4", "trial.optim.epochs: tag !!bool: the value is something else; remove"),
        ("batch: 32", "batch: !!int true", "trial.optim.batch: tag !!int: the value is something else; remove"),
        ("optim: {", "optim: !!seq {", "trial.optim: tag !!seq: the value is something else; remove the tag"),
        ("[0.75, 0.95]", "!!map [0.75, 0.95]", "optim.layer_decay: tag !!map: the value is something else"),
        ("batch: 32", "batch: !!binary 32", "tag tag:yaml.org,2002:binary: YAML tags are not supported; write a plain"),
        ("batch: 32", "!!null batch: 32", "a key must be a plain word"),
        ("batch: 32", "&a batch: 32", "a key must be a plain word"),
    ],
)  # fmt: skip
def test_a_tag_is_not_ignored(old: str, new: str, message: str, write: Write) -> None:
    (problem,) = _problems(write(GOOD.replace(old, new, 1)))
    assert message in problem
    tagged = "a: !!int 4\nb: !!float 4.5\nc: !!str 4\nd: !!null ~\ne: !!bool true\nf: !!seq [1]\ng: !!map {x: 1}\n"
    tagged += "h: ! 5\ni: !!int '6'\n"
    from orchestrator.spec.yaml_nodes import parse

    fine = parse(tagged, "f")
    assert fine.problems == []
    assert list(fine.root.plain().values()) == [4, 4.5, "4", None, True, [1], {"x": 1}, "5", 6]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs: 4", "epochs: §four", "trial.optim.epochs: four: must be a whole number"),
        ("{lr: 1e-3, batch: 32, epochs: 4, warmup_epochs: 1}", "§5", "trial.optim: 5: must be a mapping; fields: lr, "),
        ("init: {kind: none}}", "init: §none}", "trial.backbone.init: none: must be a mapping"),
        ("model: vit_tiny_patch16_224", "model: §vit_tini", "trial.backbone.model: vit_tini: no such timm model"),
        ("report:\n", "resources: §3\nreport:\n", "resources: 3: must be a mapping; fields: cpus, gpus"),
        ("report:\n", "resources: {gpus: §two}\nreport:\n", "resources.gpus: two: must be a number"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_told_though_a_profile_replaces_it(old: str, new: str, message: str, write: Write) -> None:
    over = (
        "profiles:\n  small:\n    resources: {gpus: 1}\n    trial:\n"
        "      backbone: {model: vit_tiny_patch16_224, init: {kind: none}}\n"
        "      optim: {lr: 1e-3, batch: 32, epochs: 4, warmup_epochs: 1}\n"
    )
    text = GOOD[: GOOD.index("profiles:")] + over
    load(write(text))
    marked = text.replace(old, new, 1)
    before = marked.partition("§")[0]
    path = write(marked.replace("§", ""))
    (problem,) = _problems(path)
    place = f"{path}:{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}: "
    assert problem.startswith(place + message)


def test_what_a_profile_completes_is_no_mistake(write: Write) -> None:
    text = GOOD.replace("lr: 1e-3, batch: 32", "lr: null").replace("epochs: 4", "epochs: 1")
    text = text.replace("{trial: {seed: 1}}", "{trial: {optim: {lr: 1e-3, batch: 32, epochs: 4}}}")
    assert load(write(text)).trial["optim"] == {"lr": 1e-3, "batch": 32, "epochs": 4, "warmup_epochs": 1}


def test_what_follows_from_an_unreadable_value_is_not_told(write: Write) -> None:
    """Without its length in iterations the rest of this section would be wrong."""
    optim = "optim: {lr: 1e-3, batch: 32, iterations: .inf, schedule: step, step_iterations: [5]}"
    text = GOOD.replace("optim: {lr: 1e-3, batch: 32, epochs: 4, warmup_epochs: 1}", optim)
    assert len(_problems(write(text.replace("iterations: .inf", "iterations: 0")))) == 1
    (problem,) = _problems(write(text))
    assert ":6:44: trial.optim.iterations: .inf: not a finite number" in problem


def test_a_mistake_that_each_profile_words_anew_is_told_once_by_validate(write: Write) -> None:
    from orchestrator.errors import SpecError

    with pytest.raises(SpecError, match="warmup_epochs 9 must be below epochs 4") as caught:
        load_checking_profiles(write(GOOD.replace("warmup_epochs: 1}", "warmup_epochs: 9}")))  # large: below epochs 8
    assert len(caught.value.problems) == 1
