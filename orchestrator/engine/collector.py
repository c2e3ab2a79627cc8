"""The only place that removes files of ended trials: what `gc` would remove and why, and the removal, safe at any kill.

What is kept, by the state of the trial:

* running, whoever drives it: everything.
* pending, failed, cancelled, stopped: everything. Checkpoints go when asked (`checkpoints`), unless a driver is about
  to begin the trial or it ended without being heard.
* done: its weights (and a training state beside them), when `keep` has a reason for it: pinned; needed by a trial that
  may still run, or by a later stage or a search of a job that is not done; chosen by a stage; best of its group; the
  end of its job.
* diverged: nothing.
* no trial of this store: everything, unless asked (`unknown`) and nothing was written there for a day.

Logs and pictures stay. A storage belongs to one store: what a second one needs cannot be seen. A removal records first
that weights are not kept, and removes the file then: a kill between the two leaves a file that nobody refers to, which
the next `gc` finds. What was removed too much is made again: a done trial whose weights a child needs runs once more.
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
from orchestrator.rules.retention import RESULTS, Reason, Trial, reasons
from workers.fault_injection import fault_point

if TYPE_CHECKING:
    from orchestrator.store.store import Store

DAY_S = 86400.0
"""A folder of no known trial that was written to within a day is left: another store's driver may be at work there."""
WEIGHTS = "weights.safetensors"
"""As workers.checkpoint names them. state*.pt, the training state that a later span goes on from, goes with them."""


@dataclass(frozen=True)
class Options:
    """What to look at, and how far to go."""

    job: str | None = None
    """Id of the job whose trials are looked at (none: all)."""
    older_than_s: float = 0.0
    """Trials that ended (or, where they did not, were last written to) within so many seconds are passed over."""
    checkpoints: bool = False
    """Also what trials that were stopped, cancelled or failed would go on from."""
    unknown: bool = False
    """Also folders of trials that the store does not know."""
    lost: bool = False
    """Also forget weights that are recorded but not there any more."""


@dataclass(frozen=True)
class Item:
    """A file, or a folder with all that is in it, that has no use any more."""

    key: str
    kind: str
    """weights, checkpoint, leftover or unknown."""
    path: Path
    size: int
    reason: str
    trial: Trial | None
    """As it was when this was found; None: the store does not know it."""


@dataclass(frozen=True)
class Kept:
    """Weights that stay."""

    trial: Trial
    path: Path
    size: int
    reasons: list[Reason]


@dataclass
class RemovalPlan:
    """What would be removed, what stays, and a line for each thing that was left alone and might surprise."""

    items: list[Item] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    lost: list[Trial] = field(default_factory=list)
    """Their weights are recorded but not there, and are to be forgotten: where needed, they are then made again."""
    notes: list[str] = field(default_factory=list)


@dataclass
class Removed:
    """What a removal came to."""

    items: list[Item] = field(default_factory=list)
    in_use: list[Item] = field(default_factory=list)
    """Left: since they were found, a driver or a user has come to need them."""
    refused: list[tuple[Item, str]] = field(default_factory=list)
    """Left, because the storage refused; and what it said."""


def plan(store: Store, storage: Path, options: Options | None = None) -> RemovalPlan:
    """What has no use any more, by the store as it is now and the files in `storage`. Changes nothing."""
    root = storage.resolve() / "trials"
    look = _StorageScan(store, options or Options())
    for folder in _folders(root, look.plan.notes):
        look.at(folder)
    if root.is_dir():  # else nothing can be told: it may not be mounted here
        look.for_lost_ones(root)
    return look.close()


def remove(store: Store, storage: Path, found: RemovalPlan) -> Removed:
    """Removes what `plan` found, as far as nothing has changed since; each trial's files while none can claim it."""
    root, done = storage.resolve() / "trials", Removed()
    by_trial: dict[str, list[Item]] = defaultdict(list)
    for item in found.items:
        by_trial[item.key].append(item)
    fault_point("gc_before_forget")
    store.weights.forget_lost({trial.key: str(trial.weights) for trial in found.lost})
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
        return outcome if store.trials.snapshots([key]) else _removed(root, items)

    def work(has_weights: bool) -> None:
        nonlocal outcome
        in_use = [item for item in items if item.kind == "weights" and has_weights]
        outcome = _removed(root, [item for item in items if item not in in_use])
        outcome.in_use = in_use

    store.weights.with_unclaimed(key, trial.token, (trial.state,), work)
    return outcome


def _removed(root: Path, items: list[Item]) -> Removed:
    """Removes files by name, so checkpoints from the oldest on: what a kill leaves can still be gone on from."""
    done = Removed()
    for item in sorted(items, key=lambda item: item.path.name):
        try:
            if not item.path.parent.resolve().is_relative_to(root):
                raise OSError("it leads out of the storage folder by now")
            if item.path.is_dir() and not item.path.is_symlink():
                shutil.rmtree(item.path)
            else:
                item.path.unlink(missing_ok=True)  # another gc was quicker
            done.items.append(item)
        except OSError as error:
            done.refused.append((item, error.strerror or str(error)))
    return done


class _StorageScan:
    """One look at the storage, with what the store said before it."""

    def __init__(self, store: Store, options: Options) -> None:
        self.plan = RemovalPlan()
        self._options = options
        facts = store.weights.retention_facts()
        self._trials, self._reasons = facts.trials, reasons(facts)
        self._driven = {driver.job_id for driver in store.leases.drivers()}
        self._jobs: dict[str, set[str]] = defaultdict(set)
        for place in facts.places:
            self._jobs[place.key].add(place.job)
        self._now = time.time()
        self._unknown: list[tuple[Path, int, float]] = []
        self._elsewhere: list[str] = []

    def at(self, folder: Path) -> None:
        """Judges what is in a trial's folder."""
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
        given_up = self._given_up(trial, folder)
        for path, (size, _) in files.items():
            kind, reason = self._judge(trial, path, size, given_up)
            if reason:
                self.plan.items.append(Item(trial.key, kind, path, size, reason, trial))

    def _judge(self, trial: Trial, path: Path, size: int, given_up: bool) -> tuple[str, str]:
        """Kind of a file, and why it has no use; no reason: it stays."""
        ended = f"its trial is {trial.state}" if trial.state in RESULTS else ""
        if path.match("*.tmp") or path.match("damaged-*"):
            return "leftover", "half-written or damaged"
        if path.match("checkpoint-*.pt"):
            return "checkpoint", ended or (f"its trial is {trial.state}, and given up" if given_up else "")
        if path.name == WEIGHTS or path.match("state*.pt"):
            if ended:
                return "weights", self._weights(trial, path, size)
            return "checkpoint", f"its trial is {trial.state}, and given up" if given_up else ""
        if path.name in ("outcome.json", "train"):  # `train` is Ray Train's own
            return "leftover", ended
        return "", ""  # log.txt, token, pictures, and what others put here

    def _given_up(self, trial: Trial, folder: Path) -> bool:
        """Whether a trial that could go on will not: not one that a driver is about to begin, nor one that ended
        without anybody having heard it."""
        if not self._options.checkpoints or trial.state in RESULTS:
            return False
        if trial.state is not TrialState.pending:
            return True
        return not self._jobs[trial.key] & self._driven and not (folder / "outcome.json").exists()

    def _weights(self, trial: Trial, path: Path, size: int) -> str:
        """Why the weights of an ended trial may go; empty when they stay."""
        if trial.state is TrialState.diverged:
            return "its trial is diverged"
        if trial.weights is None:
            return "no record refers to it"
        if not _same_file(Path(trial.weights), path.with_name(WEIGHTS)):
            self._elsewhere.append(trial.weights)
            return ""
        if trial.key in self._reasons:
            self.plan.kept.append(Kept(trial, path, size, self._reasons[trial.key]))
            return ""
        return "not chosen, best or last, not pinned, and nothing needs it"

    def for_lost_ones(self, root: Path) -> None:
        """Finds weights that the store counts on and that are gone from this storage."""
        gone = []
        for trial in self._trials.values():
            if trial.weights is None or trial.state is TrialState.running:
                continue
            path = Path(trial.weights)
            here = path.parents[2].resolve() == root if len(path.parents) > 2 else False
            if here and not path.exists() and self._options.job in (None, *self._jobs[trial.key]):
                gone.append(trial)
        if self._options.lost:
            self.plan.lost = gone
        elif gone:
            what = f"recorded weights are not there: {len(gone)}, the first of {gone[0].name} ({gone[0].key[:12]})"
            self.plan.notes.append(f"{what}; --lost forgets them, so that they are made again where they are needed")

    def close(self) -> RemovalPlan:
        """The plan, with what belongs to no trial."""
        oldest_left = self._now - max(DAY_S, self._options.older_than_s)
        left = 0, 0
        for folder, size, written in self._unknown:
            if self._options.unknown and written < oldest_left:
                self.plan.items.append(Item(folder.name, "unknown", folder, size, "no trial of this store", None))
            else:
                left = left[0] + 1, left[1] + size
        if left[0]:
            why = "written to within a day" if self._options.unknown else "another store's? --unknown removes them"
            self.plan.notes.append(f"{left[0]} folders ({left[1]:,} bytes) of no trial of this store stay: {why}")
        if self._elsewhere:
            what = f"{len(self._elsewhere)} weights stay: their trials recorded them at another path"
            self.plan.notes.append(f"{what} ({self._elsewhere[0]})")
        self.plan.items.sort(key=lambda item: (item.key, item.path.name))
        return self.plan


def _folders(root: Path, notes: list[str]) -> Iterator[Path]:
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
    """What is in a folder, by name; a link is left alone."""
    try:
        with os.scandir(folder) as entries:
            found = sorted((Path(entry.path), entry.is_symlink()) for entry in entries)
    except OSError as error:
        notes.append(f"{folder} cannot be read: {error.strerror}")
        return
    for path, link in found:
        if link:
            notes.append(f"{path} is a link: it and what it leads to stay")
        else:
            yield path


def _size_and_time(path: Path) -> tuple[int, float]:
    """Bytes of a file or of all files in a folder, and when the newest was written; what vanishes meanwhile counts
    nothing."""
    size, written = 0, 0.0
    for each in [path, *path.rglob("*")] if path.is_dir() else [path]:
        try:
            stat = each.lstat()
        except FileNotFoundError:
            continue
        size += 0 if each.is_dir() else stat.st_size
        written = max(written, stat.st_mtime)
    return size, written


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False
