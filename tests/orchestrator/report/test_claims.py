"""Claims are judged by the recorded results: values, pairs, reasons, and whether they were written before."""

from __future__ import annotations

import copy
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from recorded_study import Plot, Study

from orchestrator.records.rows import MeasurementRow
from orchestrator.report import claim_words
from orchestrator.report.build import build
from orchestrator.report.claim_model import ClaimReport
from orchestrator.report.claims import claims, reads
from orchestrator.report.job_results import JobResults
from orchestrator.report.json_values import to_json
from orchestrator.report.verify import verify
from orchestrator.spec.claims import Claim
from orchestrator.store.store import Store, open_store

SUP, RAND = {"row": "SUP", "column": "digits"}, {"row": "RAND", "column": "digits"}
APART = {"digits/SUP": (0.95, 0.96, 0.97), "digits/RAND": (0.90, 0.90, 0.92)}
"""Differences 5, 6 and 5 points: mean 5.3333, standard error 1/3; 95 % interval 5.3333 -+ 1.4342."""


def claim(name: str = "ahead", **fields: Any) -> dict[str, Any]:
    return {"name": name, "left": SUP, "right": RAND, "relation": "above", **fields}


def small(**plot: Any) -> Plot:
    """A study of one data set and few trials."""
    return Plot(
        **{"data_sets": ("digits",), "lrs": (2.64e-4, 1.18e-3), "decays": (0.75, 0.95), "final_values": APART, **plot}
    )


def judged(store: Store, *listed: Mapping[str, Any], **plot: Any) -> list[ClaimReport]:
    study = Study(store, small(claims=tuple(listed), **plot))
    store.claims.submit(study.job_id, reads(store, study.job_id))
    return list(build(store, study.run()).claims)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobResults]:
    """A study with figures as in APART and measurements as in `layers`, and without claims."""
    opened = open_store(f"sqlite:///{tmp_path_factory.mktemp('recorded') / 'store.db'}")
    yield JobResults(opened, Study(opened, small(rows=layers)).run(), full=False)
    opened.close()


def of_recorded(recorded: JobResults, claim: Mapping[str, Any]) -> ClaimReport:
    """The claim, as if it were the study's only one."""
    results = copy.copy(recorded)
    results.spec = {**recorded.spec, "claims": [Claim.model_validate(claim).model_dump(mode="json")]}
    (found,) = claims(results)
    return found


def test_a_claim_over_seeds_by_hand(store: Store) -> None:
    (found,) = judged(store, claim())
    assert verify(store, store.jobs.all()[0].id) == []
    assert found.left.values == pytest.approx((95, 96, 97))
    assert found.differences == (5.0, 6.0, 5.0)
    assert found.difference == pytest.approx(5.3333, abs=1e-4)
    assert found.interval == pytest.approx((3.8991, 6.7676), abs=1e-4)
    assert found.p == pytest.approx(0.00388, abs=1e-5)
    assert (found.verdict, found.reason, found.scope, found.n) == ("held", "", "", 3)
    assert found.adjusted_p == found.p
    assert found.level == pytest.approx(0.95)


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [
        ({"margin": 3.8}, "held"),
        ({"margin": 4.0}, "undecided"),
        ({"margin": 6.7}, "undecided"),
        ({"margin": 6.8}, "contradicted"),
        ({"relation": "below"}, "contradicted"),
        ({"relation": "below", "margin": -6.8}, "held"),
        ({"relation": "within", "margin": 6.4}, "held"),
        ({"relation": "within", "margin": 6.2}, "undecided"),
        ({"relation": "within", "margin": 3.8}, "contradicted"),
        ({"right": 94.0}, "undecided"),  # one sample: 96 -+ 2.48 against 94
        ({"right": 93.0}, "held"),
        ({"left": 99.0, "right": SUP}, "held"),
    ],
)
def test_verdicts(recorded: JobResults, fields: dict[str, Any], verdict: str) -> None:
    assert of_recorded(recorded, claim(**fields)).verdict == verdict


@pytest.mark.parametrize(("margin", "level"), [(6.4, 0.90), (3.8, 0.95)])
def test_the_level_of_a_claim_within_is_that_of_the_interval_which_decides(
    recorded: JobResults, margin: float, level: float
) -> None:
    """Held by the 90 % interval inside the margins, contradicted by the 95 % one outside."""
    assert of_recorded(recorded, claim(relation="within", margin=margin)).level == pytest.approx(level)


def test_holm_over_the_claims_of_the_job(store: Store) -> None:
    """p of the first is 0.00388, of the second 0.0475: alone it is held, as the second of three it is not."""
    second = claim("narrow", margin=3.85)
    (alone,) = judged(store, second)
    assert (alone.verdict, alone.p) == ("held", pytest.approx(0.0475, abs=1e-3))
    first, narrow, paper, absent = judged(
        store, claim(), second, claim("paper", right={**SUP, "published": True}),
        claim("absent", left={**SUP, "layer": 3}), name="again", reference={"SUP": {"digits": 96.0}},
    )  # fmt: skip
    assert first.adjusted_p == pytest.approx(3 * (first.p or 0)), "the claim without data counts, the paper's not"
    assert (first.verdict, narrow.verdict) == ("held", "undecided")
    assert narrow.adjusted_p == pytest.approx(2 * (narrow.p or 0))
    assert narrow.level == pytest.approx(1 - 0.05 / 2)
    assert (paper.verdict, paper.reason, paper.p, paper.interval) == ("no verdict", "one run there", None, None)
    assert paper.difference == pytest.approx(0.0)
    assert (absent.verdict, absent.reason) == ("not judged", "no values of top1 are recorded")


@pytest.mark.parametrize("margin", [0.0, -50.0])
def test_two_runs_are_not_judged_whatever_the_margin(store: Store, margin: float) -> None:
    (found,) = judged(store, claim(margin=margin), seeds=(0, 1))
    assert (found.verdict, found.reason) == ("not judged", "2 runs")
    assert (found.difference, found.interval, found.p) == (5.5, None, None)


def test_one_run_is_not_judged(store: Store) -> None:
    (found,) = judged(store, claim(), seeds=(4,))
    assert (found.verdict, found.reason, found.n) == ("not judged", "1 run", 1)


@pytest.mark.parametrize(
    ("state", "verdict", "reason"),
    [
        ("diverged", "undecided", "seed 3 diverged"),
        ("running", "not judged", "3 of 4 runs ended (1 running)"),
        ("failed", "not judged", "3 of 4 runs ended (1 failed)"),
    ],
)
def test_a_seed_without_a_value(store: Store, state: str, verdict: str, reason: str) -> None:
    values = {group: (*given, 0.9) for group, given in APART.items()}
    (found,) = judged(
        store, claim(), seeds=(0, 1, 2, 3), final_values=values, final_state={"digits/SUP": state},
    )  # fmt: skip
    assert (found.verdict, found.reason) == (verdict, reason)
    assert found.differences == (5.0, 6.0, 5.0)


def test_a_stage_with_several_settings_is_not_judged(store: Store) -> None:
    (found,) = judged(store, claim(left={**SUP, "stage": "grid"}, right=1))
    assert (found.verdict, found.reason) == ("not judged", "4 settings, of which stage grid has not chosen one")


def test_before_any_trial(store: Store) -> None:
    study = Study(store, small(claims=(claim(),)))
    (found,) = build(store, study.job_id).claims
    assert (found.verdict, found.reason, found.n) == ("not judged", "no trial yet", 0)


# Values per layer, head and image.


WIDER = ((0, 0), (1, 0), (2, 0), (2, 1))
"""(layer, head) of a model whose last layer has two heads."""


def layers(group: str, seed: int) -> Sequence[MeasurementRow]:
    """Distance: layer l of SUP has 100 + l (+ seed), of RAND 100; head h adds h. CKA: 1 on the diagonal, else 0.9 (SUP)
    or 0.5 (RAND) less a tenth of the seed. Accuracy of image k: 1 of SUP; of RAND 0 for every third."""
    sup = group.endswith("SUP")
    rows = [
        MeasurementRow("distance", "val", "", layer, head, 100.0 + (layer + seed if sup else 0) + head)
        for layer in range(4)
        for head in range(2)
    ]
    rows += [
        MeasurementRow("cka", "val", str(j), i, None, 1.0 if i == j else (0.9 if sup else 0.5) - seed / 10)
        for i in range(3)
        for j in range(3)
    ]
    rows += [MeasurementRow("right", "val", f"{k}.png", None, None, float(sup or k % 3 > 0)) for k in range(60)]
    rows += [MeasurementRow("wider", "val", "", layer, head, 10.0 * layer + seed) for layer, head in WIDER]
    rows += [MeasurementRow("holes", "val", "", 0, None, None if seed == 1 else 0.5)]
    return rows


def of(figure: str, **fields: Any) -> dict[str, Any]:
    return claim(
        left={**SUP, "figure": figure, **fields}, right={**RAND, "figure": figure, **fields}, name=figure,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("figure", "fields", "left", "right"),
    [
        ("distance", {}, (102, 103, 104), 100.5),  # mean of 1.5 + 0.5 over layers and heads
        ("distance", {"layer": 0}, (100.5, 101.5, 102.5), 100.5),
        ("distance", {"layer": -1}, (103.5, 104.5, 105.5), 100.5),
        ("distance", {"layers": [0, -1]}, (102, 103, 104), 100.5),
        ("distance", {"layers": {"last": 3}}, (102.5, 103.5, 104.5), 100.5),
        ("distance", {"layers": {"first": 2}, "reduce": "max"}, (102, 103, 104), 101),
        ("distance", {"reduce": "min"}, (100, 101, 102), 100),
        ("wider", {"layers": {"last": 2}}, (15, 16, 17), None),  # layers 1 and 2, of which the last has two heads
        ("wider", {"reduce": "mean"}, (10, 11, 12), None),
        ("cka", {"reduce": "min"}, (0.9, 0.8, 0.7), None),
        ("cka", {"pairs": "distinct", "reduce": "max"}, (0.9, 0.8, 0.7), None),
        ("cka", {"reduce": "max"}, (1, 1, 1), 1),
        ("cka", {"item": "2", "layer": 0}, (0.9, 0.8, 0.7), None),
        ("cka", {"item": "2", "layer": 2}, (1, 1, 1), 1),
    ],
)
def test_layers_heads_and_pairs(
    recorded: JobResults, figure: str, fields: dict[str, Any], left: tuple[float, ...], right: float | None
) -> None:
    found = of_recorded(recorded, of(figure, **fields))
    assert found.left.values == pytest.approx(left)
    if right is not None:
        assert found.right.values == pytest.approx((right,) * 3)


@pytest.mark.parametrize(
    ("figure", "fields", "reason"),
    [
        ("distance", {"layer": 4}, "4: no such layer of distance: it has 0 to 3"),
        ("distance", {"layer": -5}, "-5: no such layer of distance: it has 0 to 3"),
        ("distance", {"layers": {"last": 5}}, "4 layers of distance, not 5"),
        ("right", {"layer": 0}, "0: no such layer of right: it has none"),
        ("cka", {"item": "7"}, "cka has no item 7"),
        ("holes", {}, "1 of 1 values of holes are not finite numbers"),
        ("nothing", {}, "no values of nothing are recorded"),
    ],
)
def test_what_a_trial_does_not_have(recorded: JobResults, figure: str, fields: dict[str, Any], reason: str) -> None:
    found = of_recorded(recorded, of(figure, **fields))
    assert (found.verdict, found.reason) == ("not judged", reason)


def test_over_images(store: Store) -> None:
    """20 of 60 images differ by 1: mean 1/3, standard error 0.0614 (a binomial's)."""
    (found,) = judged(store, {**of("right"), "over": "images"}, rows=layers)
    assert (found.n, found.verdict, found.scope) == (60, "held", "for these weights")
    assert found.difference == pytest.approx(1 / 3)
    assert found.interval == pytest.approx((1 / 3 - 1.96 * 0.0609, 1 / 3 + 1.96 * 0.0609), abs=0.02)
    assert (found.p, found.resamples) == (2 / 2001, 2000)
    assert found.differences == ()
    assert verify(store, store.jobs.all()[0].id) == []


def test_images_of_one_side_alone_are_not_judged(store: Store) -> None:
    def rows(group: str, seed: int) -> list[MeasurementRow]:
        return [row for row in layers(group, seed) if group.endswith("SUP") or row.item != "5.png"]

    (found,) = judged(store, {**of("right"), "over": "images"}, rows=rows)
    assert (found.verdict, found.reason) == ("not judged", "1 image was measured on one side alone")


def test_a_figure_without_values_per_image(store: Store) -> None:
    (found,) = judged(store, {**of("holes"), "over": "images"}, rows=lambda g, s: [layers(g, 0)[-1]])
    assert (found.verdict, found.reason) == ("not judged", "holes has no value per image")


def test_sensitivity_and_anchor_stand_beside_and_have_no_part(store: Store) -> None:
    (alone,) = judged(store, of("distance", reduce="min"), rows=layers)
    (found,) = judged(
        store,
        {**of("distance", reduce="min"), "sensitivity": ["cka", "holes"], "anchor": "RAND"},
        rows=layers,
        name="b",
    )
    assert (found.p, found.adjusted_p, found.verdict) == (alone.p, alone.adjusted_p, alone.verdict)
    cka, holes = found.sensitivity
    assert (cka.figure.name, cka.n, cka.alone) == ("cka", 3, "held")
    assert cka.difference == pytest.approx(0.4)
    assert (holes.alone, holes.reason) == ("not judged", "1 of 1 values of holes are not finite numbers")
    assert found.anchor is not None
    assert found.anchor.value == pytest.approx(100.0)
    assert claim_words.beside(found)[1:] == [
        "sensitivity: holes: +0.000, n 2; alone: not judged (1 of 1 values of holes are not finite numbers)",
        "anchor: RAND on digits, distance, min: 100.000",
    ]


# One checkpoint.


def test_seeds_that_start_from_one_checkpoint_are_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study(store, small(claims=(claim(), claim("same", margin=1))))
    job = study.run()
    keys = {trial.key for trial in store.trials.placed(job) if trial.stage == "final" and trial.group == "digits/SUP"}
    monkeypatch.setattr(store.claims, "initial_weights", lambda wanted: dict.fromkeys(keys, "one"))
    assert [found.scope for found in build(store, job).claims] == ["one checkpoint of SUP on digits"] * 2
    assert claim_words.verdict_text(build(store, job).claims[0]) == "held, one checkpoint of SUP on digits"


def test_one_checkpoint_that_gives_the_same_at_every_seed_is_one_run(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"digits/SUP": (0.95, 0.95, 0.95), "digits/RAND": (0.90, 0.91, 0.92)}
    study = Study(store, small(claims=(claim(),), final_values=values))
    job = study.run()
    keys = {trial.key for trial in store.trials.placed(job) if trial.group == "digits/SUP"}
    assert build(store, job).claims[0].verdict == "held"
    monkeypatch.setattr(store.claims, "initial_weights", lambda wanted: dict.fromkeys(keys, "one"))
    (found,) = build(store, job).claims
    assert found.verdict == "not judged"
    assert found.reason == "1 run; 3 seeds gave the same values from one checkpoint"


# When it was written.


def test_a_claim_that_is_submitted_first_was_written_before(store: Store) -> None:
    (found,) = judged(store, claim())
    assert (found.ended_before, found.reads, bool(found.submitted)) == (0, 6, True)
    assert claim_words.written_text(found) == "written before"


def test_a_claim_that_is_added_after_looking_says_so(store: Store) -> None:
    """Another job of the same name, whose trials are those of the first."""
    Study(store, small()).run()
    study = Study(store, small(claims=(claim(),)))
    job = study.run()  # every trial is recorded already
    store.claims.submit(job, reads(store, job))
    (found,) = build(store, job).claims
    assert claim_words.written_text(found) == "after 6 of 6 results"
    assert verify(store, job) == []


def test_a_changed_job_of_the_same_name_keeps_the_first_time(store: Store) -> None:
    first = Study(store, small(claims=(claim(),)))
    store.claims.submit(first.job_id, reads(store, first.job_id))
    first.run()
    other = Study(store, small(claims=(claim(text="in other words"), claim("late", margin=1))))
    job = other.run()
    store.claims.submit(job, reads(store, job))
    kept, late = build(store, job).claims
    assert claim_words.written_text(kept) == "written before"
    assert claim_words.written_text(late) == "after 6 of 6 results"


def test_a_claim_of_a_trial_run_before_others_had_ended_counts_them(store: Store) -> None:
    """Written for one job while the results of another of the same name were there: they count as known."""
    Study(store, small()).run()
    empty = Study(store, small(claims=(claim(),), data_sets=("digits", "pets")))
    store.claims.submit(empty.job_id, reads(store, empty.job_id))  # none of its trials is placed yet
    job = Study(store, small(claims=(claim(),))).run()
    (found,) = build(store, job).claims
    assert claim_words.written_text(found) == "after 6 of 6 results"


def test_a_claim_that_was_never_submitted_is_reported_by_verify(store: Store) -> None:
    job = Study(store, small(claims=(claim(),))).run()
    (found,) = build(store, job).claims
    assert claim_words.written_text(found) == "not recorded when"
    assert verify(store, job) == ["claim ahead: it is not recorded when it was first submitted"]


def test_verify_finds_a_changed_figure_and_a_changed_verdict(store: Store, tmp_path: Path) -> None:
    judged(store, claim())
    job = store.jobs.all()[0].id
    saved = to_json(build(store, job))
    saved["claims"][0]["verdict"] = "contradicted"
    assert verify(store, job, saved) == ["report.claims[0].verdict: 'contradicted' in the saved report, 'held' now"]
    with sqlite3.connect(tmp_path / "store.db") as connection:
        key = saved["claims"][0]["left"]["keys"][0]
        connection.execute(
            "UPDATE figures SET value = 0.99 WHERE name = 'top1' AND trial_id = (SELECT id FROM trials WHERE key = ?)",
            (key,),
        )
    saved["claims"][0]["verdict"] = "held"
    found = verify(store, job, saved)
    assert any(line.startswith("report.claims[0].left.values[0]: 95.0 in the saved report, 99.0 now") for line in found)
