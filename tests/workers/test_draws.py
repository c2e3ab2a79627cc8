"""Draws are those of the global batch: the same for a sample whatever micro-batch, worker or layer computed again."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_task import Tiny, assert_close, digest, outcome_values, real, run, trial, trial_of, weights_of
from torch import Tensor, nn
from torch.nn import functional

from tasks.base import Batch
from workers.draws import Draws, Watch, around_block, draw_for_the_global_batch, words_of_elements
from workers.errors import ErrorClass, TrialError
from workers.trial import TrialSpec

CPU = torch.device("cpu")
VIT: dict[str, Any] = {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
DROPS = {"proj_drop_rate": 0.2, "attn_drop_rate": 0.2, "pos_drop_rate": 0.1, "drop_rate": 0.1}
RESNET = {"channels": [8, 8, 16, 16], "stem_width": 8}


class Drops(nn.Module):
    """One layer of each kind, one of them called twice."""

    def __init__(self, drop: float = 0.5) -> None:
        from timm.layers import DropPath

        super().__init__()
        self.path, self.tokens, self.maps = DropPath(drop), nn.Dropout(drop), nn.Dropout2d(drop)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(n, c, h, w)"""
        windows = images.repeat_interleave(3, dim=0)
        return {
            "path": self.path(images), "again": self.path(images), "tokens": self.tokens(images),
            "maps": self.maps(images), "windows": self.tokens(windows).unflatten(0, (-1, 3)),
        }  # fmt: skip


def drawn(
    batch: int = 12,
    positions: list[int] | None = None,
    part: int = 12,
    seed: int = 5,
    counts_calls: bool = False,
    blocks: int = 0,
    **options: Any,
) -> dict[str, Tensor]:
    """What `Drops` makes of ones, a part at a time; outputs of all parts together. `blocks`: 1: as a block that is
    compiled, between two calls of another layer."""
    rows = torch.arange(batch) if positions is None else torch.tensor(positions)
    draws = Draws(batch, rows, CPU, counts_calls)
    model = Drops(**options).train()
    draw_for_the_global_batch(model, draws)
    around = around_block(draws, model) if blocks else None
    draws.begin_step(seed)
    outputs: dict[str, list[Tensor]] = {}
    for first in range(0, len(rows), part):
        torch.manual_seed(1)
        own = slice(first, first + part)
        ones = torch.ones(len(rows[own]), 4, 8, 8)
        with draws.samples(own):
            before = model.path(ones)
            with around() if around else nullcontext():
                made = model(ones)
            for name, output in {"before": before, **made, "after": model.path(ones)}.items():
                outputs.setdefault(name, []).append(output)
    return {name: torch.cat(parts) for name, parts in outputs.items()}


@pytest.mark.parametrize("part", [1, 5, 6])
def test_a_sample_is_dropped_alike_in_every_micro_batch(part: int) -> None:
    torch.testing.assert_close(drawn(part=part), drawn(), rtol=0, atol=0)


def test_a_sample_is_dropped_alike_on_every_worker() -> None:
    whole = drawn()
    for positions in ([0, 1, 2, 9, 10, 11], [3, 4, 5, 6, 7, 8], [7]):
        own = drawn(positions=positions, part=4)
        torch.testing.assert_close(own, {name: rows[positions] for name, rows in whole.items()}, rtol=0, atol=0)


def test_a_compiled_model_counts_its_calls_and_draws_the_same() -> None:
    """`runtime.grad_checkpointing`, which decides between the two ways, is no part of a key."""
    torch.testing.assert_close(drawn(counts_calls=True, part=5), drawn(part=5), rtol=0, atol=0)


def test_a_block_that_is_compiled_draws_what_it_draws_without() -> None:
    """Its calls follow those before it, and layers after it go on; so too when it is computed again."""
    plain = drawn(part=5, blocks=0)
    torch.testing.assert_close(drawn(part=5, blocks=1), plain, rtol=0, atol=0)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_factors_that_are_made_for_a_whole_pass_have_the_bits_of_those_made_one_by_one(kind: torch.dtype) -> None:
    """From the second pass on they are; then a layer's rate changes, and one drops nothing for a while."""
    rates = [[0.1, 0.3, 1 / 7], [0.1, 0.3, 1 / 7], [0.1, 0.219, 1 / 7], [0.1, 0.219, 1 / 7], [0.1, 0.0, 1 / 7]] * 2

    def passes(learns: bool) -> tuple[list[Tensor], list[int]]:
        """Outputs of the layers; and of how many calls the factors were known at the end of each pass."""
        draws, made, known = Draws(64, torch.arange(64), CPU, counts_calls=False), [], []
        layers = [Drops(rate).path.train() for rate in rates[0]]
        for layer in layers:
            draw_for_the_global_batch(layer, draws)
        for step, of_step in enumerate(rates):
            draws.begin_step(step)
            if not learns:
                draws._rates.clear()
            for layer, rate in zip(layers, of_step, strict=True):
                layer.drop_prob = rate
            with draws.samples(slice(0, 64)):
                made += [layer(torch.ones(64, 2, 3, dtype=kind)) for layer in layers]
            known.append(len(draws._factors))
        return made, known

    (learnt, known), (alone, unknown) = passes(learns=True), passes(learns=False)
    assert (known, set(unknown)) == ([0, 3, 1, 3, 1, 1, 3, 1, 3, 1], {0})
    for one, other in zip(learnt, alone, strict=True):
        assert torch.equal(one, other)
        assert one.dtype == kind


def test_a_block_computed_again_finds_its_words() -> None:
    draws = Draws(4, torch.arange(4), CPU, counts_calls=False)
    draws.begin_step(9)
    watch = Watch(CPU)
    with draws.samples(slice(0, 4)):
        draws.word_of_each(4)
        state = torch.get_rng_state()
        found = []
        for _ in range(2):
            torch.set_rng_state(state)
            with draws.block(most=300):  # more than were drawn before
                found.append(torch.stack([draws.word_of_each(4) for _ in range(3)]))
        assert torch.equal(*found)
        assert (draws.calls, draws.in_block) == (4, False)
        assert not torch.isin(draws.word_of_each(4), found[0]).any()
    assert not watch.unexplained(draws)


def test_words_of_a_block_are_drawn_once_more_in_the_first_pass_alone() -> None:
    draws, drawn_in_pass = Draws(4, torch.arange(4), CPU, counts_calls=False), []
    for step in range(2):
        draws.begin_step(step)
        with draws.samples(slice(0, 4)):
            at_first = draws.words
            for _ in range(3):
                with draws.block(most=5):
                    draws.word_of_each(4)
            drawn_in_pass.append(draws.words is not at_first)
    assert drawn_in_pass == [True, False]


def test_nothing_surrounds_a_block_that_drops_nothing() -> None:
    draws, models = Draws(4, torch.arange(4), CPU, counts_calls=False), [Drops(rate).train() for rate in (0.0, 0.1)]
    for model in models:
        draw_for_the_global_batch(model, draws)
    assert [around_block(draws, model) is None for model in models] == [True, False]


def test_a_counted_call_in_the_backward_pass_is_an_error() -> None:
    draws = Draws(4, torch.arange(4), CPU, counts_calls=True)
    draws.begin_step(9)
    with draws.samples(slice(0, 4)), pytest.raises(RuntimeError, match="drop again in the backward pass"):
        draws.check_backward(lambda: draws.word_of_each(4))


def test_samples_layers_calls_and_steps_differ() -> None:
    whole = drawn(batch=64, part=64)
    assert len({tuple(row.flatten().tolist()) for row in whole["tokens"]}) == 64
    assert len({tuple(row.flatten().tolist()) for row in whole["windows"].flatten(0, 1)}) == 192
    assert not torch.equal(whole["path"], whole["again"])
    assert not torch.equal(whole["path"], drawn(batch=64, part=64, seed=6)["path"])


@pytest.mark.parametrize("drop", [0.1, 0.5, 0.9])
def test_so_many_are_dropped_and_the_mean_stays(drop: float) -> None:
    whole = drawn(batch=2000, part=2000, drop=drop)
    assert {round(value, 4) for value in whole["path"].unique().tolist()} == {0.0, round(1 / (1 - drop), 4)}
    assert whole["path"].flatten(1).std(1).max() == 0  # the whole sample or nothing of it
    assert whole["maps"].flatten(2).std(2).max() == 0
    for name, trials in (("path", 2000), ("maps", 8000), ("tokens", 512_000), ("windows", 1_536_000)):
        kept = (whole[name] > 0).float().mean().item()
        assert kept == pytest.approx(1 - drop, abs=5 * (drop * (1 - drop) / trials) ** 0.5), name


def test_elements_are_independent_of_each_other_and_of_other_samples() -> None:
    words = torch.randint(2**32, (128,), generator=torch.Generator().manual_seed(1))
    bits = (words_of_elements(words, 2048) < 2**31).double() * 2 - 1
    for values in (bits @ bits.T / 2048, bits.T[:512] @ bits[:, :512] / 128):
        others = values - torch.diag(values.diag())
        size = 2048 if len(values) == 128 else 128
        assert others.std().item() == pytest.approx(size**-0.5, rel=0.05)
    assert abs((bits[:, 1:] * bits[:, :-1]).mean().item()) < 5 / bits.numel() ** 0.5


def test_words_are_those_of_a_fixed_seed() -> None:
    """Recorded trials depend on them."""
    draws = Draws(4, torch.arange(4), CPU, counts_calls=True)
    draws.begin_step(9)
    with draws.samples(slice(0, 4)):
        words = draws.word_of_each(4)
    assert words.tolist() == [1565348188, 2143748597, 32397368, 1358173078]
    assert words_of_elements(words[:1], 3)[0].tolist() == [1067329364, 2689888772, 1984122153]


def test_more_calls_than_before_do_not_change_the_first_ones() -> None:
    few, many = (Draws(6, torch.arange(6), CPU, counts_calls=True) for _ in range(2))
    rows = []
    for draws, calls in ((few, 3), (many, 50)):
        draws.begin_step(2)
        with draws.samples(slice(0, 6)):
            rows.append(torch.stack([draws.word_of_each(6) for _ in range(calls)]))
    assert torch.equal(rows[0], rows[1][:3])
    assert len(rows[1].unique(dim=0)) == 50


def test_rows_that_are_no_samples_are_refused() -> None:
    draws = Draws(4, torch.arange(4), CPU, counts_calls=True)
    draws.begin_step(9)
    with draws.samples(slice(0, 4)), pytest.raises(ValueError, match="got 6 rows for 4 samples: the first axis must"):
        draws.word_of_each(6)


@pytest.mark.parametrize("counts_calls", [False, True])
def test_outside_of_a_pass_layers_draw_as_usual(counts_calls: bool) -> None:
    draws = Draws(4, torch.arange(4), CPU, counts_calls)
    model, plain = Drops().train(), Drops().train()
    draw_for_the_global_batch(model, draws)
    results = []
    for each in (model, plain):
        torch.manual_seed(4)
        results.append(each(torch.ones(2, 4, 3, 3)))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)
    torch.testing.assert_close(model.eval()(torch.ones(2, 4, 3, 3))["path"], torch.ones(2, 4, 3, 3))


def whole_and_parts(spec: TrialSpec, folder: Path, micro_batch: int) -> None:
    """Compares the trial with the whole batch at once with one in parts."""
    results = []
    for size in (None, micro_batch):
        optim = spec.optim.model_copy(update={"micro_batch": size, "eps": 1e-4})
        results.append(run(spec.model_copy(update={"optim": optim}), folder / str(size)))
    (whole, reports), (parts, part_reports) = results
    assert whole.facts["notes"] == parts.facts["notes"] == []
    torch.testing.assert_close(weights_of(parts), weights_of(whole), rtol=1e-5, atol=3e-6)
    for one, two in zip(reports, part_reports, strict=True):
        assert outcome_values(one) == pytest.approx(outcome_values(two), rel=2e-5)


@pytest.mark.parametrize(
    ("model", "args", "runtime"),
    [
        ("vit_tiny_patch16_224", {**VIT, **DROPS}, {}),  # attention in a fused kernel, unless it drops
        ("vit_tiny_patch16_224", {**VIT, **DROPS}, {"grad_checkpointing": True}),
        ("cait_xxs24_224", {**VIT, "depth_token_only": 1}, {}),  # calls one drop path layer twice
    ],
    ids=["vit", "vit computed again", "cait"],
)
def test_real_models_do_not_depend_on_the_micro_batch(
    tmp_path: Path, model: str, args: dict[str, Any], runtime: dict[str, Any]
) -> None:
    spec = real(model, args, **runtime)
    spec = spec.model_copy(update={"backbone": spec.backbone.model_copy(update={"drop_path": 0.4})})
    whole_and_parts(spec, tmp_path, 30)


def test_running_out_of_memory_changes_no_draw(tmp_path: Path) -> None:
    task = {"dropout": 0.3}
    whole, _ = run(trial(task), tmp_path / "whole")
    halved, _ = run(trial({**task, "memory": (3,)}), tmp_path / "halved")
    assert halved.facts["micro_batch"] == 2
    assert_close(halved, whole)


class Alike(Tiny):
    """Every sample and every seed's initial model is the same, so that losses differ by what is dropped alone."""

    def build(self, *arguments: Any) -> nn.Module:
        torch.manual_seed(0)
        return super().build(*arguments)

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        alike = {"images": torch.ones_like(batch["images"]), "labels": torch.zeros_like(batch["labels"])}
        return super().loss(model, alike)


def test_steps_and_seeds_draw_differently(tmp_path: Path) -> None:
    still = {"lr": 1e-30, "warmup_epochs": 0, "min_lr": 0, "weight_decay": 0, "batch": 32, "epochs": 3}

    def losses(dropout: float, seed: int) -> list[float]:
        spec = trial_of(Alike(dropout=dropout), seed=seed, **still)
        reports = run(spec, tmp_path / f"{dropout} {seed}")[1]
        return [round(report.values["train_loss"], 5) for report in reports]

    assert len({*losses(0.0, 1), *losses(0.0, 2)}) == 1
    assert len({*losses(0.5, 1), *losses(0.5, 2)}) == 6


def drops_itself(x: Tensor) -> Tensor:
    return functional.dropout(x, 0.3, training=True)


def from_numpy(x: Tensor) -> Tensor:
    return x * np.random.rand()


def from_python(x: Tensor) -> Tensor:
    return x * random.random()


class DrawsItself(Tiny):
    """Draws in its loss, outside of any layer."""

    source: int = 0

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        change = (drops_itself, from_numpy, from_python)[self.source]
        return super().loss(model, {**batch, "images": change(batch["images"])})


@pytest.mark.parametrize("source", [0, 1, 2])
def test_other_draws_need_one_worker_with_the_whole_batch(tmp_path: Path, source: int) -> None:
    task = DrawsItself(source=source, dropout=0.2)
    outcome, _ = run(trial_of(task), tmp_path / "whole")
    (note,) = outcome.facts["notes"]
    assert note.startswith("one worker with the whole batch at once: the model or the loss draws random numbers")
    assert digest(run(trial_of(task), tmp_path / "again")[0]) == digest(outcome)
    with pytest.raises(ValueError, match=r"a batch of 8 in parts of 4 on 1 worker\(s\): the model or the loss draws"):
        run(trial_of(task, micro_batch=4), tmp_path / "parts")
    small = task.model_copy(update={"memory": (7,)})
    with pytest.raises(TrialError, match="the batch cannot be cut, since the model or the loss draws") as caught:
        run(trial_of(small), tmp_path / "oom")
    assert caught.value.error_class is ErrorClass.out_of_memory


@pytest.mark.parametrize("args", [{"drop_rate": 0.2}, {"drop_block_rate": 0.1}])
def test_a_model_that_draws_by_itself_is_not_divided(tmp_path: Path, args: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"parts of 50 on 1 worker\(s\): the model or the loss draws"):
        run(real("resnet10t", {**RESNET, **args}), tmp_path)


def test_watch_sees_every_global_generator() -> None:
    draws = Draws(4, torch.arange(4), CPU, counts_calls=False)
    sources: list[tuple[Callable[[], object], bool]] = [
        (lambda: None, False), (lambda: torch.rand(1), True), (lambda: torch.empty(3).bernoulli_(0.5), True),
        (lambda: np.random.rand(), True), (lambda: np.random.randn(), True), (lambda: np.random.rand(312), True),
        (lambda: random.random(), True), (lambda: draws.word_of_each(4), False),
        (lambda: torch.rand(1, generator=torch.Generator()), False),
    ]  # fmt: skip
    for source, seen in sources:
        draws.begin_step(3)
        watch = Watch(CPU)
        with draws.samples(slice(0, 4)):
            draws.word_of_each(4)
            source()
        assert watch.unexplained(draws) is seen


def test_watch_sees_a_generator_that_somebody_gave_numpy() -> None:
    draws, usual = Draws(4, torch.arange(4), CPU, counts_calls=False), np.random.get_bit_generator()
    np.random.set_bit_generator(np.random.PCG64(1))
    try:
        watch = Watch(CPU)
        assert not watch.unexplained(draws)
        np.random.rand()
        assert watch.unexplained(draws)
    finally:
        np.random.set_bit_generator(usual)
