"""k-NN classification of features: the weighted vote of the most similar training images, as in DINO's public code."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

QUERIES = 1024
"""Images that are classified at a time."""
BANK = 65_536
"""Training images that these are compared with at a time: the similarities of a step take 256 MiB."""


def unit(features: Tensor) -> Tensor:
    """(n, channels) features at length 1, on the CPU."""
    return functional.normalize(features.float(), dim=1).cpu()


def votes(
    queries: Tensor, bank: Tensor, labels: Tensor, classes: int, k: int, temperature: float,
    at_once: tuple[int, int] = (QUERIES, BANK),
) -> Tensor:  # fmt: skip
    """The vote for each class, (n, classes), of the k training images most similar to each of n queries.

    `queries` (n, channels) and `bank` (m, channels) have length 1, so that a product is a cosine; `labels` (m,). A
    neighbour of cosine s adds exp((s - t) / temperature) to its class, where t is that of the nearest one: in DINO's
    code exp(s / temperature), which ranks the classes alike and overflows at low temperatures.
    Source: eval_knn.py of facebookresearch/dino.
    """
    given = []
    for some in torch.split(queries, at_once[0]):
        best: tuple[Tensor, Tensor] | None = None
        for first in range(0, len(bank), at_once[1]):
            part = slice(first, first + at_once[1])
            own = some @ bank[part].T
            similar, place = own.topk(min(k, own.shape[1]), dim=1)
            of_class = labels[part][place]
            if best is not None:
                similar, of_class = torch.cat([best[0], similar], dim=1), torch.cat([best[1], of_class], dim=1)
                similar, order = similar.topk(min(k, similar.shape[1]), dim=1)
                of_class = of_class.gather(1, order)
            best = similar, of_class
        assert best is not None
        weights = ((best[0] - best[0][:, :1]) / temperature).exp()  # exp(1 / 0.01) is no float
        given.append(torch.zeros(len(some), classes).scatter_add_(1, best[1], weights))
    return torch.cat(given)


def classified(queries: Tensor, bank: Tensor, labels: Tensor, classes: int, k: int, temperature: float) -> Tensor:
    """The class with the greatest vote for each query, (n,); see `votes`."""
    return votes(queries, bank, labels, classes, k, temperature).argmax(1)
