"""However much a spec asks for, it is refused by arithmetic, in few lines; what is allowed is counted exactly."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from good_spec import GOOD, GRID, Write, _problems

import orchestrator.spec.check_sizes as check_sizes
import orchestrator.spec.check_trials as check_trials
from orchestrator.spec import load
from orchestrator.spec.yaml_nodes import read

RANGE = "      search: {optim.lr: {loguniform: [1e-3, 1e-2]}}\n"
SEARCH = RANGE + "      each: {optim.layer_decay: EACH}\n      trials: TRIALS\n"
PER = "    per: [task.dataset, backbone.init]\n"

TOO_MANY = {
    "groups of a search": (GRID, SEARCH.replace("EACH", "{linspace: [0.1, 1, 10000]}").replace("TRIALS", "11"),
                           "110,000 trials (110,001 with the stages before); a job has at most 100,000"),
    "trials of a search": (GRID, SEARCH.replace("EACH", "[0.5, 1]").replace("TRIALS", "50000"),
                           "100,000 trials (100,001 with the stages before); a job has at most 100,000"),
    "several grids": (GRID, "      grid: [{seed: {linspace: [1, 9, 10000]}, optim.lr: {linspace: [0.1, 1, 9]}}, "
                      "{seed: {linspace: [1, 9, 10000]}, optim.lr: {linspace: [2, 3, 2]}}]\n",
                      "stages.grid.sweep: 110,000 trials"),
    "box around a winner": ("      near:\n", "      shape: box\n      near:\n" + "".join(
        f"        optim.{field}: {{multiply: [{', '.join(str(1 + n / 1000) for n in range(99))}]}}\n"
        for field in ("weight_decay", "clip", "step_factor")
    ), "stages.refine.neighbourhood: 36,000,000 trials"),
    "groups of the winners": ("    from: [grid, refine]\n", "    from: [grid, refine]\n"
                              "    sweep: {grid: {seed: {linspace: [0, 9999, 10000]}, runtime.checkpoint_minutes: "
                              "{linspace: [1, 9, 3]}}}\n", "stages.final.sweep: 120,000 trials (120,"),
}  # fmt: skip


@pytest.mark.parametrize("case", TOO_MANY)
def test_more_trials_than_can_be_planned_are_refused_before_any_is_made(
    case: str, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new, words = TOO_MANY[case]
    assert old in GOOD
    text = GOOD.replace(old, new, 1)
    text = text.replace(PER, "") if "search: {" in new else text
    (problem,) = _problems(write(text))
    assert words in problem


def test_a_job_has_as_many_trials_as_its_stages_together(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """GOOD has 1, 2 x 2 x 3 x 2 = 24, (2 + 2) around each of 4 winners = 16, and 4 trials."""
    monkeypatch.setattr(check_sizes, "MAX_TRIALS", 45)
    load(write(GOOD))
    monkeypatch.setattr(check_sizes, "MAX_TRIALS", 44)
    (problem,) = _problems(write(GOOD))
    assert "stages.final.sweep: 4 trials (45 with the stages before); a job has at most 44" in problem
    monkeypatch.setattr(check_sizes, "MAX_TRIALS", 24)
    (problem,) = _problems(write(GOOD))
    assert "stages.grid.sweep: 24 trials (25 with the stages before)" in problem


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("profiles:\n", "".join(f"k{number}: 1\n" for number in range(20_000)) + "profiles:\n"),
        ("batch: 32", "batch: 32, " + ", ".join(f"k{number}: 1" for number in range(20_000))),
        ("  - name: refine", "    override: {" + ", ".join(f"k{n}: 1" for n in range(20_000)) + "}\n  - name: refine"),
        ("[0.75, 0.95]", "[" + ", ".join(str(2 + number / 10_000) for number in range(8_000)) + "]"),
        ("  - name: refine", "".join(f"  - {{name: s{number}}}\n" for number in range(400)) + "  - name: refine"),
        ("stages:\n", "a: 1\n" * 20_000 + "stages:\n"),
        ("report:\n", "report:\n  plots: [" + "x, " * 20_000 + "x]\n"),
    ],
    ids=["job", "optim", "override", "axis", "stages", "duplicates", "list"],
)
def test_thousands_of_mistakes_are_told_in_some_lines(old: str, new: str, write: Write) -> None:
    problems = _problems(write(GOOD.replace(old, new, 1)))
    assert len(problems) <= 51
    assert max(map(len, problems)) < 1300
    if len(problems) == 51:
        assert problems[-1].startswith("... and ")
        assert problems[-1].endswith(" more")


def test_the_lines_say_how_many_more_there_are(write: Write) -> None:
    text = GOOD.replace("profiles:\n", "".join(f"k{number}: 1\n" for number in range(60_000)) + "profiles:\n")
    assert _problems(write(text))[-1] == "... and 59,950 more"
    text = GOOD.replace("profiles:\n", "".join(f"k{number}: 1\n" for number in range(50)) + "profiles:\n")
    assert len(_problems(write(text))) == 50
    assert "k49" in _problems(write(text))[-1]


def test_a_value_that_is_reported_is_tried_in_no_other_trial(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[object] = []
    check = check_trials._validate

    def counted(*arguments: object) -> object:
        tried.append(arguments)
        return check(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(check_trials, "_validate", counted)
    values = ", ".join(str(2 + number / 10_000) for number in range(500))
    assert len(_problems(write(GOOD.replace("[0.75, 0.95]", f"[{values}]")))) == 51
    assert len(tried) < 510  # each value once: not in all of 12 trials


@pytest.mark.parametrize("kind", ["pipe", "device", "directory", "missing", "NUL"])
def test_what_is_no_file_is_refused_without_waiting(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    if kind == "pipe":
        os.mkfifo(path)  # nobody writes to it: to open it would block for ever
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "directory":
        path.mkdir()
    elif kind == "NUL":
        path = tmp_path / "a\0b"
    (problem,) = read(path).problems
    assert str(problem).isprintable()
    words = {"pipe": "is not a file but a pipe or a device", "directory": "is a directory", "missing": "no such file"}
    assert {**words, "device": words["pipe"], "NUL": "cannot be read"}[kind] in str(problem)
