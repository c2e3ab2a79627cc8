"""The tracker's model: one backbone for template and search region, their fusion, and heads for score and box."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from tasks.backbones.features import feature_info, feature_maps
from tasks.backbones.model import build_backbone
from tasks.backbones.spec import BackboneSpec
from tasks.tracking.fusion import Fusion, draw
from tasks.tracking.options import FusionOptions
from tasks.tracking.positions import Grid

Prediction = tuple[Tensor, Tensor]
"""Scores (n, rows, columns) from 0 to 1, and boxes (n, rows, columns, 4): centre x, centre y, width and height as parts
of the search region's sides; one of each for every token of the search region."""


class Head(nn.Module):
    """Two MLPs of three layers: the score of each token, and its box."""

    def __init__(self, width: int, std: float) -> None:
        super().__init__()
        self.score, self.box = _mlp(width, 1), _mlp(width, 4)
        draw(self, std)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(n, tokens, width) -> (n, tokens), (n, tokens, 4), in fp32: in bf16 a score near 1 would be 1."""
        return self.score(tokens).float().sigmoid()[..., 0], self.box(tokens).float().sigmoid()


def _mlp(width: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, out))


def level_of(backbone: nn.Module, stride: int) -> int:
    """The last level of this stride. Raises ValueError when there is none."""
    strides = [level.stride for level in feature_info(backbone)]
    if stride not in strides:
        known = ", ".join(map(str, sorted(set(strides))))
        raise ValueError(
            f"task.stride {stride}: the backbone has feature maps of stride {known} (pixels); use one of them"
        )
    return len(strides) - 1 - strides[::-1].index(stride)


def level_in(spec: BackboneSpec, stride: int) -> int:
    """The same of a backbone that is not built yet."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):  # random numbers stay those of the model itself
        return level_of(build_backbone(spec, any_size=True), stride)


class TrackingModel(nn.Module):
    """Template (n, 3, t, t) and search region (n, 3, s, s) -> a score and a box for each token of the search region.

    The norm of the feature map is the model's own, as SwinTrack has it, and does not come with the backbone's weights.
    """

    origin: Tensor
    """(rows, columns, 4): what is added to the boxes that the head gives."""

    def __init__(self, backbone: nn.Module, stride: int, template: int, search: int, options: FusionOptions) -> None:
        """`backbone`: one that ends at `level_of` it. `stride`: of the feature map that is taken. `template`, `search`:
        sides of the two crops in pixels.

        Raises ValueError for a stride that the backbone does not have.
        """
        super().__init__()
        self.backbone, self._level = backbone, level_of(backbone, stride)
        channels, width = feature_info(backbone)[self._level].channels, options.width
        grids: list[Grid] = [(side // stride, side // stride) for side in (template, search)]
        self.norm = nn.LayerNorm(channels)
        alike = channels == width
        self.template_projection, self.search_projection = (
            nn.Identity() if alike else nn.Linear(channels, width) for _ in grids
        )
        for projection in (self.template_projection, self.search_projection):
            draw(projection, options.init_std)
        self.fusion = Fusion(options, *grids)
        self.head = Head(width, options.init_std)
        self.grid = grids[1]
        """(rows, columns) of the search region's tokens."""
        self.register_buffer("origin", _origin(self.grid, options.box_from == "token"), persistent=False)
        self.template_side, self.search_side = template, search

    def forward(
        self,
        templates: Tensor | None = None,
        searches: Tensor | None = None,
        tokens: Tensor | None = None,
        drop: bool = False,
    ) -> Prediction | Tensor:
        """The prediction; without `searches` the tokens of the templates, which a tracker keeps and gives as `tokens`.
        `drop`: the fusion drops paths (it does so in training mode alone)."""
        if tokens is None:
            assert templates is not None
            tokens = self.template_projection(self._tokens(templates))
        if searches is None:
            return cast("Tensor", tokens)
        read = self.fusion(tokens, self.search_projection(self._tokens(searches)), drop)
        scores, boxes = self.head(read)
        return scores.unflatten(1, self.grid), boxes.unflatten(1, self.grid) + self.origin

    def _tokens(self, images: Tensor) -> Tensor:
        """(n, tokens, channels), row by row."""
        (features,) = feature_maps(self.backbone, images, [self._level])
        return cast("Tensor", self.norm(features.flatten(2).transpose(1, 2)))


def _origin(grid: Grid, token: bool) -> Tensor:
    """With `token` a head that gives 0.5 as the middle of a box means that of its token; else zeros."""
    origin = torch.zeros(*grid, 4)
    if token:
        rows, columns = ((torch.arange(length) + 0.5) / length - 0.5 for length in grid)
        origin[..., 0], origin[..., 1] = columns, rows[:, None]
    return origin


def hann_window(grid: Grid) -> Tensor:
    """(rows, columns), 1 in the middle and 0 at the edges."""
    rows, columns = (torch.hann_window(length, periodic=False) for length in grid)
    return torch.outer(rows, columns)
