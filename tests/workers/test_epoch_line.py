"""The line that a trial logs after each epoch: what it says, and that it says it once."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from tiny_task import trial

from workers.actor import TrialActor
from workers.epoch_line import epoch_line
from workers.errors import Stopped
from workers.messages import Report
from workers.ray_train import _ToActor
from workers.state import RankContext
from workers.train import train


def test_a_line_has_all_that_is_known() -> None:
    values = {"train_loss": 2.31442, "lr": 1.2e-3, "system_images_per_second": 1240.4, "top1": 0.5421}
    one = Report(1, 4, values, 40.0)
    assert epoch_line(trial(epochs=4), [one]) == (
        "epoch 1/4: loss 2.314, lr 1.2e-3, 1,240 images/s, val top-1 accuracy 54.2 %, 2 min left"
    )
    slower = Report(2, 8, {"train_loss": 1.0, "lr": 0.0}, 3600.0 * 3)
    assert epoch_line(trial(epochs=4), [one, slower]) == "epoch 2/4: loss 1, lr 0, 3 h 1 min left"
    last = Report(4, 16, {"top1": 1.0}, 1.0)
    assert epoch_line(trial(epochs=4), [one, slower, last]) == "epoch 4/4: val top-1 accuracy 100.0 %"


def test_lengths_in_iterations_count_rounds() -> None:
    spec = trial(epochs=0, iterations=10, warmup_epochs=0, runtime={"report_iterations": 5})
    assert epoch_line(spec, [Report(1, 5, {"train_loss": 1.0}, 7.0)]) == "round 1/2: loss 1, 7 s left"
    assert epoch_line(spec, [Report(2, 10, {}, 7.0)]) == "round 2/2: ended"


def test_every_epoch_is_logged_once_also_after_a_resume(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spec, emitted = trial(epochs=3, runtime={"checkpoint_epochs": 1}), []

    def stop_after_two(report: Report) -> None:
        emitted.append(report)

    caplog.set_level(logging.INFO, "workers")
    with pytest.raises(Stopped):
        train(spec, RankContext(tmp_path, tmp_path, token=1), stop_after_two, lambda: len(emitted) >= 2)
    train(spec, RankContext(tmp_path, tmp_path, token=2), lambda report: None, lambda: False)
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("epoch ")]
    assert [line.partition(":")[0] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert "val top-1 accuracy" in lines[0]
    assert "left" not in lines[2]


def test_what_rank_0_of_several_workers_logs_goes_through_the_actor(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "workers")
    actor: Any = TrialActor(lambda *_: None)  # type: ignore[arg-type, return-value]
    _ToActor(actor.note).handle(logging.LogRecord("workers.train", logging.INFO, "", 1, "epoch %d/2", (1,), None))
    assert [record.getMessage() for record in caplog.records] == ["epoch 1/2"]
