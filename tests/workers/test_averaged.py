"""The moving average of weights: timm's numbers, its figures beside the others, resumed trials, what is handed on."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from analysis_task import Trained, measured
from safetensors import safe_open
from timm.utils import ModelEmaV3
from tiny_task import after, digest, outcome_values, run, trial, trial_of, weights_of
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.testing._internal.distributed.fake_pg import FakeStore

import workers.train
from tasks.backbones.spec import FromTrial
from workers.averaged import Average
from workers.checkpoint import AVERAGED, Folder
from workers.errors import Stopped
from workers.optim_spec import EmaSpec
from workers.trial import Span

EMA: dict[str, Any] = {"decay": 0.8}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


@pytest.mark.parametrize("warmup", [False, True])
def test_the_average_is_timms(warmup: bool) -> None:
    model = network()
    theirs = ModelEmaV3(model, decay=0.6, use_warmup=warmup)
    ours = Average(model, EmaSpec(decay=0.6, warmup=warmup))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for updates in range(1, 8):
        optimizer.zero_grad()
        model(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
        theirs.update(model, step=updates)
        ours.update(updates)
    expected = theirs.module.state_dict()
    assert ours.whole(keep=True).keys() == expected.keys()
    for name, value in ours.whole(keep=True).items():
        assert torch.equal(value, expected[name]), name
    assert not torch.equal(expected["0.weight"], model.state_dict()["0.weight"])


def test_the_decay_of_the_warm_up_is_timms() -> None:
    for warmup in (False, True):
        spec = EmaSpec(decay=0.9, warmup=warmup)
        theirs = ModelEmaV3(network(), decay=0.9, use_warmup=warmup)
        for updates in (0, 1, 2, 3, 10, 31, 32, 1000):
            assert spec.decay_at(updates) == pytest.approx(theirs.get_decay(updates), abs=1e-12)


def test_a_model_gets_its_weights_back_to_the_bit_also_tied_ones() -> None:
    model = network()
    model.tied = model[0]  # type: ignore[assignment]
    before = copy.deepcopy(model.state_dict())
    average = Average(model, EmaSpec(decay=0.5))
    with torch.no_grad():
        for value in model.state_dict().values():
            value.add_(1)
    moved = copy.deepcopy(model.state_dict())
    with average.used():
        assert average.in_model
        for name, value in model.state_dict().items():
            assert torch.equal(value, before[name])
    with pytest.raises(ZeroDivisionError, match="division"), average.used():
        1 / 0  # noqa: B018
    for name, value in model.state_dict().items():
        assert torch.equal(value, moved[name])
    assert not average.in_model
    assert average.whole(keep=True).keys() < before.keys()


def test_weights_of_which_a_rank_has_no_row_are_averaged_there_too() -> None:
    """Three rows on four ranks: to the last one all tensors of a shape look the same, empty, and none may be left out,
    since all ranks put each together."""
    dist.init_process_group("fake", rank=3, world_size=4, store=FakeStore())
    try:
        model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3), nn.Linear(3, 3))
        fully_shard(model, mesh=init_device_mesh("cpu", (4,)))
        assert list(Average(model, EmaSpec()).whole(keep=True)) == list(model.state_dict())
    finally:
        dist.destroy_process_group()


def test_its_figures_stand_beside_the_others(tmp_path: Path) -> None:
    plain, _ = run(trial({"batch_norm": True}), tmp_path / "plain")
    both, reports = run(trial({"batch_norm": True}, ema=EMA), tmp_path / "both")
    assert digest(both) == digest(plain)
    assert {name: value for name, value in both.figures.items() if not name.startswith("ema_")} == plain.figures
    assert both.figures.keys() - plain.figures.keys() == {"ema_top1", "ema_evaluations"}
    assert all("ema_top1" in report.values for report in reports)
    names = [metric.name for metric in trial(ema=EMA).metrics]
    assert names == ["top1", "evaluations", "ema_top1", "ema_evaluations"]
    chosen = trial(ema={**EMA, "choose": True})
    assert (chosen.metric, chosen.mode, chosen.metrics[0].title) == (
        "ema_top1", "max", "top-1 accuracy, averaged weights",
    )  # fmt: skip
    assert [metric.name for metric in trial(ema=EMA, epochs=0, warmup_epochs=0).metrics] == ["top1", "evaluations"]


def test_its_figures_are_those_of_the_weights_that_are_handed_on(tmp_path: Path) -> None:
    made, _ = run(trial(ema={"decay": 0.9, "hand_on": True}), tmp_path / "made")
    trained, _ = run(trial(ema={"decay": 0.9}), tmp_path / "trained")
    assert (made.facts["weights"], trained.facts["weights"]) == ("averaged", "trained")
    assert digest(made) != digest(trained)
    assert made.figures == trained.figures
    key = trial(ema={"decay": 0.9, "hand_on": True}).key
    again = trial(init=FromTrial(name="x", trial=key), epochs=0, warmup_epochs=0)
    measured_again, _ = run(again, tmp_path / "again", parents={key: made.weights})
    assert measured_again.figures["top1"] == made.figures["ema_top1"]


def test_both_files_of_weights_carry_the_models_metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a trial that is chosen by its averaged weights and hands on the others."""
    monkeypatch.setattr(workers.train, "weights_metadata", lambda model: {"windows": "seven"})
    outcome, _ = run(trial(ema={**EMA, "choose": True}), tmp_path)
    assert outcome.weights is not None
    averaged = tmp_path / AVERAGED
    assert outcome.facts["averaged_weights"] == hashlib.sha256(averaged.read_bytes()).hexdigest()
    assert outcome.weights.sha256 not in ("", outcome.facts["averaged_weights"])
    for path in (averaged, outcome.weights.path):
        with safe_open(path, "pt") as file:
            assert file.metadata() == {"windows": "seven"}


def test_a_stopped_trial_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    spec = trial({"dropout": 0.3, "batch_norm": True}, runtime={"checkpoint_epochs": 1}, ema={**EMA, "hand_on": True})
    whole, reports = run(spec, tmp_path / "whole")
    with pytest.raises(Stopped):
        run(spec, tmp_path / "parts", after(6))
    resumed, again = run(spec, tmp_path / "parts")
    assert resumed.facts["resumed_at"] == 6
    assert (digest(resumed), resumed.figures) == (digest(whole), whole.figures)
    assert [outcome_values(report) for report in again] == [outcome_values(report) for report in reports]


@pytest.mark.parametrize("items", [2, 7])
def test_a_trial_stopped_between_items_keeps_the_weights_that_train(items: int, tmp_path: Path) -> None:
    """Five items an evaluation: stopped in that of the trained weights (2), or in that of the averaged ones (7)."""
    spec = trial_of(Trained(), ema=EMA)
    whole, _ = run(spec, tmp_path / "whole")
    log = tmp_path / "log"
    stopping = trial_of(Trained(log=str(log)), ema=EMA)
    folder = tmp_path / "parts"
    with pytest.raises(Stopped):
        run(stopping, folder, lambda: len(measured(log)) >= items)
    (path,) = folder.glob("checkpoint-*.pt")
    state = Folder(folder, stopping.key, 0).load(path)
    assert not torch.equal(state["model"]["first.weight"], state["ema"]["first.weight"])
    ended, _ = run(stopping, folder)
    assert (digest(ended), ended.figures) == (digest(whole), whole.figures)
    # the items of either evaluation were measured once in it
    assert len(measured(log)) == 4 * 10


def test_a_span_goes_on_with_the_average(tmp_path: Path) -> None:
    whole, _ = run(trial(ema=EMA), tmp_path / "whole")
    first = trial(ema=EMA, span=Span(first_epoch=0, last_epoch=2))
    begun, _ = run(first, tmp_path / "first")
    init = FromTrial(name="before", trial=first.key)
    rest = trial(ema=EMA, init=init, span=Span(first_epoch=2, last_epoch=4))
    ended, _ = run(rest, tmp_path / "rest", parents={first.key: begun.weights})
    assert ended.figures["ema_top1"] == whole.figures["ema_top1"]
    torch.testing.assert_close(weights_of(ended), weights_of(whole), rtol=0, atol=0)
    without = trial(span=Span(first_epoch=0, last_epoch=2))
    plain, _ = run(without, tmp_path / "without")
    late = trial(ema=EMA, init=FromTrial(name="x", trial=without.key), span=Span(first_epoch=2, last_epoch=4))
    with pytest.raises(ValueError, match=r"no average of these weights: optim.ema was another then"):
        run(late, tmp_path / "late", parents={without.key: plain.weights})


def test_an_average_changes_the_key_and_its_absence_none() -> None:
    assert trial(ema=None).key == trial().key
    assert len({spec.key for spec in (trial(), trial(ema={}), trial(ema={"hand_on": True}))}) == 3


@pytest.mark.parametrize("decay", [0, 1, -0.1])
def test_an_impossible_decay_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match=r"ema.decay\n.*(greater than 0|less than 1)"):
        trial(ema={"decay": decay})
