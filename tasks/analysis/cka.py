"""Centred kernel alignment between layers (appendix A.2, equation 1 of the paper; Kornblith et al. 2019).

The paper names neither the estimator of HSIC nor how features become rows. On independent random features of 256
samples and 768 numbers the biased estimator gives 0.75, the unbiased one 0; with more numbers or smaller batches the
biased one passes 0.9. So the unbiased one is the default, over minibatches (Song et al. 2012, HSIC_1; Nguyen et al.
2021): CKA = sum HSIC(K, L) / sqrt(sum HSIC(K, K) * sum HSIC(L, L)), sums over batches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

Estimator = Literal["unbiased", "biased"]
FEWEST = 4
"""Samples of a batch for which HSIC_1 is defined."""
COLUMNS = 1 << 14
"""Features that are turned into float64 at once."""


def gram(features: Tensor) -> Tensor:
    """(n, n), float64: products of the rows of `features` (n, ..), each flattened."""
    rows = features.reshape(len(features), -1)
    total = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=rows.device)
    for columns in torch.split(rows, COLUMNS, dim=1):
        part = columns.double()
        total.addmm_(part, part.mT)
    return total


def hsic(first: Sequence[Tensor], second: Sequence[Tensor], estimator: Estimator) -> Tensor:
    """(layers, layers'): HSIC of each Gram matrix of `first` with each of `second`, all (n, n).

    `biased`: tr(K H L H) / (n - 1)^2. `unbiased`: HSIC_1 of Song et al. 2012, which is the mean product of the
    U-centred matrices (Szekely and Rizzo 2014), and needs n >= 4. Raises ValueError for fewer samples.
    """
    centred = [torch.stack([_centred(matrix, estimator).flatten() for matrix in side]) for side in (first, second)]
    n = len(first[0])
    return centred[0] @ centred[1].mT / (n * (n - 3) if estimator == "unbiased" else (n - 1) ** 2)


def _centred(matrix: Tensor, estimator: Estimator) -> Tensor:
    n = len(matrix)
    if estimator == "biased":
        if n < 2:
            raise ValueError("CKA of a single sample is not defined")
        means = matrix.mean(0)
        return matrix - means[:, None] - means + means.mean()
    if n < FEWEST:
        raise ValueError(f"unbiased CKA needs batches of at least {FEWEST} samples, not {n}")
    hollow = matrix.clone().fill_diagonal_(0)
    sums = hollow.sum(0)
    centred = hollow - (sums[:, None] + sums) / (n - 2) + sums.sum() / ((n - 1) * (n - 2))
    return centred.fill_diagonal_(0)


@dataclass(frozen=True)
class HsicSums:
    """Sums over batches of HSIC between the layers of one model and of another (or of itself)."""

    cross: Tensor
    """(layers, layers')"""
    first: Tensor
    """(layers,): each with itself."""
    second: Tensor
    """(layers',)"""

    @classmethod
    def of(cls, first: Sequence[Tensor], second: Sequence[Tensor] | None, estimator: Estimator) -> HsicSums:
        """Of one batch: Gram matrices of the layers of two models, or (`second` None) of one."""
        if second is None:
            cross = hsic(first, first, estimator)
            return cls(cross, cross.diagonal().clone(), cross.diagonal().clone())
        own = [torch.cat([hsic([matrix], [matrix], estimator)[0] for matrix in side]) for side in (first, second)]
        return cls(hsic(first, second, estimator), *own)

    def __add__(self, other: HsicSums) -> HsicSums:
        return HsicSums(self.cross + other.cross, self.first + other.first, self.second + other.second)

    def cka(self) -> Tensor:
        """(layers, layers'); NaN where HSIC of a layer with itself is not above 0, as may be for noise."""
        below = torch.outer(self.first.clamp(min=0).sqrt(), self.second.clamp(min=0).sqrt())
        return torch.where(below > 0, self.cross / below, math.nan)

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return {name: getattr(self, name).tolist() for name in ("cross", "first", "second")}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> HsicSums:
        return cls(*(torch.tensor(plain[name], dtype=torch.float64) for name in ("cross", "first", "second")))
