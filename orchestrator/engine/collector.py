"""Removes files of trials that nothing needs any more: `gc`. Safe if it is killed at any point.

What is kept depends on the state of the trial:

* running, by any driver: everything.
* pending, failed, cancelled, stopped: everything. On request (`checkpoints`) its checkpoints are removed, unless a
  driver may be about to start the trial, or its end is not recorded yet.
* done: its weights (and a training state beside them) if `rules.retention` has a reason: pinned; needed by a trial that
  may still run, or by a later stage or a search of a job that is not done; chosen by a stage; best of its group; the
  end of its job.
* diverged: nothing.
* no trial of this store: everything, unless asked (`unknown`) and nothing was written there for a day.

Logs and pictures are always kept. A storage folder belongs to one store, because what a second store needs cannot be
known. A removal first records that weights are not kept, then removes the file: a kill in between leaves a file that
nothing refers to, which the next `gc` finds. Anything removed by mistake is recomputed when needed: a done trial whose
weights another trial needs runs once more.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.records.states import TrialState
from orchestrator.records.trial_files import TRIALS, stored_file
from orchestrator.rules.retention import RESULTS, Reason, Trial, reasons
from workers.fault_injection import fault_point

if TYPE_CHECKING:
    from orchestrator.store.store import Store

DAY_S = 86400.0
"""A folder of an unknown trial that was written to within a day is kept: a driver of another store may be using it."""
WEIGHTS, AVERAGED = "weights.safetensors", "averaged.safetensors"
"""The names that workers.checkpoint gives them. Averaged weights, and state*.pt, the training state from which a later
span resumes, are removed with the weights."""


@dataclass(frozen=True)
class Options:
    """Which trials to look at, and what to remove."""

    job: str | None = None
    """Id of the job whose trials are looked at; None: all jobs."""
    older_than_s: float = 0.0
    """Skip trials that ended (or, if they did not, were last written to) within so many seconds."""
    checkpoints: bool = False
    """Also remove the checkpoints from which stopped, cancelled and failed trials would resume."""
    unknown: bool = False
    """Also remove folders of trials that are not in the store."""
    lost: bool = False
    """Also mark weights as not kept if they are recorded but their file is gone."""


@dataclass(frozen=True)
class Item:
    """A file, or a folder with its content, that is not needed."""

    key: str
    kind: str
    """weights, checkpoint, leftover or unknown."""
    path: Path
    size: int
    reason: str
    trial: Trial | None
    """The trial when the item was found; None if it is not in the store."""


@dataclass(frozen=True)
class Kept:
    """Weights that are kept."""

    trial: Trial
    path: Path
    size: int
    reasons: list[Reason]


@dataclass
class RemovalPlan:
    """What would be removed and what is kept, with a note on each thing that is kept unexpectedly."""

    items: list[Item] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    lost: list[Trial] = field(default_factory=list)
    """Trials whose weights are recorded but gone, and shall be marked as not kept; they are recomputed when needed."""
    notes: list[str] = field(default_factory=list)


@dataclass
class Removed:
    """The outcome of a removal."""

    items: list[Item] = field(default_factory=list)
    in_use: list[Item] = field(default_factory=list)
    """Kept, because a driver or a user has come to need them since the plan was made."""
    refused: list[tuple[Item, str]] = field(default_factory=list)
    """Items that could not be deleted, each with the error of the file system."""


def plan(store: Store, storage: Path, options: Options | None = None) -> RemovalPlan:
    """Finds what is not needed, by the present state of the store and the files in `storage`. Changes nothing."""
    root = storage.resolve() / TRIALS
    scan = _StorageScan(store, storage, options or Options())
    for folder in _trial_folders(root, scan.plan.notes):
        scan.add_folder(folder)
    if root.is_dir():  # else the storage may not be mounted here, and no file is known to be gone
        scan.add_lost_weights(root)
    return scan.finish()


def remove(store: Store, storage: Path, removal: RemovalPlan) -> Removed:
    """Removes what `plan` found and what has not changed since; files of a trial while no driver can claim it."""
    root, done = storage.resolve() / TRIALS, Removed()
    by_trial: dict[str, list[Item]] = defaultdict(list)
    for item in removal.items:
        by_trial[item.key].append(item)
    fault_point("gc_before_forget")
    store.weights.forget_lost({trial.key: str(trial.weights) for trial in removal.lost})
    store.weights.forget(key for key, items in by_trial.items() if any(item.kind == "weights" for item in items))
    for key, items in by_trial.items():
        fault_point("gc_before_remove", key)
        outcome = _remove_of_trial(store, root, key, items)
        done.items += outcome.items
        done.in_use += outcome.in_use
        done.refused += outcome.refused
    return done


def _remove_of_trial(store: Store, root: Path, key: str, items: list[Item]) -> Removed:
    trial, outcome = items[0].trial, Removed(in_use=items)
    if trial is None:
        return outcome if store.trials.snapshots([key]) else _delete(root, items)

    def work(has_weights: bool) -> None:
        nonlocal outcome
        in_use = [item for item in items if item.kind == "weights" and has_weights]
        outcome = _delete(root, [item for item in items if item not in in_use])
        outcome.in_use = in_use

    store.weights.with_unclaimed(key, trial.token, (trial.state,), work)
    return outcome


def _delete(root: Path, items: list[Item]) -> Removed:
    """Deletes files by name, so the oldest checkpoint first: after a kill, the trial can resume from the others."""
    done = Removed()
    for item in sorted(items, key=lambda item: item.path.name):
        try:
            if not item.path.parent.resolve().is_relative_to(root):
                raise OSError("it now leads out of the storage folder")
            if item.path.is_dir() and not item.path.is_symlink():
                shutil.rmtree(item.path)
            else:
                item.path.unlink(missing_ok=True)  # another gc may have deleted it
            done.items.append(item)
        except OSError as error:
            done.refused.append((item, error.strerror or str(error)))
    return done


class _StorageScan:
    """Compares the files in the storage with the state of the store, which is read first."""

    def __init__(self, store: Store, storage: Path, options: Options) -> None:
        self.plan = RemovalPlan()
        self._storage = storage
        self._options = options
        facts = store.weights.retention_facts()
        self._trials, self._reasons = facts.trials, reasons(facts)
        self._driven_jobs = {driver.job_id for driver in store.leases.drivers()}
        self._jobs: dict[str, set[str]] = defaultdict(set)
        """Key of a trial -> ids of its jobs."""
        for place in facts.places:
            self._jobs[place.key].add(place.job)
        self._now = time.time()
        self._unknown: list[tuple[Path, int, float]] = []
        """Folders of trials that are not in the store: path, bytes, time of the last write."""
        self._moved: list[str] = []
        """Recorded paths of weights that this storage holds at another path."""

    def add_folder(self, folder: Path) -> None:
        """Decides about each file in a trial's folder."""
        trial, job = self._trials.get(folder.name), self._options.job
        if trial is None:
            if job is None:
                self._unknown.append((folder, *_size_and_time(folder)))
            return
        if trial.state is TrialState.running or (job is not None and job not in self._jobs[trial.key]):
            return
        files = {path: _size_and_time(path) for path in _entries(folder, self.plan.notes)}
        ended = trial.ended or max((written for _, written in files.values()), default=0.0)
        if self._now - ended < self._options.older_than_s:
            return
        abandoned = self._abandoned(trial, folder)
        for path, (size, _) in files.items():
            kind, reason = self._judge(trial, path, size, abandoned)
            if reason:
                self.plan.items.append(Item(trial.key, kind, path, size, reason, trial))

    def _judge(self, trial: Trial, path: Path, size: int, abandoned: bool) -> tuple[str, str]:
        """Kind of a file, and why it is not needed; no reason: it is kept."""
        ended = f"its trial is {trial.state}" if trial.state in RESULTS else ""
        unused = f"its trial is {trial.state}; asked for by --checkpoints" if abandoned else ""
        if path.match("*.tmp") or path.match("damaged-*"):
            return "leftover", "half-written or damaged"
        if path.match("checkpoint-*.pt") or path.match("evaluation-*.jsonl"):
            return "checkpoint", ended or unused
        if path.name in (WEIGHTS, AVERAGED) or path.match("state*.pt"):
            return ("weights", self._weights(trial, path, size)) if ended else ("checkpoint", unused)
        if path.name in ("outcome.json", "train"):  # `train` is Ray Train's own
            return "leftover", ended
        return "", ""  # log.txt, token, pictures, measurements.jsonl, and files of others

    def _abandoned(self, trial: Trial, folder: Path) -> bool:
        """True if a trial that could resume will not: no driver may be about to start it, and its end is recorded."""
        if not self._options.checkpoints or trial.state in RESULTS:
            return False
        if trial.state is not TrialState.pending:
            return True
        return not self._jobs[trial.key] & self._driven_jobs and not (folder / "outcome.json").exists()

    def _weights(self, trial: Trial, path: Path, size: int) -> str:
        """Why the weights of a trial with a result are not needed; empty if they are kept."""
        if trial.state is TrialState.diverged:
            return "its trial is diverged"
        if trial.weights is None:
            return "no record refers to it"
        if not _same_file(stored_file(self._storage, trial.weights), path.with_name(WEIGHTS)):
            self._moved.append(trial.weights)
            return ""
        if trial.key in self._reasons:
            self.plan.kept.append(Kept(trial, path, size, self._reasons[trial.key]))
            return ""
        return "not chosen, best or last, not pinned, and nothing needs it"

    def add_lost_weights(self, root: Path) -> None:
        """Finds weights that the store records in this storage and whose file is gone."""
        lost = []
        for trial in self._trials.values():
            if trial.weights is None or trial.state is TrialState.running:
                continue
            path = stored_file(self._storage, trial.weights)
            inside = path.parents[2].resolve() == root if len(path.parents) > 2 else False
            if inside and not path.exists() and self._options.job in (None, *self._jobs[trial.key]):
                lost.append(trial)
        if self._options.lost:
            self.plan.lost = lost
        elif lost:
            what = f"files of recorded weights are gone: {len(lost)}, the first of {lost[0].name} ({lost[0].key[:12]})"
            self.plan.notes.append(f"{what}; with --lost they count as not kept and are recomputed when needed")

    def finish(self) -> RemovalPlan:
        """The plan, with what belongs to no trial of the store."""
        newest = self._now - max(DAY_S, self._options.older_than_s)
        kept_folders, kept_bytes = 0, 0
        for folder, size, written in self._unknown:
            if self._options.unknown and written < newest:
                self.plan.items.append(Item(folder.name, "unknown", folder, size, "no trial of this store", None))
            else:
                kept_folders, kept_bytes = kept_folders + 1, kept_bytes + size
        if kept_folders:
            why = "written to within a day" if self._options.unknown else "another store's? --unknown removes them"
            what = f"{kept_folders} folders ({kept_bytes:,} bytes) of no trial of this store are kept"
            self.plan.notes.append(f"{what}: {why}")
        if self._moved:
            what = f"{len(self._moved)} weights are kept: their trials recorded them at another path"
            self.plan.notes.append(f"{what} ({self._moved[0]})")
        self.plan.items.sort(key=lambda item: (item.key, item.path.name))
        return self.plan


def _trial_folders(root: Path, notes: list[str]) -> Iterator[Path]:
    """The trials' folders below `root`: <2 letters>/<key>. Links are not followed."""
    if not root.is_dir():
        notes.append(f"no trial has written anything to {root} yet")
        return
    for start in _entries(root, notes):
        if re.fullmatch("[0-9a-f]{2}", start.name) and start.is_dir():
            for folder in _entries(start, notes):
                if re.fullmatch(f"{start.name}[0-9a-f]{{62}}", folder.name) and folder.is_dir():
                    yield folder


def _entries(folder: Path, notes: list[str]) -> Iterator[Path]:
    """Files and folders in a folder, by name, without links."""
    try:
        with os.scandir(folder) as entries:
            listed = sorted((Path(entry.path), entry.is_symlink()) for entry in entries)
    except OSError as error:
        notes.append(f"{folder} cannot be read: {error.strerror}")
        return
    for path, link in listed:
        if link:
            notes.append(f"{path} is a link: it and its target are kept")
        else:
            yield path


def _size_and_time(path: Path) -> tuple[int, float]:
    """Bytes of a file, or of all files in a folder, and the time of the last write. Files that vanish do not count."""
    size, written = 0, 0.0
    for each in [path, *path.rglob("*")] if path.is_dir() else [path]:
        try:
            stat = each.lstat()
        except FileNotFoundError:
            continue
        size += 0 if each.is_dir() else stat.st_size
        written = max(written, stat.st_mtime)
    return size, written


def _same_file(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except OSError:
        return False
