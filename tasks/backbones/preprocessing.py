"""Compares how a task prepares images with how those were prepared that its weights were trained on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.errors import DataError

if TYPE_CHECKING:
    from tasks.backbones.spec import FromStage, Init

Channels = tuple[float, float, float]
"""A number for red, green and blue."""


@dataclass(frozen=True)
class Preprocessing:
    """How images become input of a model."""

    mean: Channels
    std: Channels
    """Pixels, from 0 to 1, are reduced by `mean` and divided by `std`."""
    interpolation: str
    """Of resizing: bicubic or bilinear."""
    eval_crop: float
    """Evaluation resizes the shorter side to image size / eval_crop, and takes the centre."""

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return {"mean": list(self.mean), "std": list(self.std), "interpolation": self.interpolation}


def published(init: Init) -> Preprocessing | None:
    """What timm states for the tag that these weights have; None for weights of any other origin, and for a tag that
    this version of timm does not know. Imports timm, which takes seconds."""
    if init.kind != "timm":
        return None
    import timm

    try:
        config = timm.get_pretrained_cfg(init.tag)
    except RuntimeError:  # the tag; loading the weights will say so
        return None
    if config is None or config.mean is None or config.std is None:
        return None
    mean, std = (tuple(map(float, values)) for values in (config.mean, config.std))
    if len(mean) != 3 or len(std) != 3:
        return None
    return Preprocessing(mean, std, str(config.interpolation), float(config.crop_pct or 1))


def required(init: Init) -> Preprocessing:
    """`published`, for a task that asked for it. Raises DataError where nothing is stated."""
    stated = published(init)
    if stated is None:
        raise DataError(f"task.preprocessing weights: timm states none for weights {init.name}; set it to stated")
    return stated


def differences(init: Init, own: Preprocessing | None) -> list[str]:
    """A line if images are prepared otherwise than those that the weights were trained on, with what differs; empty if
    nothing does, or nothing is stated.

    `own`: how the task prepares them; None for a task on something else.
    """
    stated = published(init) if own is not None else None
    if own is None or stated is None:
        return []
    pairs = (
        *_colours(stated, own),
        ("interpolation", stated.interpolation, own.interpolation),
        ("evaluation crop", f"{stated.eval_crop:g}", f"{round(own.eval_crop, 4):g}"),
    )
    return _line(init, "by timm's word for the tag", pairs)


def differences_of_stage(
    init: FromStage, trained: Sequence[Preprocessing | None], own: Preprocessing | None
) -> list[str]:
    """Likewise for weights of an earlier stage, of whose tasks `trained` says how they prepare images: a line if every
    one of them, and all say it, reduces and divides pixels by other numbers than `own`. Resizing may differ."""
    known = [each for each in trained if each is not None]
    if own is None or not known or len(known) < len(trained):
        return []
    if any((each.mean, each.std) == (own.mean, own.std) for each in known):
        return []
    return _line(init, f"by stage {init.stage}", _colours(known[0], own))


def _colours(theirs: Preprocessing, ours: Preprocessing) -> tuple[tuple[str, str, str], ...]:
    """(what, theirs, ours) of the numbers that pixels are reduced and divided by."""
    return (
        ("mean", _numbers(theirs.mean), _numbers(ours.mean)),
        ("standard deviation", _numbers(theirs.std), _numbers(ours.std)),
    )


def _line(init: Init, by: str, pairs: Iterable[tuple[str, str, str]]) -> list[str]:
    unlike = [f"{what} {theirs} (here {ours})" for what, theirs, ours in pairs if theirs != ours]
    if not unlike:
        return []
    return [f"weights {init.name}: trained with other preprocessing, {by}: {', '.join(unlike)}"]


def _numbers(values: Channels) -> str:
    return f"{values[0]:g}" if len(set(values)) == 1 else " ".join(f"{value:.4g}" for value in values)
