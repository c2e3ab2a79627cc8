"""What gc keeps and removes, that a kill at any moment loses no weights that the store counts on, and pins."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.main import main
from orchestrator.engine import collector
from orchestrator.engine.collector import Options
from orchestrator.records.rows import ChoiceRow, DriverRow, JobRecord, Placement
from orchestrator.records.states import JobState, TrialState
from orchestrator.records.trial_files import trial_folder
from orchestrator.records.writes import Failed, Finished, Released, Write
from orchestrator.report import describe
from orchestrator.rules.retention import Reason, RetentionFacts, reasons
from orchestrator.store import weights
from orchestrator.store.leases import driver_here
from orchestrator.store.store import open_store

TIES = ["figure:loss:min", "optim.lr:min"]
SUP = {"kind": "stage", "name": "SUP", "stage": "pretrain"}
ROOT = Path(__file__).parents[3]


def spec(*stages: dict[str, Any]) -> dict[str, Any]:
    """The JSON of a job, as far as the rules look at it."""
    filled = [{"from": [], "sweep": {"kind": "one"}, "neighbourhood": None, "ties": TIES, **stage} for stage in stages]
    return {"name": "study", "trial": {}, "stages": filled}


STUDY = spec(
    {"name": "pretrain"},
    {"name": "grid", "sweep": {"grid": [{"backbone.init": [SUP], "optim.lr": [1e-4, 2e-4, 3e-4]}]}},
    {"name": "final", "from": ["grid"], "sweep": {"grid": [{"seed": [0, 1]}]}},
)


class Lab:
    """A store with a job, and a storage in which its trials have left their files."""

    def __init__(self, url: str, folder: Path, job: dict[str, Any] = STUDY, job_id: str = "study-1") -> None:
        self.url, self.storage, self.job_id = url, folder / "storage", job_id
        self.store = open_store(url)
        self.driver = driver_here("gc-test", job_id, "cluster")
        self.add_job(job_id, job)
        self.store.leases.register(self.driver)
        self.positions = 0

    def add_job(self, job_id: str, job: dict[str, Any]) -> None:
        self.store.jobs.put(JobRecord(job_id, "study", "", job, ""))
        self.store.jobs.put_stages(job_id, [(stage["name"], n, stage) for n, stage in enumerate(job["stages"])])

    def place(
        self, stage: str, number: int, parent: str | None = None, job: str = "", group: str = "all",
        spec: dict[str, Any] | None = None,
    ) -> str:  # fmt: skip
        """A pending trial; its key begins with its number."""
        init = {"kind": "none"} if parent is None else {"kind": "trial", "trial": parent}
        key = f"{number:02x}" * 32
        placement = Placement(
            stage=stage, group=group, group_values={}, key=key, spec={"backbone": {"init": init}, **(spec or {})},
            settings={"optim.lr": number * 1e-4}, name=f"{stage}/{group}/{number}", position=number, metric="top1",
            mode="max", seed=0, epochs=10,
        )  # fmt: skip
        self.store.trials.place(job or self.job_id, [placement])
        return key

    def end(self, key: str, how: str, value: float = 0.5, weights: bool = False, loss: float = 0.1) -> str:
        """Runs a placed trial to an end, with the files that it leaves there."""
        folder = self.folder(key)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "log.txt").write_text("begin")
        (folder / "token").write_text("1")
        for step in (10, 20):
            (folder / f"checkpoint-{step:09d}-{'0' * 64}.pt").write_bytes(b"c" * 100)
        token = self.store.leases.claim(self.driver.id, [key], for_weights=True)[key]
        kept = None
        if weights:
            path = folder / "weights.safetensors"
            path.write_bytes(b"w" * 1000)
            kept = (str(path), "a" * 64)
        said: dict[str, Write | None] = {
            "done": Finished(key, token, {"top1": value, "loss": loss}, {}, kept),
            "diverged": Failed(key, token, "diverged", "loss is nan"),
            "failed": Failed(key, token, "code", "boom"),
            "cancelled": Failed(key, token, "cancelled", ""),
            "pending": Released(key, token, "interrupted"),
            "running": None,
        }
        write = said[how]
        if write is not None:
            self.store.trials.commit(self.driver.id, [write])
        return key

    def run(self, stage: str, number: int, value: float = 0.5, **options: Any) -> str:
        """A done trial with weights."""
        return self.end(self.place(stage, number, **options), "done", value, weights=True)

    def finish(self) -> None:
        self.store.jobs.set_state(self.job_id, JobState.done)
        self.store.leases.unregister(self.driver.id)

    def folder(self, key: str) -> Path:
        return trial_folder(self.storage, key)

    def weights(self, key: str) -> bool:
        """Whether they are kept: in the store and in the storage, which must agree."""
        recorded = self.store.trials.snapshots([key])[key].weights is not None
        there = (self.folder(key) / "weights.safetensors").exists()
        assert recorded == there
        return there

    def files(self, key: str) -> set[str]:
        return {path.name.split("-")[0] for path in self.folder(key).iterdir()}

    def gc(self, **options: Any) -> collector.Removed:
        return collector.remove(self.store, self.storage, collector.plan(self.store, self.storage, Options(**options)))

    def kept(self, key: str) -> set[str]:
        """The kinds of reasons for which a trial's weights stay."""
        return {reason.kind for reason in reasons(self.store.weights.retention_facts()).get(key, [])}


@pytest.fixture
def lab(database_url: str, tmp_path: Path) -> Iterator[Lab]:
    made = Lab(database_url, tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Lab]:
    """On SQLite alone: for what does not depend on the database."""
    made = Lab(f"sqlite:///{tmp_path / 'store.db'}", tmp_path)
    yield made
    made.store.close()


def a_finished_study(lab: Lab) -> None:
    """Pretrain (1), a grid of three (2 to 4, chosen: 3), and a final in two seeds (5, 6), with weights of all."""
    lab.run("pretrain", 1)
    for number, value in ((2, 0.6), (3, 0.8), (4, 0.7)):
        lab.run("grid", number, value, parent=key_of(1))
    lab.store.choices.record(
        lab.job_id, ChoiceRow("final", "all", key_of(3), 0.8, "top1", candidates=3, sources=["grid"])
    )
    for number in (5, 6):
        lab.run("final", number, parent=key_of(1))
    lab.finish()


def key_of(number: int) -> str:
    return f"{number:02x}" * 32


# What is kept


def test_of_a_finished_study_the_chosen_the_best_and_the_last_stay(lab: Lab) -> None:
    a_finished_study(lab)
    plan = collector.plan(lab.store, lab.storage)
    unneeded = {key_of(2), key_of(4)}
    assert {item.key for item in plan.items if item.kind == "weights"} == unneeded
    assert {kept.trial.key for kept in plan.kept} == {key_of(n) for n in (1, 3, 5, 6)}
    assert lab.kept(key_of(3)) == {"chosen", "best"}
    assert lab.kept(key_of(1)) == {"best"}
    assert lab.kept(key_of(6)) == {"last"} or lab.kept(key_of(5)) == {"last"}  # of two seeds one is also the best
    done = lab.gc()
    assert sum(item.size for item in done.items) == 2 * 1000 + 6 * 200
    for number in range(1, 7):
        assert lab.weights(key_of(number)) == (key_of(number) not in unneeded)
        assert lab.files(key_of(number)) - {"weights.safetensors"} == {"log.txt", "token"}
    assert lab.gc().items == []


def test_what_a_trial_that_may_still_run_starts_from_stays(lab: Lab) -> None:
    for number in (1, 2, 3):
        lab.run("grid", number, 0.9 - number / 10)
    states = {2: "pending", 3: "failed"}
    for parent, state in states.items():
        child = lab.place("grid", 10 + parent, parent=key_of(parent))
        if state != "pending":
            lab.end(child, state)
    lab.finish()
    assert lab.kept(key_of(2)) == lab.kept(key_of(3)) == {"needed"}
    lab.store.leases.register(lab.driver)
    lab.end(key_of(12), "done", 0.1)
    assert lab.kept(key_of(2)) == set()
    assert lab.kept(key_of(3)) == {"needed"}


def test_a_chain_of_lost_weights_is_needed_up_to_its_first_kept_ones(lab: Lab) -> None:
    """3 needs 2, which has none and must run again, which needs 1."""
    for number in (1, 9):
        lab.run("grid", number, 0.1)
    lab.end(lab.place("grid", 2, parent=key_of(1)), "done", 0.9)
    lab.place("grid", 3, parent=key_of(2))
    lab.finish()
    assert lab.kept(key_of(1)) == {"needed"}
    assert lab.kept(key_of(9)) == set()


def test_a_job_that_is_not_done_holds_what_its_later_stages_start_from(lab: Lab) -> None:
    lab.run("pretrain", 1, 0.9)
    lab.run("pretrain", 2, 0.1)
    other = lab.run("grid", 3, 0.1)
    lab.run("grid", 4, 0.9)
    assert lab.kept(key_of(2)) == {"unfinished"}
    assert lab.kept(other) == set()
    lab.add_job("other-2", spec({"name": "one", "override": {"backbone.init": {"kind": "trial", "trial": other}}}))
    assert lab.kept(other) == {"unfinished"}
    lab.store.jobs.set_state("other-2", JobState.done)
    lab.finish()
    assert lab.kept(key_of(2)) == lab.kept(other) == set()


def test_a_search_that_goes_on_holds_all_its_trials(tmp_path: Path) -> None:
    job = spec({"name": "search", "sweep": {"search": {"optim.lr": {"loguniform": [1e-5, 1e-2]}}}})
    lab = Lab(f"sqlite:///{tmp_path / 'store.db'}", tmp_path, job)
    for number in (1, 2):
        lab.run("search", number, number / 10)
        (lab.folder(key_of(number)) / "state.pt").write_bytes(b"s" * 10)
    assert lab.kept(key_of(1)) == {"unfinished"}
    lab.finish()
    assert lab.kept(key_of(1)) == set()
    lab.gc()
    assert lab.files(key_of(1)) == {"log.txt", "token"}  # the state that a later span goes on from, with its weights
    assert lab.files(key_of(2)) == {"log.txt", "token", "weights.safetensors", "state.pt"}
    lab.store.close()


def test_the_best_is_found_by_the_stages_tie_rule(lab: Lab) -> None:
    for number, loss in ((1, 0.3), (2, 0.1), (3, 0.2)):
        lab.end(lab.place("grid", number), "done", 0.5, weights=True, loss=loss)
    lab.end(lab.place("grid", 4), "done", float("nan"), weights=True)
    lab.finish()
    assert [lab.kept(key_of(number)) for number in (1, 2, 3, 4)] == [set(), {"best"}, set(), set()]


def test_pins(lab: Lab) -> None:
    a_finished_study(lab)
    assert lab.store.weights.pin(key_of(2), "figure 3")
    assert not lab.store.weights.pin(key_of(2))
    assert lab.store.weights.pins() == {key_of(2): "figure 3"}
    assert [reason.text for reason in reasons(lab.store.weights.retention_facts())[key_of(2)]] == ["pinned: figure 3"]
    lab.gc()
    assert lab.weights(key_of(2))
    assert not lab.weights(key_of(4))
    assert lab.store.weights.unpin(key_of(2))
    assert not lab.store.weights.unpin(key_of(2))
    lab.store.weights.pin(lab.job_id)
    lab.gc()
    assert lab.weights(key_of(2))
    lab.store.weights.unpin(lab.job_id)
    lab.gc()
    assert not lab.weights(key_of(2))


@pytest.mark.parametrize("how", ["pending", "failed", "cancelled", "diverged", "running"])
def test_what_a_trial_would_go_on_from_is_removed_only_when_asked(lab: Lab, how: str) -> None:
    key = lab.end(lab.place("grid", 1), how)
    for name in ("abc.tmp", "damaged-checkpoint.pt"):
        (lab.folder(key) / name).write_bytes(b"x")
    left = {"log.txt", "token", "checkpoint"}
    if how == "running":
        left |= {"abc.tmp", "damaged"}
    if how == "diverged":
        left -= {"checkpoint"}
    lab.gc()
    assert lab.files(key) == left
    lab.gc(checkpoints=True)
    assert lab.files(key) == left - ({"checkpoint"} if how in ("failed", "cancelled") else set())
    lab.store.leases.unregister(lab.driver.id)
    lab.gc(checkpoints=True)  # no driver is about to begin it any more
    assert lab.files(key) == left - ({"checkpoint"} if how != "running" else set())


def test_a_trial_that_ended_unheard_keeps_what_it_said(local: Lab) -> None:
    key = local.end(local.place("grid", 1), "pending")
    (local.folder(key) / "outcome.json").write_text("{}")
    (local.folder(key) / "weights.safetensors").write_bytes(b"w")
    local.store.leases.unregister(local.driver.id)
    assert local.gc(checkpoints=True).items == []


def test_the_beginning_of_a_schedule_is_not_the_best_of_its_group(tmp_path: Path) -> None:
    """In population-based training, where a trial goes on from another: only whole schedules are results."""
    search = {"search": {"optim.lr": {"loguniform": [1e-5, 1e-2]}}, "population": {"size": 2}}
    lab = Lab(f"sqlite:///{tmp_path / 'store.db'}", tmp_path, spec({"name": "search", "sweep": search}))
    for number, span, value in ((1, (0, 5), 0.9), (2, (5, 10), 0.8), (3, (5, 10), 0.7)):
        whole = {"span": {"first_epoch": span[0], "last_epoch": span[1]}, "optim": {"epochs": 10}}
        key = lab.place("search", number, parent=key_of(1) if number > 1 else None, spec=whole)
        lab.end(key, "done", value, weights=True)
    lab.finish()
    assert [lab.kept(key_of(number)) for number in (1, 2, 3)] == [set(), {"best"}, set()]
    lab.store.close()


def test_weights_that_are_gone_are_named_and_forgotten_when_asked(lab: Lab) -> None:
    """Then they are made again where they are needed; else a trial that starts from them fails for want of a file."""
    a_finished_study(lab)
    lab.place("grid", 20, parent=key_of(1))
    (lab.folder(key_of(1)) / "weights.safetensors").unlink()
    plan = collector.plan(lab.store, lab.storage)
    assert plan.lost == []
    assert any("recorded weights are not there: 1, the first of pretrain/all/1" in note for note in plan.notes)
    collector.remove(lab.store, lab.storage, plan)
    assert lab.store.trials.snapshots([key_of(1)])[key_of(1)].weights is not None
    lab.gc(lost=True)
    assert not lab.weights(key_of(1))
    assert lab.weights(key_of(3))


def test_a_storage_that_is_not_there_is_no_loss(local: Lab) -> None:
    a_finished_study(local)
    local.storage.rename(local.storage.parent / "unmounted")
    local.gc(lost=True)
    assert local.store.trials.snapshots([key_of(3)])[key_of(3)].weights is not None


# What is looked at


def test_only_one_job_and_only_old_ones(local: Lab) -> None:
    local.add_job("other-2", STUDY)
    local.run("grid", 1, 0.1)
    local.run("grid", 2, 0.9)
    local.run("grid", 3, 0.1, job="other-2")
    local.run("grid", 4, 0.9, job="other-2")
    local.finish()
    assert local.gc(older_than_s=3600).items == []
    assert {item.key for item in local.gc(job="other-2").items} == {key_of(3), key_of(4)}
    assert not local.weights(key_of(3))
    assert local.weights(key_of(1))
    local.gc(older_than_s=0)
    assert not local.weights(key_of(1))


def test_folders_of_no_known_trial_are_named_and_removed_only_when_asked(local: Lab) -> None:
    a_finished_study(local)
    old, new = local.folder("f0" * 32), local.folder("f1" * 32)
    for folder in (old, new):
        (folder / "train").mkdir(parents=True)
        (folder / "train" / "x").write_bytes(b"x" * 50)
    before = time.time() - 2 * 86400
    for path in (old / "train" / "x", old / "train", old):
        os.utime(path, (before, before))
    plan = collector.plan(local.store, local.storage)
    assert any("2 folders (100 bytes) of no trial of this store stay" in note for note in plan.notes)
    local.gc()
    assert old.exists()
    assert new.exists()
    done = local.gc(unknown=True)
    assert [(item.kind, item.size) for item in done.items] == [("unknown", 50)]
    assert not old.exists()
    assert new.exists()
    assert local.weights(key_of(3))


def test_another_stores_storage_loses_nothing(local: Lab, tmp_path: Path) -> None:
    """The store of one study, and by mistake the storage of another."""
    local.run("grid", 1, 0.1)
    local.run("grid", 2, 0.9)
    local.finish()
    empty = Lab(f"sqlite:///{tmp_path / 'empty.db'}", tmp_path)
    assert empty.gc(unknown=True, checkpoints=True).items == []
    assert local.weights(key_of(1))
    moved = local.storage.rename(tmp_path / "moved")
    copy = collector.plan(local.store, moved)  # recorded at another path: which of two copies is meant cannot be told
    assert [item.kind for item in copy.items] == ["checkpoint"] * 4
    assert any("recorded them at another path" in note for note in copy.notes)
    empty.store.close()


def test_nothing_outside_the_storage_is_touched(local: Lab, tmp_path: Path) -> None:
    key = local.end(local.place("grid", 9), "failed")
    a_finished_study(local)
    outside = tmp_path / "outside"
    outside.mkdir()
    precious = {"weights.safetensors", "checkpoint-000000001-0.pt", "damaged-x"}
    for name in precious:
        (outside / name).write_bytes(b"precious")
    link = local.folder(key_of(2)) / "weights.safetensors"  # unneeded, but a link by now
    link.unlink()
    link.symlink_to(outside / "weights.safetensors")
    (local.folder(key_of(4)) / "checkpoint-000000009-0.pt").symlink_to(outside / "checkpoint-000000001-0.pt")
    local.folder(key).rename(tmp_path / "whole")
    local.folder(key).symlink_to(tmp_path / "whole", target_is_directory=True)
    (local.storage / "trials" / "ee").symlink_to(outside, target_is_directory=True)
    plan = collector.plan(local.store, local.storage, Options(checkpoints=True, unknown=True))
    assert sum("is a link" in note for note in plan.notes) == 4
    collector.remove(local.store, local.storage, plan)
    assert {path.name for path in outside.iterdir()} == {
        "weights.safetensors",
        "checkpoint-000000001-0.pt",
        "damaged-x",
    }
    assert link.is_symlink()
    assert local.store.trials.snapshots([key_of(2)])[key_of(2)].weights is not None
    assert len(list((tmp_path / "whole").glob("checkpoint-*"))) == 2


def test_a_folder_that_became_a_link_after_the_plan_is_left(local: Lab, tmp_path: Path) -> None:
    a_finished_study(local)
    plan = collector.plan(local.store, local.storage)
    folder = local.folder(key_of(2))
    folder.rename(tmp_path / "moved")
    folder.symlink_to(tmp_path / "moved", target_is_directory=True)
    done = collector.remove(local.store, local.storage, plan)
    assert {item.key for item, _ in done.refused} == {key_of(2)}
    assert (tmp_path / "moved" / "weights.safetensors").exists()


def test_a_storage_that_is_itself_a_link_is_looked_at(local: Lab, tmp_path: Path) -> None:
    a_finished_study(local)
    link = tmp_path / "link"
    link.symlink_to(local.storage, target_is_directory=True)
    collector.remove(local.store, link, collector.plan(local.store, link))
    assert not local.weights(key_of(2))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may remove everything")
def test_what_the_storage_refuses_is_said(local: Lab) -> None:
    a_finished_study(local)
    local.folder(key_of(2)).chmod(0o500)
    try:
        done = local.gc()
    finally:
        local.folder(key_of(2)).chmod(0o700)
    assert {item.key for item, _ in done.refused} == {key_of(2)}


# Others at work


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
    """Also when it ended again since: what is there now is not what was looked at."""
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
    """A gc that slept between its two steps finds another attempt's weights under the same name."""
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
    claiming.join(20)
    assert seen == [False]
    assert other.leases.claim(lab.driver.id, [key]) == {key: 2} or taken == [{key: 2}]
    other.close()


def test_a_child_that_is_placed_while_weights_are_forgotten_sees_that_they_are_gone(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its driver would start it with weights whose file is removed a moment later."""
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
    placing.join(20)
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
        thread.join(30)
    assert [lab.weights(key_of(number)) for number in range(1, 7)] == [True, False, True, False, True, True]
    other.close()


# As typed


@pytest.fixture
def typed(local: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """A command's stdout and stderr together, at this store and storage."""

    def call(*arguments: str, code: int = 0) -> str:
        where = ["--database-url", local.url, *(["--storage", str(local.storage)] if arguments[0] == "gc" else [])]
        monkeypatch.setattr(sys, "argv", ["orchestrator", *arguments, *where])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        assert (end.value.code or 0) == code, out + err
        assert "Traceback" not in err
        return str(out + err)

    return call


def test_the_plan_lists_and_the_command_removes(local: Lab, typed: Callable[..., str]) -> None:
    a_finished_study(local)
    text = typed("gc", "--plan")
    assert "would remove 14 files, 3,200 bytes" in text
    assert "not chosen, best or last, not pinned, and nothing needs it" in text
    assert "kept: weights of 2 best, 1 chosen, 1 last: 4 files, 4,000 bytes" in text
    assert local.weights(key_of(2))
    plan = json.loads(typed("gc", "--plan", "-o", "json"))
    assert (plan["removable_bytes"], plan["removed"]) == (3200, None)
    assert {each["key"] for each in plan["removable"] if each["kind"] == "weights"} == {key_of(2), key_of(4)}
    assert {reason["kind"] for kept in plan["kept"] for reason in kept["reasons"]} == {"chosen", "best", "last"}
    done = json.loads(typed("gc", "-o", "json"))
    assert (done["removed_bytes"], len(done["removed"]), done["refused"]) == (3200, 14, [])
    assert not local.weights(key_of(2))
    assert "removed 0 files, 0 bytes" in typed("gc")


def test_pin_and_unpin_as_typed(local: Lab, typed: Callable[..., str]) -> None:
    a_finished_study(local)
    assert "trial 020202020202 is pinned" in typed("pin", "grid/all/2", "--why", "figure 3")
    assert "was pinned already" in typed("pin", key_of(2)[:8])
    assert "job study-1 is pinned" in typed("pin", "study")
    assert "pinned: figure 3" in describe.trial(local.store, key_of(2), local.storage).text()
    assert "no longer pinned" in typed("unpin", "study")
    assert "job study-1 is not pinned; pins: 020202020202" in typed("unpin", "study", code=4)
    typed("gc")
    assert local.weights(key_of(2))
    assert "no trial has the name" in typed("pin", "nothing", code=4)


def test_wrong_flags_are_named(local: Lab, typed: Callable[..., str]) -> None:
    assert "'soon' is no age" in typed("gc", "--older-than", "soon", code=2)
    assert "no job has the name 'nothing'" in typed("gc", "--job", "nothing", code=4)
    assert "no trial has written anything" in typed("gc", "--older-than", "1.5h")
