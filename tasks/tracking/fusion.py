"""Compares the tokens of template and search region: self-attention over both, then one cross-attention decoder.

Source: SwinTrack (Lin et al. 2021), concatenation-based fusion; its public code for what the paper leaves open
(pre-norm, initial weights normal with deviation 0.02, the decoder's keys are those of both branches).
"""

from __future__ import annotations

from typing import cast

import torch
from timm.layers import DropPath, Mlp, trunc_normal_
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from tasks.tracking.options import FusionOptions
from tasks.tracking.positions import Grid, Positions


class Attention(nn.Module):
    """Multi-head attention with a term that is added to the logits."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.query, self.pair = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self._heads = heads

    def forward(self, queries: Tensor, keys: Tensor, positions: Tensor) -> Tensor:
        """`queries` (n, q, width), `keys` (n, k, width), `positions` (1, heads, q, k) -> (n, q, width)."""
        query = self._split(self.query(queries))
        key, value = (self._split(part) for part in self.pair(keys).chunk(2, -1))
        mask = positions.to(query.dtype).expand(len(query), -1, -1, -1)
        read = scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return cast("Tensor", self.out(read.transpose(1, 2).flatten(2)))

    def _split(self, tokens: Tensor) -> Tensor:
        """(n, tokens, width) -> (n, heads, tokens, width / heads)"""
        count, length, width = tokens.shape
        return tokens.view(count, length, self._heads, width // self._heads).transpose(1, 2)


class SelfAttentionBlock(nn.Module):
    """Attention among all tokens, then an MLP, each after a norm and beside a skip connection."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.mlp_norm, self.mlp = nn.LayerNorm(width), Mlp(width, int(width * mlp_ratio))
        self.drop = DropPath(drop_path)

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        normed = self.norm(tokens)
        tokens = tokens + self.drop(self.attention(normed, normed, positions))
        return cast("Tensor", tokens + self.drop(self.mlp(self.mlp_norm(tokens))))


class CrossAttentionBlock(nn.Module):
    """The same for tokens that read others; these have a norm of their own."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.norm, self.key_norm, self.attention = nn.LayerNorm(width), nn.LayerNorm(width), Attention(width, heads)
        self.mlp_norm, self.mlp = nn.LayerNorm(width), Mlp(width, int(width * mlp_ratio))
        self.drop = DropPath(drop_path)

    def forward(self, tokens: Tensor, keys: Tensor, positions: Tensor) -> Tensor:
        tokens = tokens + self.drop(self.attention(self.norm(tokens), self.key_norm(keys), positions))
        return cast("Tensor", tokens + self.drop(self.mlp(self.mlp_norm(tokens))))


class Fusion(nn.Module):
    """Tokens of template and search region -> tokens of the search region that know the template."""

    def __init__(self, options: FusionOptions, template: Grid, search: Grid) -> None:
        """Drop path rises from 0 in the first block to that of the options in the decoder."""
        super().__init__()
        width, heads, mlp_ratio = options.width, options.heads, options.mlp_ratio
        rates = torch.linspace(0, options.drop_path, options.blocks + 1, device="cpu").tolist()
        self.encoder = nn.ModuleList(SelfAttentionBlock(width, heads, mlp_ratio, rate) for rate in rates[:-1])
        self.encoder_positions = Positions(width, heads, template, search, False, options.template_bias)
        self.decoder = CrossAttentionBlock(width, heads, mlp_ratio, rates[-1])
        self.decoder_positions = Positions(width, heads, template, search, True, options.template_bias)
        self.norm = nn.LayerNorm(width)
        self._rates = rates
        draw(self, options.init_std)

    def forward(self, template: Tensor, search: Tensor, drop: bool) -> Tensor:
        """`template` (n, t, width), `search` (n, s, width) -> (n, s, width). `drop` False: no drop path."""
        for block, rate in zip([*self.encoder, self.decoder], self._rates, strict=True):
            cast("SelfAttentionBlock", block).drop.drop_prob = rate if drop else 0.0
        tokens = torch.cat([template, search], 1)
        positions = self.encoder_positions()
        for block in self.encoder:
            tokens = block(tokens, positions)
        read = self.decoder(tokens[:, template.shape[1] :], tokens, self.decoder_positions())
        return cast("Tensor", self.norm(read))


def draw(model: nn.Module, std: float) -> None:
    """Draws the weights of all linear layers: normal with this deviation, cut at +-2; biases 0."""
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            trunc_normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)
