"""Large kernels measured as attention: closed forms, and loops in float64."""

from __future__ import annotations

import json
import math

import pytest
import torch

from tasks.analysis import kernels
from tasks.analysis.kernels import KernelMeans, KernelRule, measured, parts


@pytest.mark.parametrize("rule", ["abs", "softmax", "square"])
def test_a_flat_kernel_is_the_anchor_and_like_any_other(rule: KernelRule) -> None:
    means = measured(torch.full((3, 5, 5), -0.2), rule, 1e-8, pixel=4)
    wanted = 4 * sum(math.hypot(r, c) for r in range(-2, 3) for c in range(-2, 3)) / 25
    assert means.uniform_distance == pytest.approx(wanted)
    assert means.distance.tolist() == pytest.approx([wanted] * 3)
    assert means.uniform_entropy == pytest.approx(math.log(25))
    assert means.entropy.tolist() == pytest.approx([math.log(25)] * 3)
    assert means.divergence.tolist() == pytest.approx([0] * 3, abs=1e-12)


def test_a_kernel_of_one_weight_is_as_far_as_it_lies_from_the_centre() -> None:
    points = torch.zeros(2, 7, 7)
    points[0, 3, 3], points[1, 0, 3] = -2, 5
    means = measured(points, "abs", 1e-8, pixel=8)
    assert means.distance.tolist() == [0, 24]
    assert means.entropy.tolist() == [0, 0]
    assert means.divergence.tolist() == pytest.approx([math.log((1 + 1e-8) / 1e-8)] * 2)


@pytest.mark.parametrize("rule", ["abs", "softmax", "square"])
@pytest.mark.parametrize("chunk", [1, 3, 256])
def test_it_is_what_loops_compute(rule: KernelRule, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "CHANNELS", chunk)
    weights = torch.randn(7, 3, 5, generator=torch.Generator().manual_seed(1))
    change = {"abs": abs, "softmax": math.exp, "square": lambda w: w * w}[rule]
    normal = []
    for channel in weights.double().tolist():
        flat = [change(weight) for row in channel for weight in row]
        normal.append([weight / sum(flat) for weight in flat])
    where = [math.hypot(row - 1, column - 2) for row in range(3) for column in range(5)]
    means = measured(weights, rule, 1e-8)
    for i, p in enumerate(normal):
        assert means.distance[i].item() == pytest.approx(sum(w * d for w, d in zip(p, where, strict=True)))
        assert means.entropy[i].item() == pytest.approx(-sum(w * math.log(w) for w in p))
        others = [
            sum(a * math.log((a + 1e-8) / (b + 1e-8)) for a, b in zip(p, q, strict=True))
            for j, q in enumerate(normal)
            if j != i
        ]
        assert means.divergence[i].item() == pytest.approx(sum(others) / 6)
    torch.testing.assert_close(parts(weights, rule).flatten(1), torch.tensor(normal, dtype=torch.float64))


def test_a_kernel_of_zeros_has_no_figures_and_spoils_no_others() -> None:
    some = torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(2))
    alone = measured(some, "abs", 1e-8)
    means = measured(torch.cat([some[:2], torch.zeros(1, 3, 3), some[2:]]), "abs", 1e-8)
    for name in ("distance", "entropy", "divergence"):
        values = getattr(means, name)
        assert math.isnan(values[2])
        torch.testing.assert_close(values[[0, 1, 3, 4]], getattr(alone, name))
    again = KernelMeans.from_plain(json.loads(json.dumps(means.plain(), allow_nan=False)))
    assert math.isnan(again.entropy[2])
    assert again.distance[0] == means.distance[0]


def test_one_channel_has_no_pairs() -> None:
    assert math.isnan(measured(torch.ones(1, 3, 3), "abs", 1e-8).divergence)
