"""Measures of attention maps: how far heads look, how broadly, and how much they differ (section 3.1 of the paper).

Everything is computed in float64 from maps in float32, in chunks, and returned as sums over queries, so that any number
of images takes the same memory. No official code exists for section 3; what the paper leaves open is an argument.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

ClsRule = Literal["drop_renormalise", "drop", "keep"]
FLOOR = 1e-8
"""Added to each weight before rows are made to sum to 1 again, for the distance, as in the public notebook of
naver-ai/cl-vs-mim (self_attention_analysis.ipynb). Not for entropy and divergence: it would add to their `eps`."""
CHUNK, CHUNK_OF_GPU = 1 << 18, 1 << 24
"""Weights that are worked on at once: about five copies of them in float64 exist at a time, 10 MiB, and 640 MiB on a
GPU, which smaller pieces would leave idle between its kernels."""


@dataclass(frozen=True)
class Places:
    """Where queries and keys of a map lie: first `prefix` tokens without a place (class token, registers), then the
    patches of the image or of a window, row by row."""

    height: int
    width: int
    """Patches along each side."""
    pixel: tuple[float, float] = (1.0, 1.0)
    """Pixels of the input from one patch to the next, down and across."""
    prefix: int = 0

    @property
    def tokens(self) -> int:
        return self.prefix + self.height * self.width


def distances(places: Places) -> Tensor:
    """(n, n), float64: Euclidean distance in pixels between the centres of the n = height x width patches."""
    rows = torch.arange(places.height, dtype=torch.float64) * places.pixel[0]
    columns = torch.arange(places.width, dtype=torch.float64) * places.pixel[1]
    points = torch.cartesian_prod(rows, columns)
    return torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")


@dataclass(frozen=True)
class AttentionSums:
    """Sums over queries (of images, and of windows in them) of what one layer's heads do. Sums of parts add up."""

    queries: float
    """Number of patches that asked: the divisor of `distance`."""
    rows: float
    """Number of rows that were measured, those of prefix tokens included where these are kept: the divisor of the
    others."""
    distance: Tensor
    """(heads,), pixels"""
    entropy: Tensor
    """(heads,), nats"""
    divergence: Tensor
    """(heads, heads), nats: of the row's head from the column's."""

    def __add__(self, other: AttentionSums) -> AttentionSums:
        return AttentionSums(
            self.queries + other.queries, self.rows + other.rows, self.distance + other.distance,
            self.entropy + other.entropy, self.divergence + other.divergence,
        )  # fmt: skip

    def means(self) -> AttentionMeans:
        return AttentionMeans(
            self.distance / self.queries, self.entropy / self.rows, self.divergence.clone() / self.rows
        )

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "queries": self.queries, "rows": self.rows, "distance": self.distance.tolist(),
            "entropy": self.entropy.tolist(), "divergence": self.divergence.tolist(),
        }  # fmt: skip

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> AttentionSums:
        heads = {name: torch.tensor(plain[name], dtype=torch.float64) for name in ("distance", "entropy", "divergence")}
        return cls(plain["queries"], plain["rows"], **heads)


@dataclass(frozen=True)
class AttentionMeans:
    """Means over queries, windows and images."""

    distance: Tensor
    """(heads,), pixels: the mean distance from a query to the keys, by their weights."""
    entropy: Tensor
    """(heads,), nats: the mean over queries of the entropy of a row (not the entropy of the mean map)."""
    divergence: Tensor
    """(heads, heads), nats: the mean over queries of KL(row's head || column's head); its diagonal is 0 and belongs to
    no mean."""


def measured(maps: Tensor, places: Places, rule: ClsRule, eps: float) -> AttentionSums:
    """Sums of the measures of one layer over all rows of `maps` (n, heads, tokens, tokens), which each sum to 1; n
    counts images, or windows of images.

    `rule` says what becomes of prefix tokens. `drop_renormalise`: their rows and columns are left out, and what is left
    of each row is made to sum to 1 (for the distance after `FLOOR` was added; a row of zeros becomes uniform). `drop`:
    left out, and rows sum to less than 1. `keep`: entropy and divergence are over all tokens; for the distance they are
    left out as by `drop`, because they have no place. Maps without prefix tokens are taken as they are.

    `eps`: KL(p || q) is the sum over keys of p log((p + eps) / (q + eps)). The entropy needs none: 0 log 0 = 0.
    Raises ValueError for maps of another size than `places`.
    """
    if maps.ndim != 4 or maps.shape[-2:] != (places.tokens, places.tokens):
        raise ValueError(
            f"attention maps of shape {tuple(maps.shape)} for {places.prefix} prefix tokens and "
            f"{places.height} x {places.width} patches"
        )
    heads, first = maps.shape[1], places.prefix
    apart = distances(places).to(maps.device)
    distance, entropy = (torch.zeros(heads, dtype=torch.float64, device=maps.device) for _ in range(2))
    cross = torch.zeros(heads, heads, dtype=torch.float64, device=maps.device)
    for part, queries in _chunks(maps, 0 if rule == "keep" else first):
        asking = slice(max(queries.start - first, 0), max(queries.stop - first, 0))
        patches = part[..., first:].to(torch.float64, copy=True)  # it is changed below, and maps are the model's
        far = (patches[:, :, max(first - queries.start, 0) :] * apart[asking]).sum(-1)
        if rule == "drop_renormalise" and first:
            left = patches.sum(-1, keepdim=True)
            keys = patches.shape[-1]
            far = (far + FLOOR * apart[asking].sum(-1)) / (left[..., 0] + FLOOR * keys)
            patches /= left
            if not left.all():
                patches.masked_fill_(left == 0, 1 / keys)
        weights = part.double() if rule == "keep" else patches
        distance += far.sum((0, 2))
        entropy += torch.special.entr(weights).sum((0, 2, 3))
        logs = (weights + eps).log_().flatten(2)
        cross += (weights.flatten(2) @ logs.mT).sum(0)
    rows = maps.shape[0] * (places.tokens if rule == "keep" else places.tokens - first)
    divergence = cross.diagonal()[:, None] - cross
    return AttentionSums(
        float(maps.shape[0] * (places.tokens - first)), float(rows), distance.cpu(), entropy.cpu(), divergence.cpu()
    )


def uniform(places: Places, rule: ClsRule, allowed: Tensor | None = None) -> tuple[float, float]:
    """Distance in pixels and entropy in nats of a head that gives every key the same weight: the anchor for a layer.

    `allowed`: (windows, tokens, tokens), true where a shifted window lets a query see a key; None: everywhere.
    """
    if allowed is None:
        allowed = torch.ones(1, places.tokens, places.tokens, dtype=torch.bool)
    weights = allowed.double() / allowed.sum(-1, keepdim=True)
    means = measured(weights[:, None], places, rule, eps=FLOOR).means()
    return means.distance.item(), means.entropy.item()


def _chunks(maps: Tensor, first: int) -> Iterator[tuple[Tensor, slice]]:
    """Parts of `maps` of about so many weights, each with the queries it has: whole maps where several fit, else some
    queries of one. Queries before `first` are left out."""
    count, heads, tokens, _ = maps.shape
    chunk = CHUNK if maps.device.type == "cpu" else CHUNK_OF_GPU
    queries = min(max(chunk // (heads * tokens), 1), tokens - first)
    images = max(chunk // (heads * tokens * (tokens - first)), 1)
    for start in range(0, count, images):
        for query in _steps(first, tokens, queries):
            yield maps[start : start + images, :, query], query


def _steps(first: int, last: int, size: int) -> Sequence[slice]:
    return [slice(start, min(start + size, last)) for start in range(first, last, size)]
