"""Reads and writes the files of a trial (checkpoints, weights, outcome) so that a kill at any moment loses none."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from tasks.metrics import Measurement
from workers.errors import ErrorClass, TrialError
from workers.fault_injection import fault_point
from workers.messages import Outcome, Report, Weights

if TYPE_CHECKING:  # imported where it is used: `clear` is also called by processes without torch
    import numpy as np
    import torch
    from numpy.typing import NDArray

FORMAT = 2
"""Version of checkpoints and outcome.json: raise it when their content changes."""
STATE = "state-*.pt"
EVALUATED = "evaluation-*.jsonl"
MEASUREMENTS = "measurements.jsonl"
WEIGHTS = "weights.safetensors"
AVERAGED = "averaged.safetensors"
"""Averaged weights, beside the weights that are handed on, of a trial that is chosen by them (`optim.ema.choose`)."""
KEPT = 2
"""Checkpoints kept: the newest, and the one before it in case the newest is damaged."""


@dataclass(frozen=True)
class Folder:
    """A trial's folder as one attempt sees it.

    `checkpoint-<step>-<SHA-256>.pt`: tensors and plain values (no pickled code); the digest of the content is part of
    the name, so one rename commits both. `weights.safetensors`: final weights. `state-<SHA-256>.pt`: the final state of
    a trial whose span ends early, for the trial that continues from it. `pictures/<name>-<round>.png`.
    `measurements.jsonl`: values per item, layer and head. `evaluation-<token>-<rank>.jsonl`: finished items of an
    evaluation under way, and pieces of others (see workers.finished_items).
    `outcome.json`: outcome and reports, until the driver has recorded them (`clear`). `token`: the attempt that owns
    the folder. Every write goes to a temporary file, is flushed to the disk, and is then renamed.
    """

    path: Path
    key: str
    """Key of the trial; a folder of another trial is refused."""
    token: int
    """Fencing token of the attempt: larger ones are newer."""

    def claim(self) -> None:
        """Makes this attempt the owner: older ones can no longer write. Raises TrialError when a newer one owns it."""
        _write(self.path / "token", lambda file: file.write(str(self.token).encode()), self._check_owner)
        for left_over in (*self.path.glob("*.tmp"), *self.path.glob("pictures/*.tmp")):
            left_over.unlink(missing_ok=True)

    def save(self, state: Mapping[str, Any], step: int) -> str:
        """Writes a checkpoint of everything after `step` optimizer steps and removes all but the last two. Returns its
        SHA-256.

        `state` holds tensors, numbers, strings, and lists, tuples and dictionaries of them.
        Raises TrialError: data when the storage refuses, node_lost when a newer attempt owns the folder.
        """
        import torch

        content = {"format": FORMAT, "key": self.key, **state}

        def commit() -> None:
            self._check_owner()
            fault_point("before_checkpoint_commit", f"{self.key} {step}")

        name = f"checkpoint-{step:09d}-{{sha256}}.pt"
        digest = _write(self.path / name, lambda file: torch.save(content, file), commit)
        fault_point("after_checkpoint_commit", f"{self.key} {step}")
        for old in self._checkpoints()[KEPT:]:
            old.unlink(missing_ok=True)
        return digest

    def newest(self) -> tuple[Path | None, list[str]]:
        """The newest checkpoint whose content matches its digest, if any; and a line for each damaged one."""
        notes: list[str] = []
        for path in self._checkpoints():
            if _digest_of(path) == digest_in_name(path):
                return path, notes
            size = path.stat().st_size
            notes.append(f"{path.name[:20]} is damaged ({size} bytes): an older state was used")
            path.replace(path.with_name(f"damaged-{path.name}"))
        return None, notes

    def load(self, path: Path) -> dict[str, Any]:
        """The state in a checkpoint, tensors on the CPU; runs no code in it. Raises ValueError for another trial's."""
        import torch

        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if (state["format"], state["key"]) != (FORMAT, self.key):
            raise ValueError(f"{path} has format {state['format']} and belongs to trial {state['key'][:8]}: remove it")
        return state

    def save_weights(
        self, state: Mapping[str, torch.Tensor], metadata: dict[str, str] | None = None, name: str = WEIGHTS
    ) -> Weights:
        """Writes the final weights and their metadata (safetensors). Raises as `save`."""
        from safetensors.torch import save

        # clones, because safetensors refuses parameters that share memory (tied weights)
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
        path = self.path / name
        digest = _write(path, lambda file: file.write(save(tensors, metadata)), self._check_owner)
        return Weights(str(path), digest)

    def keep_state(self, state: Mapping[str, Any]) -> None:
        """Writes the final state, as in a checkpoint but to stay (see `load_state`). Raises as `save`."""
        import torch

        content = {"format": FORMAT, "key": self.key, **state}
        digest = _write(self.path / "state-{sha256}.pt", lambda file: torch.save(content, file), self._check_owner)
        for path in self.path.glob(STATE):
            if digest not in path.name:
                path.unlink(missing_ok=True)

    def save_picture(self, name: str, epoch: int, pixels: NDArray[np.uint8]) -> str:
        """Writes a picture (height, width, 3) as PNG; returns its path below this folder. Raises as `save`."""
        from PIL import Image

        _check_name("picture", name)
        encoded = io.BytesIO()
        Image.fromarray(pixels).save(encoded, "PNG")
        path = self.path / "pictures" / f"{name}-{epoch:04d}.png"
        _write(path, lambda file: file.write(encoded.getvalue()), self._check_owner)
        return str(path.relative_to(self.path))

    def save_measurements(self, rows: Iterable[Measurement], split: str) -> tuple[str, str] | None:
        """Writes values per item, layer and head as `Outcome.measurements` says; the file's name and SHA-256. None, and
        no file, when there are no rows. Raises as `save`."""
        path, left = self.path / MEASUREMENTS, iter(rows)
        first = next(left, None)
        if first is None:
            path.unlink(missing_ok=True)
            return None

        def fill(file: Any) -> None:
            for row in itertools.chain([first], left):
                value = float(row.value)
                plain = {
                    "figure": row.figure, "split": split, "item": row.item, "layer": row.layer, "head": row.head,
                    "value": value if math.isfinite(value) else None,
                }  # fmt: skip
                file.write(json.dumps(plain, allow_nan=False).encode() + b"\n")

        return MEASUREMENTS, _write(path, fill, self._check_owner)

    def save_submission(self, name: str, content: bytes) -> str:
        """Writes a file of predictions for data without public labels; its path. Raises as `save`."""
        _check_name("submission", name)
        _write(self.path / name, lambda file: file.write(content), self._check_owner)
        return str(self.path / name)

    def finish(self, outcome: Outcome, reports: list[Report]) -> None:
        """Writes the outcome, then removes the checkpoints: until `clear`, a new attempt returns it at once."""
        content = {"outcome": asdict(outcome), "reports": [asdict(report) for report in reports]}
        # Python's JSON, in which NaN and Infinity come back as themselves
        text = json.dumps({"format": FORMAT, "key": self.key, **content}).encode()
        _write(self.path / "outcome.json", lambda file: file.write(text), self._check_owner)
        for path in (*self._checkpoints(), *self.path.glob("damaged-*")):
            path.unlink(missing_ok=True)

    def finished(self, with_weights: bool, with_state: bool = False) -> tuple[Outcome, list[Report]] | None:
        """The outcome and reports of an earlier attempt that are not recorded yet. None when there are none, or when
        its weights, state or measurements are gone or damaged."""
        try:
            content = json.loads((self.path / "outcome.json").read_text())
        except FileNotFoundError:
            return None
        if (content["format"], content["key"]) != (FORMAT, self.key):
            return None
        outcome = content["outcome"]
        weights = None
        if outcome["weights"]:  # where they lie now: the folder may have moved since
            weights = Weights(str(self.path / Path(outcome["weights"]["path"]).name), outcome["weights"]["sha256"])
        if with_weights and (weights is None or _digest_of(Path(weights.path)) != weights.sha256):
            return None
        measurements = outcome.get("measurements")
        if measurements and _digest_of(self.path / measurements) != outcome["measurements_sha256"]:
            return None
        if with_state and not any(True for _ in self.path.glob(STATE)):
            return None
        reports = [Report.from_plain(report) for report in content["reports"]]
        return Outcome(**{**outcome, "weights": weights}), reports

    def _checkpoints(self) -> list[Path]:
        """Newest first."""
        return sorted(self.path.glob("checkpoint-*.pt"), key=lambda path: path.name[:20], reverse=True)

    def _check_owner(self) -> None:
        try:
            owner = int((self.path / "token").read_text())
        except FileNotFoundError:
            return
        if owner > self.token:
            raise TrialError(
                ErrorClass.node_lost, f"attempt {self.token} was given up: attempt {owner} owns {self.path} now"
            )


def clear(folder: Path) -> None:
    """Removes what a recorded trial no longer needs: checkpoints, outcome, and finished items of an evaluation. Keeps
    weights, state, measurements, pictures, log and token."""
    for pattern in ("outcome.json", "checkpoint-*.pt", EVALUATED, "damaged-*", "*.tmp", "pictures/*.tmp"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


def load_weights(weights: Weights) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, on the CPU.

    Raises TrialError (data) when the file is absent, has another SHA-256, or is cut short (then it may still have the
    digest, if that was taken of it).
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(weights.path)
    digest = _digest_of(path)
    problem = None
    if digest is None:
        problem = f"there is no file {path}; `gc --lost`, then `retry`: the trial that makes it runs again"
    elif digest != weights.sha256:
        problem = f"{path} has SHA-256 {digest}, not {weights.sha256}: another or a damaged file"
    elif path.suffix != ".safetensors":
        problem = f"{path} is not a .safetensors file; convert it once"
    if problem:
        raise TrialError(ErrorClass.data, f"initial weights: {problem}")
    try:
        return load_file(path)
    except SafetensorError as error:
        problem = f"{path} is damaged or cut short ({error}); make or fetch it again"
        raise TrialError(ErrorClass.data, f"initial weights: {problem}") from error


def load_state(weights: Weights, key: str) -> dict[str, Any]:
    """The final state of trial `key`, from the folder of its weights; tensors on the CPU, runs no code in it.

    Raises TrialError (data) when there is none, or none with the SHA-256 in its name.
    """
    import torch

    folder = Path(weights.path).parent
    for path in folder.glob(STATE):
        digest = _digest_of(path)
        if digest != digest_in_name(path):
            raise TrialError(ErrorClass.data, f"{path} has SHA-256 {digest}: damaged; trial {key[:8]} must run again")
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if (state["format"], state["key"]) == (FORMAT, key):
            return state
    raise TrialError(
        ErrorClass.data, f"trial {key[:8]} has no state-*.pt in {folder} to continue from; it must run again"
    )


class _Hashed:
    """A file that is written from begin to end; has its SHA-256 so far, and the error that ended it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            self._file.write(data)
        except OSError as error:  # torch's zip writer replaces it by a RuntimeError without the reason
            self.error = error
            raise
        self._sha256.update(data)
        return memoryview(data).nbytes

    def flush(self) -> None:
        self._file.flush()

    def sync(self) -> str:
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._sha256.hexdigest()


def _check_name(what: str, name: str) -> None:
    """Raises ValueError for a name that could lead out of the trial's folder."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name) or name.startswith("."):
        raise ValueError(f"{what} {name!r}: the task must name it with letters, digits and _.- only")


def _write(path: Path, fill: Callable[[Any], object], commit: Callable[[], None]) -> str:
    """Writes a file whole or not at all and returns its SHA-256, which replaces `{sha256}` in the name.

    `commit` runs just before the rename and may raise. Raises TrialError (data) when the storage refuses.
    """
    temporary = path.with_name(f"{path.name.split('-')[0]}-{secrets.token_hex(6)}.tmp")
    hashed: _Hashed | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                hashed = _Hashed(file)
                fill(hashed)
                digest = hashed.sync()
            commit()
            temporary.replace(path.with_name(path.name.replace("{sha256}", digest)))
            _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, RuntimeError) as error:
        reason = error if isinstance(error, OSError) else hashed.error if hashed else None
        if reason is None:
            raise
        raise storage_refused(path, reason) from error
    return digest


def _sync_folder(folder: Path) -> None:
    """Flushes the folder's entries to the disk, so that a rename survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def storage_refused(path: Path, reason: OSError) -> TrialError:
    """The error for a file that could not be written."""
    name = path.name.split("-")[0]
    existing = next(parent for parent in path.parents if parent.exists())
    free = shutil.disk_usage(existing).free / 2**20
    return TrialError(
        ErrorClass.data,
        f"cannot write {name} in {path.parent}: {reason.strerror} ({free:,.0f} MiB free); nothing was half-written. "
        "Make room or permit writing, then `retry`",
    )


def digest_in_name(path: Path) -> str:
    """The SHA-256 that the name of a checkpoint ends with."""
    return path.stem.rsplit("-", 1)[1]


def _digest_of(path: Path) -> str | None:
    """SHA-256 (hex) of a file; None when it does not exist."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
