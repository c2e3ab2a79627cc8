"""How far running trials are, and where groups and weights are, on both databases."""

from __future__ import annotations

import pytest
from stored_job import JOB, key_of

from orchestrator.errors import NotFound
from orchestrator.records.writes import Finished, Reported
from orchestrator.store.store import Store


def test_the_last_report_of_each_trial_and_the_mean_of_its_rounds(three: Store) -> None:
    tokens = three.leases.claim("d1", [key_of(1), key_of(2)])
    three.trials.commit(
        "d1",
        [
            Reported(key_of(1), tokens[key_of(1)], epoch, epoch * 10, {"train_loss": 1.0 / epoch}, seconds)
            for epoch, seconds in ((1, 4.0), (2, 2.0))
        ],
    )
    last = three.progress.last_reports([key_of(1), key_of(2), "no such trial"])
    assert list(last) == [key_of(1)]
    assert (last[key_of(1)].epoch, last[key_of(1)].values, last[key_of(1)].round_seconds) == (
        2, {"train_loss": 0.5}, 3.0
    )  # fmt: skip


def test_a_group_is_found_by_its_name(three: Store) -> None:
    placed = three.trials.placed(JOB.id)[0]
    assert three.progress.find_group(f"{placed.stage}/{placed.group}") == (JOB.id, placed.stage, placed.group)
    with pytest.raises(NotFound, match=r"no group has the name.*did you mean " + f"{placed.stage}/{placed.group}"):
        three.progress.find_group(f"{placed.stage}/{placed.group}x")


def test_paths_of_kept_weights(three: Store) -> None:
    ((key, token),) = three.leases.claim("d1", [key_of(1)]).items()
    three.trials.commit("d1", [Finished(key, token, {"top1": 0.5}, weights=("trials/01/w.safetensors", "a" * 64))])
    assert three.weights.paths([key, key_of(2)]) == {key: "trials/01/w.safetensors"}
