"""torchvision's Mask R-CNN over the feature pyramid of a backbone, for images that are padded to one square."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import LevelMapper

from tasks.detection.options import DetectorOptions
from tasks.detection.pyramid import Pyramid
from tasks.detection.sampling import SeededSampler

Target = dict[str, Tensor]
"""Of one image: `boxes` (k, 4) left, top, right, bottom in pixels of the input, `labels` (k,) from 1 on, `masks`
(k, h, w) uint8."""
TERMS = {
    "loss_objectness": "rpn_class", "loss_rpn_box_reg": "rpn_box", "loss_classifier": "roi_class",
    "loss_box_reg": "roi_box", "loss_mask": "mask",
}  # fmt: skip
"""torchvision's names of the terms of the loss, and ours."""
_BOX_SIDE, _MASK_SIDE = 7, 14
"""Positions along a side of what is pooled of a region for its class and box, and for its mask."""


class Detector(nn.Module):
    """With targets the terms of the loss, without them what is found in every image.

    Differs from torchvision.models.detection.MaskRCNN in what it is given, images of one size, and so:
    - the scales of the maps follow from strides; torchvision guesses them from the largest image of the first batch,
      which large-scale jitter makes small at times, and keeps them;
    - anchors, boxes and losses are computed in 32 bits under autocast; torchvision takes the precision of the maps, in
      which bfloat16 has no odd number above 256;
    - what is sampled of an image follows from a seed of its own.
    """

    def __init__(self, pyramid: Pyramid, classes: int, options: DetectorOptions) -> None:
        """`classes`: without background."""
        super().__init__()
        self.pyramid = pyramid
        width, strides = options.channels, pyramid.strides
        with_pool = [*strides, 2 * strides[-1]]
        anchors = AnchorGenerator(
            tuple((options.anchor_scale * stride,) for stride in with_pool), (options.anchor_ratios,) * len(with_pool)
        )
        best = {"training": options.proposals_per_level, "testing": max(1, options.proposals_per_level // 2)}
        kept = dict.fromkeys(("training", "testing"), options.proposals)
        self.rpn = RegionProposalNetwork(
            anchors, _Proposing(width, anchors.num_anchors_per_location()[0]),
            fg_iou_thresh=0.7, bg_iou_thresh=0.3, batch_size_per_image=options.anchors, positive_fraction=0.5,
            pre_nms_top_n=best, post_nms_top_n=kept, nms_thresh=0.7,
        )  # fmt: skip
        mask_width = options.mask_channels
        self.roi_heads = RoIHeads(
            _pooling(strides, _BOX_SIDE), TwoMLPHead(width * _BOX_SIDE**2, options.box_channels),
            _Predicting(options.box_channels, classes + 1),
            fg_iou_thresh=0.5, bg_iou_thresh=0.5, batch_size_per_image=options.regions, positive_fraction=0.25,
            bbox_reg_weights=None, score_thresh=options.score, nms_thresh=options.suppression,
            detections_per_img=options.detections, mask_roi_pool=_pooling(strides, _MASK_SIDE),
            mask_head=MaskRCNNHeads(width, (mask_width,) * 4, 1),
            mask_predictor=_Masking(mask_width, mask_width, classes + 1),
        )  # fmt: skip
        self._samplers = [
            SeededSampler(options.anchors, 0.5), SeededSampler(options.regions, 0.25),
        ]  # fmt: skip
        self.rpn.fg_bg_sampler, self.roi_heads.fg_bg_sampler = self._samplers

    def forward(
        self,
        images: Tensor,
        sizes: Sequence[tuple[int, int]],
        targets: Sequence[Target] | None = None,
        seeds: Sequence[int] = (),
    ) -> Any:
        """`images` (n, 3, h, w); `sizes`: height and width of each without its padding. With `targets` (and `seeds`,
        one for each image) the terms by name; else for each image `boxes` (k, 4), `labels` (k,) from 1 on, `scores`
        (k,) and `masks` (k, 1, 28, 28), probabilities within the box."""
        training = targets is not None
        for part in (self.rpn, self.roi_heads):
            part.train(training)  # says what is computed; no layer inside depends on it
        for sampler in self._samplers:
            sampler.seeds = seeds
        maps = {name: each.float() for name, each in self.pyramid(images).items()}
        shapes, wanted = list(sizes), None if targets is None else list(targets)
        proposals, first = self.rpn(ImageList(images, shapes), maps, wanted)
        found, second = self.roi_heads(maps, proposals, shapes, wanted)
        if training:
            return {name: {**first, **second}[theirs] for theirs, name in TERMS.items()}
        return found


class _Proposing(RPNHead):
    """Gives 32-bit numbers under autocast."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        scores, boxes = super().forward(x)
        return [each.float() for each in scores], [each.float() for each in boxes]


class _Predicting(FastRCNNPredictor):
    """Gives 32-bit numbers under autocast."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores, boxes = super().forward(x)
        return scores.float(), boxes.float()


class _Masking(MaskRCNNPredictor):
    """Gives 32-bit numbers under autocast."""

    def forward(self, input: Tensor) -> Tensor:
        out: Tensor = super().forward(input)
        return out.float()


def _pooling(strides: Sequence[int], side: int) -> MultiScaleRoIAlign:
    """Regions from the maps of these strides: one of 224 pixels from that of stride 16 (Lin et al. 2017, eq. 1)."""
    pooling = MultiScaleRoIAlign([str(i) for i in range(len(strides))], output_size=side, sampling_ratio=2)
    fixed = cast("Any", pooling)
    fixed.scales = [1 / stride for stride in strides]
    finest, coarsest = (stride.bit_length() - 1 for stride in (strides[0], strides[-1]))
    fixed.map_levels = LevelMapper(finest, coarsest, canonical_scale=224, canonical_level=4)
    return pooling
