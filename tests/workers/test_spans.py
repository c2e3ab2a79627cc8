"""Parts of a schedule: what one span ends with is what the next begins with, to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_task import after, digest, run, seen, trial

from tasks.backbones.spec import FromTrial
from workers.checkpoint import clear
from workers.errors import ErrorClass, Stopped, TrialError
from workers.trial import Span, TrialSpec


def spanned(first: int, last: int, init: FromTrial | None = None, **optim: Any) -> TrialSpec:
    return trial({"dropout": 0.3, "noise": 0.1}, init, span=Span(first_epoch=first, last_epoch=last), **optim)


def test_two_spans_are_one_trial_bit_for_bit(tmp_path: Path) -> None:
    whole, reports = run(trial({"dropout": 0.3, "noise": 0.1}), tmp_path / "whole")
    first = spanned(0, 2)
    before, some = run(first, tmp_path / "first", keep_weights=False)
    assert before.weights is not None  # a span that ends early keeps them, and its state, unasked
    clear(tmp_path / "first")
    second = spanned(2, 4, FromTrial(name="before", trial=first.key))
    parents = {first.key: before.weights}
    with pytest.raises(Stopped):
        run(second, tmp_path / "second", after(5), parents=parents)
    after_, rest = run(second, tmp_path / "second")  # its own checkpoint: the parent may be gone by then
    assert digest(after_) == digest(whole)
    assert seen(some) + seen(rest) == seen(reports)
    assert after_.figures == whole.figures
    assert after_.facts["resumed_at"] == 13
    assert not list((tmp_path / "second").glob("state-*"))


def test_a_span_may_change_what_moves_the_weights(tmp_path: Path) -> None:
    first = spanned(0, 2)
    before, _ = run(first, tmp_path / "first")
    init = FromTrial(name="before", trial=first.key)
    assert before.weights is not None
    ends = {
        digest(run(spanned(2, 4, init, **changed), tmp_path / str(n), parents={first.key: before.weights})[0])
        for n, changed in enumerate(({}, {"lr": 3e-2}, {"weight_decay": 0.5}))
    }
    assert len(ends) == 3


def test_a_span_that_does_not_fit_the_one_before_is_refused(tmp_path: Path) -> None:
    first = spanned(0, 2)
    before, _ = run(first, tmp_path / "first")
    assert before.weights is not None
    init = FromTrial(name="before", trial=first.key)
    parents = {first.key: before.weights}
    with pytest.raises(ValueError, match="ended after epoch 2, and this one would continue it with 3"):
        run(spanned(3, 4, init), tmp_path / "gap", parents=parents)
    with pytest.raises(ValueError, match=r"has optim.batch 8, and this one would continue it with 16"):
        run(spanned(2, 4, init, batch=16), tmp_path / "batch", parents=parents)
    with pytest.raises(ValueError, match="state was not handed over"):
        run(spanned(2, 4, init), tmp_path / "orphan")
    (state,) = (tmp_path / "first").glob("state-*.pt")
    state.write_bytes(state.read_bytes()[:-1])
    with pytest.raises(TrialError, match="damaged") as caught:
        run(spanned(2, 4, init), tmp_path / "damaged", parents=parents)
    assert caught.value.error_class is ErrorClass.data
    state.unlink()
    with pytest.raises(TrialError, match="has no state") as caught:
        run(spanned(2, 4, init), tmp_path / "gone", parents=parents)
    assert caught.value.error_class is ErrorClass.data
    with pytest.raises(ValueError, match=r"span.last_epoch 5 is above optim.epochs 4"):
        spanned(0, 5)
    with pytest.raises(ValueError, match=r"span.first_epoch 1 continues from the state of a trial"):
        spanned(1, 2)
