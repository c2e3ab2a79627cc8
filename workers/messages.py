"""The messages between driver and workers: assignments, reports, outcomes, failures."""

from __future__ import annotations

import errno
import pickle
import traceback
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tasks.errors import DataError, PluginError
from workers.errors import ErrorClass, TrialError
from workers.plugin_code import PluginCode
from workers.plugins import use
from workers.trial import TrialSpec


@dataclass(frozen=True)
class Weights:
    """Weights in a file (safetensors), with the SHA-256 that is checked before they are loaded."""

    path: str
    sha256: str


@dataclass(frozen=True)
class Assignment:
    """A trial that a node is to run, and everything about the run that is not part of the trial.

    The trial travels as bytes of its own, which the first look at `trial` reads, after the plugins are imported: where
    its classes cannot be imported, that is an error of the trial and not of the process that received it.
    """

    trial: TrialSpec
    name: str
    """Shown in the Ray dashboard, MLflow and logs: stage/group/setting#key."""
    token: int
    """Fencing token of this attempt: it returns with every event, and the store refuses a stale one."""
    folder: str
    """The trial's own folder on storage that every node can read: checkpoints, weights, log."""
    data_root: str
    parents: dict[str, Weights] = field(default_factory=dict)
    cpus: float = 1.0
    gpus: float = 0.0
    workers: int = 1
    keep_weights: bool = False
    time_limit_s: float | None = None
    plugins: tuple[PluginCode, ...] = ()
    """Of the trial, in its order."""

    @property
    def key(self) -> str:
        """That of the trial, which is not read for it."""
        packed: tuple[str, bytes] | None = self.__dict__.get("_packed")
        return packed[0] if packed else self.trial.key

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        trial = state.pop("trial", None)
        if "_packed" not in state:
            state["_packed"] = (trial.key, pickle.dumps(trial))
        return state

    def __getattr__(self, name: str) -> Any:
        """`trial`, of an assignment that has travelled. Raises PluginError; TrialError (code) where this node lacks the
        classes of the trial."""
        if name != "trial" or "_packed" not in self.__dict__:
            raise AttributeError(name)
        use(self.plugins)
        try:
            trial: TrialSpec = pickle.loads(self.__dict__["_packed"][1])
        except (ImportError, AttributeError) as error:
            what = f"the trial's classes cannot be imported on its node: {type(error).__name__}: {error}"
            raise TrialError(ErrorClass.code, f"{what}; the nodes need the driver's code and packages") from error
        self.__dict__["trial"] = trial
        return trial


@dataclass(frozen=True)
class Report:
    """Values after a round: terms of the loss (`train_` prefix), learning rate, figures of the evaluation; and how fast
    it went (`system_` prefix: the only values that differ when the same trial runs again)."""

    epoch: int
    """Number of the round, from 1 (see `TrialSpec.rounds`): the epoch, where the trial's length is in epochs."""
    step: int
    """Optimizer steps so far."""
    values: dict[str, float]
    seconds: float
    """Wall time of this round, training and evaluation."""
    pictures: tuple[str, ...] = ()
    """Files made after this round, relative to the trial's folder."""

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Report:
        """From its `dataclasses.asdict`, which may have been JSON in between."""
        return cls(**{**plain, "pictures": tuple(plain["pictures"])})


@dataclass(frozen=True)
class Outcome:
    """The result of a trial that ran to its end."""

    figures: dict[str, float]
    """After the last round. No round is chosen: the final trial could not do so without looking at test."""
    facts: dict[str, Any]
    """How it was run: device, precision, micro_batch, steps, train_images, train_seconds, step_seconds (median of
    the run, data included), images_per_second (both None where nothing was trained), resumed_at, notes, caveats (why
    its figures cannot be compared with published ones), data_digest, unreadable_images (those replaced), image_cache,
    versions, host, threads, parameters; shares (figures that are shares of samples -> how many), if there are any;
    submission (the path of a file of predictions), where labels are not public and there are no figures."""
    weights: Weights | None = None
    """None if they were not kept. Of a trial whose span ends early, the same folder holds its whole state."""
    measurements: str | None = None
    """File in the trial's folder, by its name there, with the values per item, layer and head of the last evaluation:
    a JSON object a line, {figure, split, item, layer, head, value}. `value` is null where it is not finite."""
    measurements_sha256: str | None = None


@dataclass(frozen=True)
class Failure:
    """A trial that ended without figures."""

    error_class: ErrorClass
    message: str
    """First line: what happened; the rest, if any, a traceback."""


@dataclass(frozen=True)
class StoppedAtCheckpoint:
    """A trial that was asked to stop and wrote a checkpoint."""


Event = Report | Outcome | Failure | StoppedAtCheckpoint


class Acknowledgement(NamedTuple):
    """So many events of an attempt, from its first on, are recorded."""

    key: str
    token: int
    events: int


@dataclass(frozen=True)
class TrialUpdate:
    """An actor's answer about its trial: the events not acknowledged so far, oldest first."""

    key: str
    name: str
    token: int
    events: tuple[Event, ...]
    heard: int
    """Number of events before these."""
    ended: bool
    owner: str = ""
    """Id of the driver to which the actor belongs: the one that created it, or the one that took it over."""

    @property
    def acknowledgement(self) -> Acknowledgement:
        """Lets the actor drop these events, too."""
        return Acknowledgement(self.key, self.token, self.heard + len(self.events))


def classify_error(error: BaseException) -> Failure:
    """The failure that an exception amounts to, with its error class."""
    if isinstance(error, TrialError):
        return Failure(error.error_class, error.message)
    first = f"{type(error).__name__}: {error}".splitlines()[0]
    if _storage_is_full(error):
        return Failure(ErrorClass.storage, first)
    if isinstance(error, DataError):
        return Failure(ErrorClass.data, str(error))
    if isinstance(error, PluginError):
        return Failure(ErrorClass.code, str(error))
    if isinstance(error, MemoryError):
        return Failure(ErrorClass.out_of_memory, first)
    if _from_another_worker(error):
        return Failure(ErrorClass.node_lost, f"another worker of the trial is gone: {first}")
    text = "".join(traceback.format_exception(error))
    return Failure(ErrorClass.code, f"{first}\n{text}")


def _storage_is_full(error: BaseException | None) -> bool:
    """True if a write failed that would fail for every other trial too; torch hides such an error behind others."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def _from_another_worker(error: BaseException) -> bool:
    """True if the network to the trial's other workers failed, as it does when one of their processes dies."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return "DistError" in names or (isinstance(error, RuntimeError) and "gloo/transport" in str(error))
