"""What gc keeps and removes, by the state of the store; and pins."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gc_lab import STUDY, Lab, a_finished_study, key_of, spec

from orchestrator.engine import collector
from orchestrator.engine.collector import Options
from orchestrator.records.states import JobState
from orchestrator.rules.retention import reasons


@pytest.fixture
def lab(database_url: str, tmp_path: Path) -> Iterator[Lab]:
    made = Lab(database_url, tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Lab]:
    """On SQLite alone, for tests that do not depend on the database."""
    made = Lab(f"sqlite:///{tmp_path / 'store.db'}", tmp_path)
    yield made
    made.store.close()


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
    """3 needs 2, which has none and must run again, and so needs 1."""
    for number in (1, 9):
        lab.run("grid", number, 0.1)
    lab.end(lab.place("grid", 2, parent=key_of(1)), "done", 0.9)
    lab.place("grid", 3, parent=key_of(2))
    lab.finish()
    assert lab.kept(key_of(1)) == {"needed"}
    assert lab.kept(key_of(9)) == set()


def reads(*keys: str) -> dict[str, Any]:
    """A task that reads the weights of these trials."""
    return {"task": {"others": [{"kind": "trial", "name": key[:2], "trial": key} for key in keys]}}


def test_what_the_task_of_a_trial_reads_stays_as_what_its_backbone_starts_from(lab: Lab) -> None:
    """5 starts from 1 and reads 2 and 3; 3 has no weights, so it must run again, and it reads 4. 9 is not needed."""
    for number in (1, 2, 4, 9):
        lab.run("grid", number, 0.1)
    lab.end(lab.place("grid", 3, spec=reads(key_of(4))), "done", 0.9)
    lab.place("grid", 5, parent=key_of(1), spec=reads(key_of(2), key_of(3)))
    lab.finish()
    for number in (1, 2, 3, 4):
        assert lab.kept(key_of(number)) - {"best"} == {"needed"}
    assert lab.kept(key_of(9)) == set()
    lab.gc()
    assert [lab.weights(key_of(number)) for number in (1, 2, 4, 9)] == [True, True, True, False]
    assert lab.store.lineage.children(key_of(2)) == [key_of(5)]
    assert [child.key for child in lab.store.lineage.first_children(key_of(4), 8)] == [key_of(3)]
    lab.store.leases.register(lab.driver)
    lab.end(key_of(5), "done", 0.1)
    assert [lab.kept(key_of(number)) for number in (2, 4)] == [set(), set()]


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
    assert lab.files(key_of(1)) == {
        "log.txt",
        "token",
    }  # the state from which a later span resumes goes with its weights
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
    """In population-based training, where trials resume from others: only whole schedules are results."""
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
    """Then they are recomputed when needed; else a trial that starts from them fails because the file is missing."""
    a_finished_study(lab)
    lab.place("grid", 20, parent=key_of(1))
    (lab.folder(key_of(1)) / "weights.safetensors").unlink()
    plan = collector.plan(lab.store, lab.storage)
    assert plan.lost == []
    assert any("files of recorded weights are gone: 1, the first of pretrain/all/1" in note for note in plan.notes)
    collector.remove(lab.store, lab.storage, plan)
    assert lab.store.trials.snapshots([key_of(1)])[key_of(1)].weights is not None
    lab.gc(lost=True)
    assert not lab.weights(key_of(1))
    assert lab.weights(key_of(3))


def test_a_storage_that_is_not_there_is_no_loss(local: Lab) -> None:
    a_finished_study(local)
    before = local.store.trials.snapshots([key_of(3)])
    local.storage.rename(local.storage.parent / "unmounted")
    local.gc(lost=True)
    assert local.store.trials.snapshots([key_of(3)]) == before
    path, digest = before[key_of(3)].weights or ("", "")
    assert path.endswith("weights.safetensors")
    assert len(digest) == 64


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
    assert any("2 folders (100 bytes) of no trial of this store are kept" in note for note in plan.notes)
    local.gc()
    assert old.exists()
    assert new.exists()
    done = local.gc(unknown=True)
    assert [(item.kind, item.size) for item in done.items] == [("unknown", 50)]
    assert not old.exists()
    assert new.exists()
    assert local.weights(key_of(3))


def test_another_stores_storage_loses_nothing(local: Lab, tmp_path: Path) -> None:
    """The store of one study, by mistake with the storage of another."""
    local.run("grid", 1, 0.1)
    local.run("grid", 2, 0.9)
    local.finish()
    empty = Lab(f"sqlite:///{tmp_path / 'empty.db'}", tmp_path)
    assert empty.gc(unknown=True, checkpoints=True).items == []
    assert local.weights(key_of(1))
    moved = shutil.copytree(local.storage, tmp_path / "moved")
    copy = collector.plan(local.store, moved)  # recorded at another path: which of two copies is meant cannot be told
    assert [item.kind for item in copy.items] == ["checkpoint"] * 4
    assert any("recorded them at another path" in note for note in copy.notes)
    shutil.rmtree(local.storage)  # the folder was moved: the one that is left is meant
    left = collector.plan(local.store, moved)
    assert [item.kind for item in left.items if item.key == key_of(1)] == ["checkpoint", "checkpoint", "weights"]
    assert [kept.trial.key for kept in left.kept] == [key_of(2)]
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
