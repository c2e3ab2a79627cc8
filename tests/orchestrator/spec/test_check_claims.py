"""Claims are checked when the spec is read: what a claim names must be able to exist."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from good_spec import GOOD

from orchestrator.errors import SpecError
from orchestrator.spec import load
from orchestrator.spec.job import job_id
from tasks.classification.task import Classify

CLAIMS = """\
claims:
  - name: sup-ahead
    text: Supervised weights are ahead of random ones.
    left: {row: SUP, column: digits}
    right: {row: RAND, column: digits}
    relation: above
"""
WITH_CLAIMS = GOOD.replace("profiles:\n", CLAIMS + "profiles:\n", 1)
LEFT, RIGHT = "left: {row: SUP, column: digits}", "right: {row: RAND, column: digits}"

MISTAKES: dict[str, tuple[str, str, str]] = {
    "claim without margin": (
        "relation: above",
        "relation: within",
        "claims.sup-ahead: within needs a margin above 0, and it is 0",
    ),
    "relation": (
        "relation: above",
        "relation: over",
        "claims.sup-ahead.relation: over: not allowed; allowed: above, below, within; nearest: above",
    ),
    "side of a claim": (
        RIGHT,
        "right: RAND",
        "claims.sup-ahead.right: RAND: must be a number, or {row: .., column: .., figure: ..}",
    ),
    "field of a side": (
        LEFT,
        "left: {rwo: SUP, column: digits}",
        "claims.sup-ahead.left.rwo: SUP: no such field; fields: row, column, figure, stage, layer, "
        "layers, item, pairs, reduce, published; nearest: row",
    ),
    "row of a claim": (
        "row: SUP",
        "row: SUPP",
        "claims.sup-ahead.left.row: SUPP: no trial has this row; rows: RAND, SUP; nearest: SUP",
    ),
    "column of a claim": (
        LEFT,
        "left: {row: SUP, column: dogs}",
        "claims.sup-ahead.left.column: dogs: no trial has this column; columns: digits, faces; nearest: digits",
    ),
    "column left out": (
        LEFT,
        "left: {row: SUP}",
        "claims.sup-ahead.left.column: missing; columns: digits, faces",
    ),
    "row that the stage lacks": (
        LEFT,
        "left: {row: RAND, column: digits-pretrain, stage: grid}",
        "claims.sup-ahead.left.column: digits-pretrain: no trial has this column; columns: digits, "
        "faces; nearest: digits",
    ),
    "stage of a claim": (
        LEFT,
        "left: {row: SUP, column: digits, stage: fnal}",
        "claims.sup-ahead.left.stage: fnal: no such stage; stages: pretrain, grid, refine, final; nearest: final",
    ),
    "figure of a claim": (
        LEFT,
        "left: {row: SUP, column: digits, figure: top2}",
        "claims.sup-ahead.left.figure: top2: no such figure; figures: top1, mean_per_class, loss; nearest: top1",
    ),
    "layer of a classifier": (
        LEFT,
        "left: {row: SUP, column: digits, layer: 3}",
        "claims.sup-ahead.left.figure: top1: has no values per layer or item; figures that have: mean_per_class",
    ),
    "layers": (
        LEFT,
        "left: {row: SUP, column: digits, layers: 3}",
        "claims.sup-ahead.left.layers: 3: must be a list of layers, {first: n} or {last: n}",
    ),
    "both ends of layers": (
        LEFT,
        "left: {row: SUP, column: digits, layers: {first: 1, last: 2}}",
        "claims.sup-ahead.left.layers: needs one of first and last: {last: 3}",
    ),
    "no layers": (
        LEFT,
        "left: {row: SUP, column: digits, layers: []}",
        "claims.sup-ahead.left.layers: []: empty; must have at least 1 item",
    ),
    "layer and layers": (
        LEFT,
        "left: {row: SUP, column: digits, layer: 1, layers: [1]}",
        "claims.sup-ahead.left: has layer and layers; keep one of them",
    ),
    "published that is not": (
        RIGHT,
        "right: {row: SUP, column: digits, published: true}",
        "claims.sup-ahead.right.published: report.reference has no number of SUP on digits",
    ),
    "layer of a published number": (
        RIGHT,
        "right: {row: SUP, column: digits, published: true, layer: 1}",
        "claims.sup-ahead.right: a published number has no stage, layers, item, pairs or reduce; remove them",
    ),
    "two numbers": (
        f"{LEFT}\n    {RIGHT}",
        "left: 1\n    right: 2",
        "claims.sup-ahead: neither left nor right reads a trial; one of them must",
    ),
    "images of a figure without": (
        "relation: above",
        "relation: above\n    over: images",
        "claims.sup-ahead.over: images: top1 has no value per image; figures that have: none",
    ),
    "anchor": (
        "relation: above",
        "relation: above\n    anchor: MIM",
        "claims.sup-ahead.anchor: MIM: no trial has this row; rows: RAND, SUP",
    ),
    "sensitivity": (
        "relation: above",
        "relation: above\n    sensitivity: [losss]",
        "claims.sup-ahead.sensitivity.0: losss: no such figure; figures: top1, mean_per_class, loss; nearest: loss",
    ),
    "units": (
        LEFT,
        "left: {row: SUP, column: digits, figure: loss}",
        "claims.sup-ahead.right: left is in no unit, right in %: compare figures of one unit",
    ),
    "name of a claim": (
        "name: sup-ahead",
        "name: SUP ahead",
        "claims.SUP ahead.name: SUP ahead: must look like ^[a-z0-9][a-z0-9_-]*$",
    ),
    "margin": (
        "relation: above",
        "relation: above\n    margin: 1e13",
        "claims.sup-ahead.margin: 10000000000000.0: must be less than or equal to 1000000000000",
    ),
    "two claims of one name": (
        "relation: above",
        "relation: above\n  - {name: sup-ahead, left: {row: SUP, column: digits}, right: 9, relation: above}",
        "claims.name: sup-ahead: a second claim of this name; rename one of them",
    ),
}
_GRID = """\
        task.dataset: [digits, faces]
        backbone.init: [{kind: none, name: RAND}, {kind: stage, name: SUP, stage: pretrain}]
        optim.lr: {logspace: [1e-4, 1e-2, 3]}
        optim.layer_decay: [0.75, 0.95]
"""
_TWO_GRIDS = """\
        - task.dataset: [digits, faces]
          backbone.init: [{kind: none, name: RAND}]
          optim.lr: [1e-3]
          optim.layer_decay: [0.75, 0.95]
        - task.dataset: [faces]
          backbone.init: [{kind: stage, name: SUP, stage: pretrain}]
          optim.lr: [1e-3]
          optim.layer_decay: [0.75, 0.95]
"""
PARTIAL = WITH_CLAIMS.replace(_GRID, _TWO_GRIDS).replace(LEFT, "left: {row: SUP, column: digits, stage: grid}")
"""SUP runs on faces alone, and the claim reads it on digits."""


def problems(text: str, folder: Path) -> list[str]:
    path = folder / "claims.yaml"
    path.write_text(text)
    try:
        load(path)
    except SpecError as error:
        return [line.removeprefix(f"{path}:").partition(": ")[2] for line in error.problems]
    return []


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_with_its_remedy(name: str, tmp_path: Path) -> None:
    old, new, expected = MISTAKES[name]
    assert problems(WITH_CLAIMS.replace(old, new, 1), tmp_path) == [expected]


def test_a_row_and_a_column_that_never_meet(tmp_path: Path) -> None:
    what = "claims.sup-ahead.left.column: digits: no trial of row SUP has this column; its columns: faces"
    assert problems(PARTIAL, tmp_path) == [what]
    assert problems(PARTIAL.replace("SUP, column: digits", "SUP, column: faces"), tmp_path) == []


@pytest.mark.parametrize(
    "changed",
    [
        LEFT,
        "left: {row: SUP, column: digits, stage: refine, figure: mean_per_class}",
        "left: 90",
        "left: {row: SUP, column: faces}\n    over: seeds\n    anchor: RAND\n    sensitivity: [mean_per_class]",
    ],
)
def test_claims_that_are_right(changed: str, tmp_path: Path) -> None:
    assert problems(WITH_CLAIMS.replace(LEFT, changed), tmp_path) == []


def test_a_published_number_that_the_reference_has(tmp_path: Path) -> None:
    text = WITH_CLAIMS.replace(RIGHT, "right: {row: SUP, column: digits, published: true}")
    reference = "report:\n  reference: {source: a paper, values: {SUP: {digits: 95}}}\n"
    assert problems(text.replace("report:\n", reference), tmp_path) == []


@pytest.mark.parametrize(
    ("left", "over", "expected"),
    [
        ("figure: distance, layer: -1", "seeds", []),
        ("figure: distance, layers: {last: 3}, reduce: min", "seeds", []),
        ("figure: correct", "images", []),
        ("figure: distance", "images", ["claims.sup-ahead.over: images: distance has no value per image; "
                                        "figures that have: correct"]),
        ("figure: distanse", "seeds", ["claims.sup-ahead.left.figure: distanse: no such figure; figures: top1, "
                                       "mean_per_class, loss, distance, correct; nearest: distance"]),
    ],
)  # fmt: skip
def test_a_task_says_which_figures_have_values_per_layer_and_image(
    left: str, over: str, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = {"distance": "", "correct": "image"}
    monkeypatch.setattr(Classify, "measured_figures", property(lambda task: measured))
    text = WITH_CLAIMS.replace(LEFT, f"left: {{row: SUP, column: digits, {left}}}").replace(RIGHT, "right: 1")
    assert problems(text.replace("relation: above", f"relation: above\n    over: {over}"), tmp_path) == expected


def test_a_claim_is_part_of_the_jobs_id_and_no_claims_are_none(tmp_path: Path) -> None:
    def identity(text: str) -> str:
        path = tmp_path / "claims.yaml"
        path.write_text(text)
        return job_id(load(path))

    plain, claimed = identity(GOOD), identity(WITH_CLAIMS)
    assert plain == identity(GOOD.replace("profiles:\n", "claims: []\nprofiles:\n", 1))
    assert claimed != plain
    assert claimed != identity(WITH_CLAIMS.replace("relation: above", "relation: above\n    margin: 1"))


def test_a_side_of_a_recorded_job_is_as_written(tmp_path: Path) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text(WITH_CLAIMS.replace(RIGHT, "right: 90"))
    job = load(path)
    dumped: dict[str, Any] = job.model_dump(mode="json", by_alias=True)
    assert dumped["claims"][0]["right"] == 90.0
    assert type(job).model_validate(dumped) == job
