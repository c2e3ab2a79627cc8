"""What the seeds of a cell have in common before their own training, from the recorded lineage."""

from __future__ import annotations

import pytest
from recorded_study import Plot, Study

from orchestrator.records.recorded_spec import has_given_weights
from orchestrator.records.rows import StartRow
from orchestrator.report.build import build
from orchestrator.report.pretraining import pretraining, starts_of
from orchestrator.report.wording import title
from orchestrator.store.store import Store

RANDOM, FILE = StartRow((), given=False), StartRow((), given=True)


def after(*parents: str, given: bool = False) -> StartRow:
    return StartRow(parents, given)


@pytest.mark.parametrize(
    ("starts", "expected"),
    [
        ({"a": RANDOM, "b": RANDOM}, "random"),
        ({"a": FILE, "b": FILE}, "checkpoint"),
        ({"a": after("p"), "b": after("p"), "p": RANDOM}, "run"),
        ({"a": after("p"), "b": after("q"), "p": RANDOM, "q": RANDOM}, "own"),
        ({"a": after("p"), "b": after("q"), "p": after("r"), "q": after("s"), "r": RANDOM, "s": RANDOM}, "own"),
        # both pre-trainings go back to one
        ({"a": after("p"), "b": after("q"), "p": after("r"), "q": after("r"), "r": RANDOM}, "partly"),
        # both start from the same file
        ({"a": after("p"), "b": after("q"), "p": FILE, "q": FILE}, "partly"),
        # two models are read, of which one is the same
        ({"a": after("p", "x"), "b": after("q", "x"), "p": RANDOM, "q": RANDOM, "x": RANDOM}, "partly"),
        ({"a": after("p"), "b": RANDOM, "p": RANDOM}, "partly"),
        # trials that were removed from the store are not followed
        ({"a": after("p"), "b": after("q")}, "own"),
    ],
)
def test_what_seeds_share(starts: dict[str, StartRow], expected: str) -> None:
    assert pretraining(["a", "b"], starts) == expected


def test_two_of_three_seeds_from_one_run_share_a_part() -> None:
    starts = {"a": after("p"), "b": after("p"), "c": after("q"), "p": RANDOM, "q": RANDOM}
    assert pretraining(["a", "b", "c"], starts) == "partly"


@pytest.mark.parametrize(
    ("spec", "given"),
    [
        ({"backbone": {"init": {"kind": "file", "path": "a"}}}, True),
        ({"backbone": {"init": {"kind": "timm", "tag": "a"}}}, True),
        ({"backbone": {"init": {"kind": "none"}}, "task": {"kind": "file"}}, False),
        ({"backbone": {"init": {"kind": "trial", "trial": "a"}}}, False),
        ({"task": {"models": [{"init": {"kind": "none"}}, {"init": {"kind": "file"}}]}}, True),
    ],
)
def test_given_weights_are_found_wherever_a_model_starts_from_them(spec: dict[str, object], given: bool) -> None:
    assert has_given_weights(spec) == given


@pytest.mark.parametrize(
    ("initial", "kind", "words"),
    [
        ("own", "own", "; SUP: each seed has its own pre-training (whole chains)"),
        ("run", "run", "; SUP: one pre-training run: seeds vary fine-tuning alone"),
        ("checkpoint", "checkpoint", "; SUP: one checkpoint: seeds vary fine-tuning alone"),
        ("", "random", "conditional on the chosen setting"),
    ],
)
def test_the_caption_says_what_the_recorded_lineage_tells(store: Store, initial: str, kind: str, words: str) -> None:
    report = build(store, Study(store, Plot(initial=initial)).run())
    assert {(cell.row, cell.pretraining) for cell in report.cells} == {("RAND", "random"), ("SUP", kind)}
    assert title(report).endswith(words)


def test_one_seed_has_nothing_in_common_with_another(store: Store) -> None:
    report = build(store, Study(store, Plot(initial="run", seeds=(0,))).run())
    assert {cell.pretraining for cell in report.cells} == {None}
    assert "pre-training" not in title(report)


def test_starts_are_read_to_the_beginning(store: Store) -> None:
    study = Study(store, Plot(initial="own"))
    job = study.run()
    finals = [trial for trial in store.trials.placed(job, "final") if trial.group == "digits/SUP"]
    starts = starts_of(store, [trial.key for trial in finals])
    assert {trial.seed: starts[trial.key].parents for trial in finals} == {
        seed: (key,) for seed, key in study.pretrained.items()
    }
    assert starts.keys() == {trial.key for trial in finals} | set(study.pretrained.values())
    assert starts_of(store, []) == {}
