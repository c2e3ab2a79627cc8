"""Keeps a moving average of a model's weights, and puts it into the model for an evaluation."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from workers import distributed
from workers.optim_spec import EmaSpec


class Average:
    """The average of everything in a model's state dict: floating-point numbers are averaged, whole ones copied.

    Source: timm.utils.ModelEmaV3, whose numbers it has. Shards are averaged as shards.
    """

    def __init__(self, model: nn.Module, spec: EmaSpec) -> None:
        """`model`: on its device, in shards if it will be."""
        self._model, self._spec = model, spec
        named = {name for name, _ in itertools.chain(model.named_parameters(), model.named_buffers())}
        values = model.state_dict().items()
        self._tensors = {name: value.detach().clone() for name, value in values if name in named}
        """Of tied weights one name, the same on every rank."""
        self.in_model = False
        """True while the model has the averaged weights, and this object those that train."""

    def _values(self) -> dict[str, Tensor]:
        """The model's own tensors, in the order of the averaged ones."""
        values = self._model.state_dict()
        return {name: values[name] for name in self._tensors}

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Moves the average. `updates`: optimizer steps so far, the last one included."""
        averages, values = [], []
        for name, value in self._values().items():
            own = self._tensors[name]
            if value.is_floating_point():
                averages.append(distributed.local(own))
                values.append(distributed.local(value))
            else:
                own.copy_(value)
        torch._foreach_lerp_(averages, values, weight=1 - self._spec.decay_at(updates))

    @contextmanager
    def used(self) -> Iterator[None]:
        """The model has the averaged weights inside, and afterwards its own again, to the bit."""
        self._exchange()
        try:
            yield
        finally:
            self.take_out()

    def take_out(self) -> None:
        """Gives the model its own weights back, if it has the averaged ones."""
        if self.in_model:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, value in self._values().items():
            own = distributed.local(self._tensors[name])
            there = distributed.local(value)
            before = there.clone()
            there.copy_(own)
            own.copy_(before)
        self.in_model = not self.in_model

    def whole(self, keep: bool) -> dict[str, Tensor]:
        """The whole average, on ranks with `keep`; every rank must call where the model is in shards."""
        return distributed.whole_tensors(self._tensors, keep)

    @torch.no_grad()
    def load(self, whole: Mapping[str, Tensor] | None) -> None:
        """Takes over what `whole` returned. Raises ValueError when that is nothing, or of another model."""
        if whole is None or whole.keys() != self._tensors.keys():
            raise ValueError("the state to continue from has no average of these weights: optim.ema was another then")
        for name, own in self._tensors.items():
            distributed.local(own).copy_(distributed.local(distributed.like(whole[name], own)))
