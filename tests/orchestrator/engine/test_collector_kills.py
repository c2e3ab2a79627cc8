"""gc beside drivers and other gcs, and killed at any point: no weights that the store counts on are lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from gc_lab import Lab, a_finished_study, key_of

from orchestrator.engine import collector
from orchestrator.engine.collector import Options
from orchestrator.records.rows import DriverRow
from orchestrator.records.states import TrialState
from orchestrator.records.writes import Released
from orchestrator.rules.retention import Reason, RetentionFacts, reasons
from orchestrator.store import weights
from orchestrator.store.store import open_store

ROOT = Path(__file__).parents[3]


@pytest.fixture
def lab(database_url: str, tmp_path: Path) -> Iterator[Lab]:
    made = Lab(database_url, tmp_path)
    yield made
    made.store.close()


def test_what_was_needed_since_the_plan_stays(lab: Lab) -> None:
    a_finished_study(lab)
    plan = collector.plan(lab.store, lab.storage)
    lab.place("grid", 20, parent=key_of(2))
    lab.store.weights.pin(key_of(4))
    done = collector.remove(lab.store, lab.storage, plan)
    assert {item.key for item in done.in_use} == {key_of(2), key_of(4)}
    assert lab.weights(key_of(2))
    assert lab.weights(key_of(4))


def test_a_trial_that_was_begun_since_the_plan_keeps_its_files(lab: Lab) -> None:
    """Even if it has ended again since: its files are not those that were looked at."""
    for number in (1, 2, 3):
        lab.end(lab.place("grid", number), "failed")
    lab.store.jobs.retry(lab.job_id)
    lab.store.leases.unregister(lab.driver.id)
    plan = collector.plan(lab.store, lab.storage, Options(checkpoints=True))
    assert len(plan.items) == 6
    lab.store.leases.register(replace(lab.driver, id="second", host="elsewhere"))
    tokens = lab.store.leases.claim("second", [key_of(1), key_of(2)])
    lab.store.trials.commit("second", [Released(key_of(2), tokens[key_of(2)], "stopped")])
    done = collector.remove(lab.store, lab.storage, plan)
    assert {item.key for item in done.items} == {key_of(3)}
    assert {item.key for item in done.in_use} == {key_of(1), key_of(2)}


def test_weights_made_again_since_they_were_forgotten_stay(lab: Lab) -> None:
    """A gc that paused between its two steps finds the weights of another attempt under the same name."""
    a_finished_study(lab)
    plan = collector.plan(lab.store, lab.storage)
    assert lab.store.weights.forget([key_of(2)]) == {key_of(2)}
    lab.store.leases.register(lab.driver)
    lab.end(key_of(2), "done", 0.6, weights=True)
    done = collector.remove(lab.store, lab.storage, plan)
    assert {item.key for item in done.in_use} == {key_of(2)}
    assert (lab.folder(key_of(2)) / "weights.safetensors").exists()


def test_nobody_can_claim_a_trial_while_its_files_go(lab: Lab) -> None:
    key = lab.end(lab.place("grid", 1), "pending")
    other = open_store(lab.url)
    taken: list[dict[str, int]] = []
    claiming = threading.Thread(target=lambda: taken.append(other.leases.claim(lab.driver.id, [key])))
    seen: list[bool] = []

    def work(has_weights: bool) -> None:
        claiming.start()
        claiming.join(0.5)  # PostgreSQL passes the locked row over at once, SQLite waits for us
        seen.append(any(taken))

    assert lab.store.weights.with_unclaimed(key, 1, (TrialState.pending,), work)
    claiming.join(60)
    assert seen == [False]
    assert other.leases.claim(lab.driver.id, [key]) == {key: 2} or taken == [{key: 2}]
    other.close()


def test_a_child_that_is_placed_while_weights_are_forgotten_sees_that_they_are_gone(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise its driver would start it with weights whose file is removed a moment later."""
    a_finished_study(lab)
    other = Lab(lab.url, lab.storage.parent)
    placing = threading.Thread(target=lambda: other.place("grid", 20, parent=key_of(2)))

    def reasons_while_placing(facts: RetentionFacts) -> dict[str, list[Reason]]:
        placing.start()
        placing.join(0.5)
        assert placing.is_alive()  # it waits for the row of its parent
        return reasons(facts)

    monkeypatch.setattr(weights, "reasons", reasons_while_placing)
    assert lab.store.weights.forget([key_of(2)]) == {key_of(2)}
    placing.join(60)
    assert lab.store.trials.snapshots([key_of(2)])[key_of(2)].weights is None
    assert lab.store.trials.snapshots([key_of(20)])[key_of(20)].state == TrialState.pending
    other.store.close()


def test_a_done_trial_without_weights_can_be_claimed_to_make_them_again(lab: Lab) -> None:
    a_finished_study(lab)
    lab.gc()
    lab.store.leases.register(DriverRow("again", "elsewhere", 1, 0.0, lab.job_id, "cluster"))
    lab.driver = replace(lab.driver, id="again")
    lab.end(key_of(2), "done", 0.1, weights=True)
    assert lab.weights(key_of(2))
    assert lab.store.trials.figures([key_of(2)])[key_of(2)]["top1"] == 0.6  # judged by its first run


# Kills

GC = """
import sys
from pathlib import Path
from orchestrator.engine import collector
from orchestrator.store import open_store
store, storage = open_store(sys.argv[1]), Path(sys.argv[2])
collector.remove(store, storage, collector.plan(store, storage))
"""


@pytest.mark.parametrize("point", ["gc_before_forget", "gc_before_remove:1", "gc_before_remove:3"])
def test_a_kill_loses_nothing_that_the_store_counts_on(lab: Lab, point: str) -> None:
    a_finished_study(lab)
    command = [sys.executable, "-c", GC, lab.url, str(lab.storage)]
    killed = subprocess.run(command, cwd=ROOT, env={**os.environ, "ORCHESTRATOR_CRASH_AT": point}, check=False)
    assert killed.returncode == -signal.SIGKILL
    for number in range(1, 7):
        recorded = lab.store.trials.snapshots([key_of(number)])[key_of(number)].weights
        assert recorded is None or Path(recorded[0]).exists()
    orphans = [n for n in (2, 4) if lab.store.trials.snapshots([key_of(n)])[key_of(n)].weights is None
               and (lab.folder(key_of(n)) / "weights.safetensors").exists()]  # fmt: skip
    assert bool(orphans) == point.startswith("gc_before_remove")
    lab.gc()
    assert [lab.weights(key_of(number)) for number in range(1, 7)] == [True, False, True, False, True, True]
    assert lab.gc().items == []


def test_two_at_once_remove_the_same(lab: Lab) -> None:
    a_finished_study(lab)
    plan = collector.plan(lab.store, lab.storage)
    other = open_store(lab.url)
    stores = (lab.store, other)
    threads = [threading.Thread(target=collector.remove, args=(store, lab.storage, plan)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [lab.weights(key_of(number)) for number in range(1, 7)] == [True, False, True, False, True, True]
    other.close()
