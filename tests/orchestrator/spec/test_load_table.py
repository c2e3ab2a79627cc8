"""Every mistake in a table file is one line: its place, the field, the value, and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from two_specs import TABLE, write

from orchestrator.errors import SpecError
from orchestrator.launch.joined_jobs import joined_table
from orchestrator.spec.load_table import load_table

MISTAKES = {
    "name": ("name: both", "name: Both Tables"),
    "misspelt field": ("columns:", "colums:"),
    "no columns": (TABLE[TABLE.index("columns:") : TABLE.index("rows:")], "columns: []\n"),
    "misspelt field of a column": ("stage: train", "stge: train"),
    "no title": ("{title: Masked, ", "{"),
    "a mapping for a value": ("{task.dataset: digits}", "{task.dataset: {kind: none}}"),
    "no value": ("{task.dataset: digits}", "{task.dataset: []}"),
    "text for a published value": ("Digits: 70", "Digits: high"),
    "title and figure twice": ("{title: Textures, job: semantic.yaml, where: {task.dataset: textures}, figure: top1}",
                               "{title: Digits, job: semantic.yaml, where: {task.dataset: textures}, figure: top1}"),
    "average of a title": ("{name: Mean,", "{name: Masked,"),
    "row twice": ("name: supervised, weights", "name: random, weights"),
    "published row twice": ("name: HRFormer", "name: random"),
    "row of everything": ("{name: random, weights: RAND}", "{name: random}"),
    "weights twice": ("weights: RAND}", "weights: RAND, where: {backbone.init: RAND}}"),
    "field": ("task.dataset: digits", "task.datset: digits"),
    "field of a row": ("weights: RAND}", "weights: RAND, where: {optim.lrr: 1e-3}}"),
    "column of an average": ("over: [Digits, Textures]", "over: [Digits, Texture]"),
    "column of several figures": ("figure: loss}", "figure: loss}\n  - {title: Digits, job: masked.yaml}"),
    "no source": ("  source: Table 9 of a paper\n", ""),
    "published row": ("values: {random: {", "values: {randm: {"),
    "published column": ("Digits: 70", "Digts: 70"),
    "published figure": ("Masked: 0.5", "Masked: {los: 0.5}"),
    "published figure of an average": ("Mean: 91", "Mean: {top1: 91}"),
    "published column of another row": ("values: {Digits: 90", "values: {Digts: 90"),
    "stage": ("stage: train", "stage: trian"),
    "figure": ("figure: top1", "figure: topp1"),
    "data set": ("dataset: textures", "dataset: texture"),
    "weights": ("weights: RAND", "weights: RND"),
    "weights under where": ("weights: RAND}", "where: {backbone.init: RND}}"),
    "conditions that nothing meets": (
        "weights: RAND}", "weights: RAND, where: {task.dataset: digits, task.kind: pretrain}}"
    ),
}  # fmt: skip
"""Name -> text in the table, and what takes its place."""
JOB = "name: job\ntrial: {seed: 1}\nstages: [{name: only}]\n"
LIST = "- a\n"


def problems(folder: Path, text: str) -> list[str]:
    path = write(folder, text)
    try:
        joined_table(path, None)
    except SpecError as error:
        return [line.removeprefix(f"{path}:") for line in error.problems]
    return []


def test_the_table_itself_is_right(tmp_path: Path) -> None:
    assert problems(tmp_path, TABLE) == []


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(name: str, tmp_path: Path) -> None:
    """Its words are in messages.txt."""
    old, new = MISTAKES[name]
    assert TABLE.count(old) >= 1
    lines = problems(tmp_path, TABLE.replace(old, new, 1))
    assert len(lines) == 1, lines


def test_the_spec_of_a_job_is_no_table(tmp_path: Path) -> None:
    assert problems(tmp_path, JOB) == ["1:1: this is the spec of a job, not a table; print its table with: report JOB"]
    assert problems(tmp_path, LIST) == ["1:1: a table is a mapping with name, columns and rows"]


def test_values_may_be_single_and_of_every_kind(tmp_path: Path) -> None:
    where = (
        "{task.dataset: digits, optim.lr: [1e-3, 0.002], seed: 0, task.evaluate: test, optim.clip: [5.0, null, true]}"
    )
    table, _ = load_table(write(tmp_path, TABLE.replace("{task.dataset: digits}", where)))
    assert table.columns[0].where["optim.lr"] == [0.001, 0.002]
    assert table.columns[0].where["optim.clip"] == [5.0, None, True]
    assert table.rows[0].weights == ["RAND"]
