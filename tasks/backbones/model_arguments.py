"""Says which arguments a timm model takes, by the signature of its class, and which image size it was made for."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Iterable
from functools import cache
from typing import Any

from tasks.spelling import nearest


@cache
def arguments(model: str) -> frozenset[str]:
    """Names of the arguments that a model's class takes: its own, those that it passes on to the class it derives from,
    and those of the configuration that it keeps them in (ByobNet, RegNet). What a builder uses up before is not listed.

    The class is known only once a model is built, so one is, without memory; torch's random numbers stay as they are.
    Takes up to a second, once for each model.
    """
    import timm
    import torch

    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        built = timm.create_model(model)
    names: set[str] = set()
    for kind in type(built).__mro__:
        initializer = kind.__dict__.get("__init__")
        if initializer is None:
            continue
        parameters = inspect.signature(initializer).parameters.values()
        passes_on = any(each.kind is each.VAR_KEYWORD for each in parameters)
        names |= {each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)}
        if not passes_on:
            break
        names |= _of_configurations(initializer)
    return frozenset(names - {"self"})


def _of_configurations(initializer: Any) -> set[str]:
    """Fields of the dataclasses that an initializer takes, into which it puts arguments that it does not name."""
    names: set[str] = set()
    for hint in typing.get_type_hints(initializer).values():
        for kind in (hint, *typing.get_args(hint)):
            if isinstance(kind, type) and dataclasses.is_dataclass(kind):
                names |= {field.name for field in dataclasses.fields(kind)}
    return names


def nearest_arguments(model: str, given: Iterable[str]) -> str:
    """For arguments that a model's class does not have, those that are spelt most like them, in words; else empty."""
    known = arguments(model)
    found = {name: nearest(name, sorted(known)) for name in given if name not in known}
    near = [f"{name} (nearest: {', '.join(names)})" for name, names in found.items() if names]
    return f"; not among its arguments: {', '.join(near)}" if near else ""


def usual_image_size(model: str) -> int:
    """Side in pixels of the input for which timm made this model. Raises ValueError where it does not say so."""
    import timm

    import tasks.backbones.replknet  # noqa: F401 (makes it known to timm)

    size = timm.get_pretrained_cfg_value(model, "input_size")
    if not size:
        raise ValueError(f"the model {model} was registered with timm without an input_size: write backbone.image_size")
    return int(size[-1])
