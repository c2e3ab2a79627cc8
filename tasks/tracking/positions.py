"""Positional terms of the fusion's attention: untied absolute ones, and a bias for each relative position.

Source: SwinTrack (Lin et al. 2021, section 3), whose public code adds both to the logits of every layer alike.
"""

from __future__ import annotations

import torch
from timm.layers import trunc_normal_
from torch import Tensor, nn

Grid = tuple[int, int]
"""(rows, columns) of tokens."""
TEMPLATE, SEARCH = 0, 1
"""The two branches whose tokens are concatenated, in this order."""


def _tokens(template: Grid, search: Grid) -> Tensor:
    """(tokens, 3): row, column and branch of each token, row by row, the template's first."""
    parts = []
    with torch.device("cpu"):  # also for a model without numbers, on the meta device
        for branch, (rows, columns) in enumerate((template, search)):
            places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).reshape(-1, 2)
            parts.append(torch.cat([places, torch.full((len(places), 1), branch)], 1))
    return torch.cat(parts)


def _numbered(rows: Tensor) -> tuple[Tensor, int]:
    """Every row of (a, b, n) by its rank among the different ones (a, b), and how many there are."""
    unique, number = torch.unique(rows.flatten(0, 1), return_inverse=True, dim=0)
    return number.view(rows.shape[:2]), len(unique)


def self_index(template: Grid, search: Grid) -> tuple[Tensor, int]:
    """For all pairs of tokens the number of (row difference, column difference, branch of query, branch of key), as
    (tokens, tokens); and how many numbers there are."""
    tokens = _tokens(template, search)
    apart = tokens[:, None, :2] - tokens[None, :, :2]
    query, key = (part.expand(len(tokens), len(tokens)) for part in (tokens[:, None, 2], tokens[None, :, 2]))
    return _numbered(torch.cat([apart, query[..., None], key[..., None]], -1))


def cross_index(template: Grid, search: Grid) -> tuple[Tensor, int]:
    """For queries of the search branch and all keys the number of (row difference, column difference, branch of key),
    as (search tokens, tokens); and how many numbers there are."""
    tokens = _tokens(template, search)
    queries = tokens[tokens[:, 2] == SEARCH]
    apart = queries[:, None, :2] - tokens[None, :, :2]
    key = tokens[None, :, 2].expand(len(queries), len(tokens))
    return _numbered(torch.cat([apart, key[..., None]], -1))


class RelativeBias(nn.Module):
    """A learned number for each head and relative position."""

    index: Tensor

    def __init__(self, heads: int, index: Tensor, count: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(heads, count))
        trunc_normal_(self.table, std=0.02)
        self.register_buffer("index", index.to(self.table.device), persistent=False)

    def forward(self) -> Tensor:
        """(heads, queries, keys)"""
        return self.table[:, self.index]


class AbsolutePositions(nn.Module):
    """Learned places of a grid's tokens, projected to queries and keys of their own ("untied" from the content's)."""

    def __init__(self, width: int, heads: int, grid: Grid, queries: bool = True) -> None:
        """`queries` False: keys alone."""
        super().__init__()
        self.rows, self.columns = (nn.Parameter(torch.empty(length, width)) for length in grid)
        for places in (self.rows, self.columns):
            trunc_normal_(places, std=0.02)
        self.norm = nn.LayerNorm(width)
        self.key = nn.Linear(width, width)
        self.query = nn.Linear(width, width) if queries else None
        self._heads = heads

    def forward(self) -> tuple[Tensor | None, Tensor]:
        """Queries, already scaled, and keys: (heads, tokens, width / heads) each."""
        places = self.norm((self.rows[:, None] + self.columns[None]).flatten(0, 1))
        keys = self._split(self.key(places))
        if self.query is None:
            return None, keys
        return self._split(self.query(places)) * keys.shape[-1] ** -0.5, keys

    def _split(self, places: Tensor) -> Tensor:
        return places.view(len(places), self._heads, -1).transpose(0, 1)


class Positions(nn.Module):
    """The positional term of all layers of the encoder, or of the decoder."""

    def __init__(
        self, width: int, heads: int, template: Grid, search: Grid, cross: bool, template_bias: float = 0.0
    ) -> None:
        """`cross`: queries are the search branch's alone. `template_bias`: see FusionOptions."""
        super().__init__()
        self.template = AbsolutePositions(width, heads, template, queries=not cross)
        self.search = AbsolutePositions(width, heads, search)
        self.relative = RelativeBias(heads, *(cross_index if cross else self_index)(template, search))
        looked_up = torch.unique(self.relative.index[-search[0] * search[1] :, : template[0] * template[1]])
        with torch.no_grad():
            self.relative.table[:, looked_up] += template_bias

    def forward(self) -> Tensor:
        """(1, heads, queries, keys), to be added to the logits of attention."""
        (template_queries, template_keys), (search_queries, search_keys) = self.template(), self.search()
        both = (template_queries, search_queries)
        queries = torch.cat([part for part in both if part is not None], 1)
        keys = torch.cat([template_keys, search_keys], 1)
        terms: Tensor = (queries @ keys.transpose(-2, -1) + self.relative())[None]
        return terms
