"""Draws drop path and dropout for the whole global batch, so that a sample is dropped alike wherever it is trained."""

from __future__ import annotations

import ctypes
import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

WORDS = 2**32
"""Random words are integers from 0 to this number less one."""
_MARKS = 2**62
CALLS = 2
"""Of a layer in a pass, at most, in most models."""
Rate = tuple[float, bool]
"""Probability to drop, and whether what is kept is scaled by the other."""


class Draws:
    """Random words of one training step: for every call of a layer that drops, one word for each sample.

    They are drawn for the global batch on the CPU, from the step's seed alone, and each rank and micro-batch takes
    those of its own samples. So neither the number of workers nor the micro-batch nor the device changes a draw. The
    n-th call of a pass takes the n-th row of words; the pass over every micro-batch makes the same calls.

    A call knows its number by a mark that it draws from torch's global generator on the CPU: activation checkpointing
    restores that generator before it computes a layer again, so the layer finds its mark and drops the same samples. A
    graph of torch.compile cannot read the generator. For a block that is compiled by itself, the mark is drawn before
    the graph begins, and the graph counts its calls from there (`block`). A model that is compiled as a whole counts
    all of its calls (`counts_calls`).
    """

    def __init__(self, batch: int, positions: Tensor, device: torch.device, counts_calls: bool) -> None:
        """`positions`: (share,), where this rank's samples lie in the global batch of `batch` samples."""
        self._batch, self._positions, self.device, self._counts = batch, positions, device, counts_calls
        self.rows = 0
        """Calls of a pass for which words are drawn at its beginning; more are drawn when they are needed."""
        self._generator = torch.Generator()
        self._all = torch.empty(0, batch, dtype=torch.int64)
        self._own = slice(0, 0)
        self._marks: dict[int, int] = {}
        self.active = False
        """True during a pass: only then do layers take their draws from here."""
        self.words = self._all
        """(calls, samples): of this micro-batch, on the device."""
        self.calls = 0
        """Calls so far in this pass."""
        self.in_block = False
        """True inside of a block that is compiled by itself."""
        self.block_words = self._all
        """(calls, samples): of that block, from its first call on."""
        self.block_calls = 0
        """Calls so far of that block."""
        self._rates: dict[int, Rate] = {}
        """Of the layers of whole samples that made these calls in the last passes."""
        self._bounds: tuple[Tensor, Tensor] | None = None
        """(calls, 1) each, of the rates: threshold, divisor. None: not made yet."""
        self._factors: tuple[Tensor, ...] = ()
        """Of this micro-batch, on the device: (samples,) of every call, with the rate that it had before."""

    def begin_step(self, seed: int) -> None:
        """`seed`: of this optimizer step, 64 bits, the same on every rank."""
        self._generator.manual_seed(seed)
        self._all = self._all[:0]

    @contextmanager
    def samples(self, own: slice) -> Iterator[None]:
        """A forward and backward pass over these samples of this rank's share."""
        self._marks, self._own, self.calls, self.active = {}, own, 0, True
        self._factors = ()
        own_words = self._take(self.rows) if self.rows else self._all
        if self._rates and not self._counts:
            self._factors = self._factors_of(own_words)
        try:
            yield
        finally:
            self.active = False
            self.rows = max(self.rows, self.calls)

    def word_of_each(self, rows: int) -> Tensor:
        """(rows,) random words for the input of a layer whose first axis is the samples, with the same number of
        consecutive rows (windows, say) for each. Raises ValueError for any other number of rows."""
        if self.in_block:
            words = self.block_words[self.block_calls]
            self.block_calls += 1
        else:
            call = self._call()
            words = self.words[call]
        return self._of_rows(words, rows)

    def factor_of_each(self, x: Tensor, drop: float, scale: bool) -> Tensor:
        """(rows,) in the type of x: 0 where the word of a row drops it, else 1 (with `scale` over the probability to be
        kept).

        A model makes the same calls in every pass. So the factors of all of them are made at once on the CPU, and go to
        the device in one copy: of small operations a GPU's host is the limit. They have the bits that each call would
        give by itself, which is what happens where a rate is new.
        """
        if torch.compiler.is_compiling():
            return _kept(self.word_of_each(len(x)), drop, x, scale)
        call, rate = self._call(), (drop, scale)
        if self._rates.get(call) != rate:
            self._rates[call], self._bounds = rate, None
            if call < len(self._factors):  # of another rate
                self._factors = self._factors[:call]
        if call < len(self._factors) and len(x) == len(self._factors[call]) and x.dtype != torch.float64:
            return self._factors[call].to(x.dtype)
        return _kept(self._of_rows(self.words[call], len(x)), drop, x, scale)

    def _factors_of(self, own: Tensor) -> tuple[Tensor, ...]:
        """`own`: (calls, samples) words. To the first call of which no rate is known."""
        if self._bounds is None:
            known = next(call for call in itertools.count() if call not in self._rates)
            rates = [self._rates[call] for call in range(known)]
            thresholds = torch.tensor([_threshold(drop) for drop, _ in rates], dtype=torch.int64)
            self._bounds = thresholds[:, None], torch.tensor([_divisor(*rate) for rate in rates])[:, None]
        thresholds, divisors = self._bounds
        return self._on_device((own[: len(thresholds)] >= thresholds).float() / divisors).unbind()

    def _call(self) -> int:
        """The number of the call that is under way, for which there are words then."""
        mark = self._marked_call if torch.compiler.is_compiling() else self._mark
        call = self.calls if self._counts else mark()
        if call >= len(self.words):
            self._take(2 * call + 8)
        self.calls = max(self.calls, call + 1)
        return call

    def _of_rows(self, words: Tensor, rows: int) -> Tensor:
        """(samples,) -> (rows,), see `word_of_each`."""
        if rows == len(words):
            return words
        if rows % len(words):
            raise ValueError(
                f"a layer that drops got {rows} rows for {len(words)} samples: the first axis must be the samples, so "
                "that each has draws of its own whatever the number of workers and the micro-batch"
            )
        return words_of_elements(words, rows // len(words)).flatten()

    @contextmanager
    def block(self, most: int) -> Iterator[None]:
        """A call of a block whose layers drop at most so many times, and which is compiled by itself.

        In every call the graph finds as many words, and counts from 0: so blocks of one kind can share it.
        """
        if not self.active:
            yield
            return
        first = self._mark()
        if first + most > len(self.words):
            self._take(2 * first + most)
        self.rows = max(self.rows, first + most)
        self.in_block, self.block_calls, self.block_words = True, 0, self.words[first : first + most]
        try:
            yield
        finally:
            self.in_block = False
            self.calls = max(self.calls, first + self.block_calls)

    def check_backward(self, backward: Callable[[], object]) -> None:
        """Runs the backward pass. Raises RuntimeError when layers of a compiled model were called again in it."""
        calls = self.calls
        backward()
        if self.calls != calls:
            raise RuntimeError(
                "the compiled model computes layers that drop again in the backward pass, with other draws: set "
                "runtime.compile to false"
            )

    def expected_state(self, before: Tensor) -> Tensor:
        """The state of torch's global generator on the CPU after a pass, if nothing but these layers drew from it."""
        if self._counts or not self._marks:
            return before
        generator = torch.Generator()
        generator.set_state(before)
        torch.randint(_MARKS, (len(self._marks),), generator=generator)
        return generator.get_state()

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _marked_call(self) -> int:
        return self._mark()

    def _mark(self) -> int:
        """The number that the call under way had before, or the next."""
        return self._marks.setdefault(int(torch.randint(_MARKS, ())), self.calls)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _take(self, rows: int) -> Tensor:
        """Takes words for so many calls in this pass; draws those that no earlier pass of this step has drawn. Returns
        them (calls, samples), on the CPU."""
        more = torch.randint(WORDS, (max(0, rows - len(self._all)), self._batch), generator=self._generator)
        self._all = torch.cat([self._all, more])
        own = self._all[:rows, self._positions[self._own]]
        self.words = self._on_device(own)
        return own

    def _on_device(self, values: Tensor) -> Tensor:
        on_cuda = self.device.type == "cuda"  # from pinned memory the copy waits for no kernel
        return values.pin_memory().to(self.device, non_blocking=True) if on_cuda else values


def words_of_elements(words: Tensor, elements: int) -> Tensor:
    """(rows,) random words -> (rows, elements) random words: a function of each row's word and the element's number.

    A hash, since no generator of torch gives a part of a batch the numbers that it has in the whole. Rounds of
    xor-shift and multiplication (as in MurmurHash3's finalizer, other constants below 2 ** 31 so that products fit).
    """
    numbers = _mixed(torch.arange(1, elements + 1, device=words.device))
    return _mixed(words[:, None] ^ numbers[None])


def _mixed(words: Tensor) -> Tensor:
    for shift, factor in ((16, 0x21F0AAAD), (15, 0x735A2D97)):
        words = ((words ^ (words >> shift)) * factor) & (WORDS - 1)
    return words ^ (words >> 15)


def _kept(words: Tensor, drop: float, like: Tensor, scale: bool = True) -> Tensor:
    """What to multiply by: 0 with probability `drop`, else 1 (with `scale` over the probability to be kept)."""
    return (words >= _threshold(drop)).to(like.dtype) / _divisor(drop, scale)


def _threshold(drop: float) -> int:
    """A word below it drops."""
    return round(drop * WORDS)


def _divisor(drop: float, scale: bool) -> float:
    """Of what is kept."""
    return 1 - drop if scale and drop < 1 else 1.0


class GlobalDropPath(nn.Module):
    """timm's DropPath with draws of the global batch; replaces that class in a model."""

    draws: Draws
    drop_prob: float
    scale_by_keep: bool
    drops: bool
    """The probability is not 0."""
    threshold: Tensor
    """(): a word below it drops."""
    divisor: Tensor
    """(): of what is kept."""

    def prepare(self) -> None:
        """Makes tensors of what a graph would else take for constants: then layers with other rates could not share
        it."""
        device = self.draws.device
        self.drops = bool(self.drop_prob)
        self.threshold = torch.tensor(_threshold(self.drop_prob), device=device)
        self.divisor = torch.tensor(_divisor(self.drop_prob, self.scale_by_keep), device=device)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.drops:
            return x
        if self.draws.in_block:
            kept = (self.draws.word_of_each(len(x)) >= self.threshold).float() / self.divisor
            return x * kept.to(x.dtype).view(-1, *[1] * (x.ndim - 1))
        if not self.drop_prob:  # a model may change it (the tracker's fusion does); a graph must not read it
            return x
        if not self.draws.active:
            from timm.layers import drop_path

            return cast("Tensor", drop_path(x, self.drop_prob, True, self.scale_by_keep))
        kept = self.draws.factor_of_each(x, self.drop_prob, self.scale_by_keep)
        return x * kept.view(-1, *[1] * (x.ndim - 1))


class GlobalDropout(nn.Dropout):
    """nn.Dropout with draws of the global batch; replaces that class in a model."""

    draws: Draws

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or not self.p or not self.draws.active:
            return super().forward(input)
        elements = input[0].numel()
        words = words_of_elements(self.draws.word_of_each(len(input)), elements)
        return input * _kept(words, self.p, input).view(input.shape)


class GlobalDropout2d(nn.Dropout2d):
    """nn.Dropout2d, which drops whole channels, with draws of the global batch; replaces that class in a model."""

    draws: Draws

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or not self.p or not self.draws.active or input.ndim != 4:
            return super().forward(input)
        words = words_of_elements(self.draws.word_of_each(len(input)), input.shape[1])
        return input * _kept(words, self.p, input)[:, :, None, None]


def draw_for_the_global_batch(model: nn.Module, draws: Draws) -> None:
    """Lets the layers of the model that drop take their draws from `draws`: timm's DropPath, nn.Dropout, nn.Dropout2d.

    Attention that drops inside a fused kernel, where draws cannot be given, is computed step by step instead. Whatever
    else draws in training (PatchDropout, DropBlock, functional.dropout) is found by `Watch`.
    """
    from timm.layers import DropPath

    ours = {DropPath: GlobalDropPath, nn.Dropout: GlobalDropout, nn.Dropout2d: GlobalDropout2d}
    for module in model.modules():
        dropped = getattr(module, "attn_drop", None)
        if isinstance(dropped, nn.Dropout) and dropped.p > 0 and getattr(module, "fused_attn", False):
            cast("Any", module).fused_attn = False
        if type(module) in ours:
            module.__class__ = ours[type(module)]
            cast("Any", module).draws = draws
            draws.rows += CALLS if _drops(module) else 0
            if isinstance(module, GlobalDropPath):
                module.prepare()


def around_block(draws: Draws, block: nn.Module) -> Callable[[], AbstractContextManager[None]] | None:
    """What surrounds a call of a block that is compiled by itself, after `draw_for_the_global_batch`; None if no layer
    of it drops."""
    layers = sum(_drops(module) for module in block.modules())
    return partial(draws.block, 4 * CALLS * layers) if layers else None


def _drops(module: nn.Module) -> bool:
    """Whether it is one of our layers, with a rate above 0: models of timm have dropout of rate 0 in every block."""
    if isinstance(module, GlobalDropPath):
        return bool(module.drop_prob)
    return isinstance(module, GlobalDropout | GlobalDropout2d) and bool(module.p)


class Watch:
    """Notices whether anything drew from a global generator since this was made."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before = self._states()

    def unexplained(self, draws: Draws) -> bool:
        """True if anything but the layers that take their draws from `draws` drew random numbers."""
        (cpu, *others), (cpu_now, *others_now) = self._before, self._states()
        if not torch.equal(draws.expected_state(cpu), cpu_now):
            return True
        return any(not _same(was, now) for was, now in zip(others, others_now, strict=True))

    def _states(self) -> list[Any]:
        states = [torch.default_generator.get_state(), _numpys_state(), random.getstate()]
        if self._device.type == "cuda":
            states.append(torch.cuda.get_rng_state(self._device))
        return states


def _same(was: Any, now: Any) -> bool:
    if isinstance(was, Tensor):
        return torch.equal(was, now)
    return bool(was == now)


def _numpys_state() -> object:
    """Of NumPy's global generator. np.random.get_state makes an array of it and takes thirty times as long; what that
    has in addition, a normal number kept for the next call, comes only from a draw that changes this state too."""
    generator = np.random.get_bit_generator()  # type: ignore[attr-defined]
    if isinstance(generator, np.random.MT19937):  # 624 words, and the number of those used up
        return ctypes.string_at(generator.ctypes.state_address, 625 * 4)
    return repr(generator.state)
