"""The numbers of the page's charts are those of the report, and nothing in them ends their script element."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from orchestrator.report import groups
from orchestrator.report.build import build
from orchestrator.report.drawings import Curve
from orchestrator.report.groups import POINTS, curve, thinned
from orchestrator.report.model import Report
from orchestrator.report.page.data import page_data, panels
from orchestrator.report.svg.curves import curves_svg
from orchestrator.store.store import Store

NO_WORDS = {"loss": "", "metric": ""}


def _curve(report: Report, **fields: object) -> Curve:
    whole = next(curve for curve in report.named["digits/SUP"].curves if curve.role == "chosen")
    values = {"epochs": (1, 2, 3, 4), "train_loss": (4.0, 3.0, 2.0, 1.0), "metric": (None, 10.0, None, 20.0)}
    return replace(whole, **{**values, "broken": (), **fields})  # type: ignore[arg-type]


def test_the_curves_are_those_of_the_report(whole: Report) -> None:
    data = json.loads(page_data(whole))
    names = [group.name for group in whole.groups]
    loss, metric = data["curves"][f"group-{names.index('digits/SUP')}"]
    assert [loss["id"], metric["id"]] == ["loss", "metric"]
    curves = whole.named["digits/SUP"].curves
    chosen = next(each for each in curves if each.role == "chosen")
    (line,) = (line for line in metric["series"] if line["role"] == "chosen")
    assert line["name"] == "chosen on val"
    assert line["x"] == list(chosen.epochs)
    assert line["y"] == [pytest.approx(value, rel=1e-4) for value in chosen.metric]
    others = [line for line in loss["series"] if line["role"] == "other"]
    assert len(others) == sum(each.role == "other" for each in curves)
    assert "lr 1.25e-4, layer decay 0.75" in {line["name"] for line in others}
    assert [line["role"] for line in loss["series"]][-1] == "final", "what stands out lies on top"
    means = [line for line in loss["series"] if line["role"] == "final"]
    assert [line["name"] for line in means] == ["final on test, mean of 3 seeds"]
    assert [end["name"] for end in metric["ends"]] == [f"◆ final, figure on test, seed {n}" for n in range(3)]
    assert [end["value"] for end in metric["ends"]] == [
        pytest.approx(each.end, rel=1e-4) for each in curves if each.role == "final"
    ]


def test_a_line_goes_through_epochs_that_were_not_evaluated_and_stops_at_one_without_a_number(whole: Report) -> None:
    group = replace(whole.named["digits/SUP"], curves=(_curve(whole),))
    (line,) = panels(group, {})[1]["series"]
    assert (line["x"], line["y"]) == ([2, 4], [10.0, 20.0])
    assert curves_svg(group, NO_WORDS)["metric"].count("<polyline") == 1
    broken = replace(group, curves=(_curve(whole, broken=(3,)),))
    (line,) = panels(broken, {})[1]["series"]
    assert (line["x"], line["y"]) == ([2, 3, 4], [10.0, None, 20.0])
    assert curves_svg(broken, NO_WORDS)["metric"].count("<circle") == 2
    lost = replace(group, curves=(_curve(whole, train_loss=(4.0, None, 2.0, 1.0)),))
    (line,) = panels(lost, {})[0]["series"]
    assert line["y"] == [4.0, None, 2.0, 1.0], "every epoch has a loss: without a number the line is broken"
    assert curves_svg(lost, NO_WORDS)["loss"].count("<circle") == 1


def test_what_was_measured_once_is_no_chart(whole: Report) -> None:
    once = _curve(whole, train_loss=(4.0, 3.0, 2.0, 1.0), metric=(None, None, None, 20.0))
    assert [panel["id"] for panel in panels(replace(whole.named["digits/SUP"], curves=(once,)), {})] == ["loss"]
    assert panels(replace(whole.named["digits/SUP"], curves=()), {}) == []


def test_long_curves_of_others_keep_some_epochs_and_their_last(whole_study: object, whole: Report) -> None:
    store = whole_study[0]  # type: ignore[index]
    trial = next(row for row in store.trials.placed(whole.job_id) if row.stage == "grid")
    (first, *_) = store.trials.reports(trial.key)
    long = [replace(first, epoch=n, values={"train_loss": 1.0}) for n in range(1, 301)]
    assert thinned("chosen", trial, long) == long
    kept = thinned("other", trial, long)
    assert len(kept) <= POINTS
    assert kept[-1].epoch == 300
    evaluated = [
        replace(each, values={**each.values, trial.metric: math.nan if each.epoch == 200 else 0.5})
        if each.epoch % 50 == 0
        else each
        for each in long
    ]
    assert [each.epoch for each in thinned("other", trial, evaluated)] == [50, 100, 150, 200, 250, 300]
    assert curve("other", trial, thinned("other", trial, evaluated)).broken == (200,)


def test_of_too_many_other_trials_some_at_even_distances_are_drawn(
    whole_study: tuple[Store, Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, whole = whole_study
    monkeypatch.setattr(groups, "OTHERS", 7)
    fewer = build(store, whole.job_id).named["digits/SUP"].curves
    curves = whole.named["digits/SUP"].curves
    others = [each for each in curves if each.role == "other"]
    assert len(others) == 19
    assert [each for each in fewer if each.role == "other"] == others[::3]
    assert [each for each in fewer if each.role != "other"] == [each for each in curves if each.role != "other"]


def test_a_name_cannot_end_the_element(whole: Report) -> None:
    nasty = "</script><img>\u2028"
    trials = tuple(
        replace(trial, settings={**trial.settings, "task.dataset": f"{nasty}{n}"})
        for n, trial in enumerate(whole.trials)
    )
    text = page_data(replace(whole, trials=trials))
    assert "<" not in text
    assert "\u2028" not in text
    assert any(nasty in line["name"] for panel in json.loads(text)["curves"]["group-0"] for line in panel["series"])
