"""Loads the model of a trial as it was trained: module, transform of images, names of classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from orchestrator.errors import BadInput, NotFound
from orchestrator.launch.job_plugins import use_recorded
from orchestrator.records.rows import TrialRow
from orchestrator.records.states import TrialState
from orchestrator.records.trial_files import stored_file, trial_folder
from tasks.errors import DataError
from workers.checkpoint import AVERAGED, load_weights
from workers.errors import TrialError
from workers.messages import Weights
from workers.trial import TrialSpec

if TYPE_CHECKING:
    import torch
    from torch import nn

    from orchestrator.settings import Settings
    from orchestrator.store.store import Store


@dataclass(frozen=True)
class TrainedModel:
    """A trial's model. What it is made of is on the CPU."""

    module: nn.Module
    """In eval mode, with the weights that the trial ended with: the averaged ones where it was chosen by them."""
    transform: Callable[[Any], torch.Tensor] | None
    """Makes a PIL image, in RGB, the module's input (3, height, width), as in the trial's evaluation; None where the
    task's samples are more than one image."""
    class_names: tuple[str, ...]
    """By number; empty where the classes have no names, or the data that name them are not on this machine."""
    spec: TrialSpec = field(repr=False)
    row: TrialRow = field(repr=False)
    file: Weights
    """The weights file, whose digest was checked."""


def recorded_weights(row: TrialRow, storage: Path) -> Weights:
    """The file of a trial's weights: the averaged ones of a trial that was chosen by them (`optim.ema.choose`), else
    those that it handed on. Raises NotFound where they are not kept."""
    name = f"trial {row.key[:12]}"
    if row.weights is None:
        remedy = "to keep them: python -m orchestrator pin " + row.key[:12] + ", then submit its job again"
        why = "has no weights yet" if row.state is not TrialState.done else "did not keep its weights"
        raise NotFound(f"{name} is {row.state} and {why}; {remedy}")
    path, sha256 = stored_file(storage, row.weights[0]), row.weights[1]
    ema = (row.spec.get("optim") or {}).get("ema") or {}
    if not ema.get("choose") or ema.get("hand_on"):
        return Weights(str(path), sha256)
    averaged = row.facts.get("averaged_weights")
    if not averaged:
        raise NotFound(
            f"{name} was chosen by its averaged weights, which it did not keep (an earlier version ran it): submit it "
            "with optim.ema.hand_on true, which keeps them as its weights"
        )
    return Weights(str(trial_folder(storage, row.key) / AVERAGED), averaged)


def spec_of(row: TrialRow) -> TrialSpec:
    """The trial's spec. Raises BadInput where this version does not take what an earlier one recorded, NotFound where
    a plugin of it cannot be had."""
    use_recorded(row.spec, f"trial {row.key[:12]}")
    try:
        return TrialSpec.model_validate(row.spec)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BadInput(
            f"trial {row.key[:12]}: {where}: {first['msg']}; this version refuses what an earlier one recorded: "
            "install the versions that `describe` lists"
        ) from error


def load_model(store: Store, where: Settings, key: str) -> TrainedModel:
    """The model of a trial, by its key. Raises NotFound where its weights are not kept or not there, BadInput where
    they are damaged or this version cannot build the model."""
    row = store.trials.get(key)
    file, spec = recorded_weights(row, where.storage), spec_of(row)
    try:
        tensors = load_weights(file)
        module = spec.task.build(spec.backbone, None)
        module.load_state_dict(tensors)
    except TrialError as error:
        missing = not Path(file.path).exists()
        raise (NotFound if missing else BadInput)(f"trial {key[:12]}: {error.message}") from error
    except (RuntimeError, ValueError) as error:
        raise BadInput(f"trial {key[:12]}: its weights do not fit its model in this version: {error}") from error
    module.eval()
    try:
        names = spec.task.class_names(where.data_root)
    except DataError:
        names = ()
    return TrainedModel(module, spec.task.image_transform(spec.backbone), names, spec, row, file)
