"""CKA: identities, invariances, both estimators on noise, loops in float64, minibatches."""

from __future__ import annotations

import itertools
import json
import math

import pytest
import torch
from torch import Tensor

from tasks.analysis import cka
from tasks.analysis.cka import Estimator, HsicSums, gram, hsic

BOTH = pytest.mark.parametrize("estimator", ["unbiased", "biased"])


def features(seed: int, samples: int = 64, numbers: int = 20) -> Tensor:
    return torch.randn(samples, numbers, generator=torch.Generator().manual_seed(seed))


def similarity(x: Tensor, y: Tensor, estimator: Estimator = "unbiased") -> float:
    return HsicSums.of([gram(x)], [gram(y)], estimator).cka().item()


@BOTH
def test_features_are_like_themselves_and_their_rotation_and_scale(estimator: Estimator) -> None:
    x, y = features(0).double(), features(1).double()
    y = y + 0.7 * x
    rotation = torch.linalg.qr(features(2, 20, 20).double())[0]
    assert similarity(x, x, estimator) == pytest.approx(1)
    assert similarity(x, 3.5 * x @ rotation + 2, estimator) == pytest.approx(1)
    assert 0.05 < similarity(x, y, estimator) < 0.95
    assert similarity(x @ rotation, 0.01 * y, estimator) == pytest.approx(similarity(x, y, estimator))


def test_it_does_not_follow_any_linear_change() -> None:
    """CKA sees which directions are large: unlike CCA it is not invariant to scaling single features."""
    x = features(0)
    stretched = x * torch.logspace(0, 3, 20)
    assert similarity(x, stretched) < 0.7


def test_independent_features_are_unlike_only_without_bias() -> None:
    x, y = features(3, 256, 768), features(4, 256, 768)
    assert similarity(x, y, "unbiased") == pytest.approx(0, abs=0.02)
    assert similarity(x, y, "biased") == pytest.approx(0.75, abs=0.01)
    batches = [HsicSums.of([gram(a)], [gram(b)], "biased") for a, b in zip(x.split(32), y.split(32), strict=True)]
    assert sum(batches[1:], batches[0]).cka().item() == pytest.approx(0.96, abs=0.01)


def by_loops(k: Tensor, l: Tensor, estimator: Estimator) -> float:  # noqa: E741 (the letters of equation 1)
    """Song et al. 2012: equation 5 for the unbiased, equation 4 for the biased estimator, one number at a time."""
    n = len(k)
    if estimator == "biased":
        h = torch.eye(n, dtype=torch.float64) - 1 / n
        return float(torch.trace(k @ h @ l @ h)) / (n - 1) ** 2
    a = [[0.0 if i == j else float(k[i, j]) for j in range(n)] for i in range(n)]
    b = [[0.0 if i == j else float(l[i, j]) for j in range(n)] for i in range(n)]
    trace = sum(a[i][j] * b[j][i] for i, j in itertools.product(range(n), repeat=2))
    sums = sum(map(sum, a)) * sum(map(sum, b)) / ((n - 1) * (n - 2))
    rows = sum(a[i][j] * b[j][m] for i, j, m in itertools.product(range(n), repeat=3))
    return (trace + sums - 2 / (n - 2) * rows) / (n * (n - 3))


@BOTH
def test_hsic_is_what_loops_compute(estimator: Estimator) -> None:
    first = [gram(features(seed, 9, 5)) for seed in (0, 1)]
    second = [gram(features(seed, 9, 7)) for seed in (2, 3, 4)]
    values = hsic(first, second, estimator)
    assert values.shape == (2, 3)
    for (i, k), (j, matrix) in itertools.product(enumerate(first), enumerate(second)):
        assert values[i, j].item() == pytest.approx(by_loops(k, matrix, estimator), rel=1e-10)


def test_the_unbiased_estimate_is_right_on_average() -> None:
    """Over all subsets of the samples its mean is the estimate from all: it is a U-statistic."""
    x, y = features(5, 7, 3), features(6, 7, 3)
    whole = hsic([gram(x)], [gram(y)], "unbiased").item()
    subsets = [list(rows) for rows in itertools.combinations(range(7), 5)]
    parts = [hsic([gram(x[rows])], [gram(y[rows])], "unbiased").item() for rows in subsets]
    assert sum(parts) / len(parts) == pytest.approx(whole, rel=1e-9)


def test_a_gram_matrix_is_in_float64_and_by_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    x = features(7, 6, 4 * 5 * 5).reshape(6, 4, 5, 5)
    flat = x.flatten(1).double()
    monkeypatch.setattr(cka, "COLUMNS", 7)
    assert gram(x).dtype == torch.float64
    torch.testing.assert_close(gram(x), flat @ flat.T, rtol=1e-14, atol=1e-13)


@BOTH
def test_batches_add_up(estimator: Estimator) -> None:
    """CKA = sum HSIC(K, L) / sqrt(sum HSIC(K, K) sum HSIC(L, L)), also of sums that were JSON between."""
    models = [[features(seed, 24, 10) + features(9, 24, 10) for seed in range(3)] for _ in range(2)]
    batches = [[[gram(layer[rows]) for layer in model] for model in models] for rows in (slice(0, 10), slice(10, 24))]
    sums = [HsicSums.of(first, second, estimator) for first, second in batches]
    total = sums[0] + HsicSums.from_plain(json.loads(json.dumps(sums[1].plain())))
    for i, j in itertools.product(range(3), repeat=2):
        cross, own, other = (
            sum(by_loops(one[a], two[b], estimator) for one, two in pairs)
            for pairs, a, b in (
                ([(f, s) for f, s in batches], i, j),
                ([(f, f) for f, _ in batches], i, i),
                ([(s, s) for _, s in batches], j, j),
            )
        )
        assert total.cka()[i, j].item() == pytest.approx(cross / math.sqrt(own * other), rel=1e-9)
    one = HsicSums.of(batches[0][0], None, estimator)
    torch.testing.assert_close(one.cka(), HsicSums.of(batches[0][0], batches[0][0], estimator).cka())


def test_a_layer_that_is_not_like_itself_has_no_cka() -> None:
    sums = HsicSums(torch.ones(2, 2), torch.tensor([1.0, -0.1]), torch.tensor([1.0, 0.0]))
    assert sums.cka()[0, 0] == 1
    assert sums.cka()[1].isnan().all()
    assert sums.cka()[0, 1].isnan()
    constant = gram(torch.ones(6, 3))
    assert HsicSums.of([constant], None, "biased").cka().isnan().all()


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 4 samples, not 3"):
        hsic([torch.eye(3)], [torch.eye(3)], "unbiased")
    with pytest.raises(ValueError, match="single sample"):
        hsic([torch.eye(1)], [torch.eye(1)], "biased")
