"""The loss of a tracker: varifocal loss of the scores and GIoU loss of the boxes, weighted as SwinTrack has it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy
from torchvision.ops import box_convert

LEAST_OVERLAP = 1e-6
"""A positive whose predicted box does not meet the annotated one has this as its target, and so almost no weight."""
EPS = 1e-6
"""Least denominator of an overlap."""


def overlaps(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU (Rezatofighi et al. 2019) of boxes (n, 4): left, top, right, bottom."""
    areas = [(boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(-1) for boxes in (first, second)]
    met = (torch.minimum(first[:, 2:], second[:, 2:]) - torch.maximum(first[:, :2], second[:, :2])).clamp(min=0)
    inter = met.prod(-1)
    union = (areas[0] + areas[1] - inter).clamp(min=EPS)
    iou = inter / union
    around = torch.maximum(first[:, 2:], second[:, 2:]) - torch.minimum(first[:, :2], second[:, :2])
    hull = around.clamp(min=0).prod(-1).clamp(min=EPS)
    return iou, iou - (hull - union) / hull


def varifocal_sum(scores: Tensor, quality: Tensor, alpha: float, gamma: float) -> Tensor:
    """Varifocal loss (Zhang et al. 2021), summed. `scores`: from 0 to 1. `quality`: what the score of a positive should
    be; 0 for all others, which weigh alpha * score ** gamma."""
    weight = torch.where(quality > 0, quality, alpha * (scores - quality).abs() ** gamma)
    with torch.autocast(scores.device.type, enabled=False):  # which refuses this function, though all is in fp32
        return (binary_cross_entropy(scores, quality, reduction="none") * weight).sum()


def tracking_sums(
    scores: Tensor, boxes: Tensor, truth: Tensor, positive: Tensor, alpha: float, gamma: float
) -> tuple[Tensor, Tensor]:
    """Varifocal and GIoU loss, both summed as over positives: divided by their number they are those of SwinTrack.

    `scores` (n, rows, columns), `boxes` (n, rows, columns, 4) as the model predicts them; `truth` (n, 4): left, top,
    right, bottom; `positive` as the scores. Targets of positives are the overlaps of the predicted boxes. The GIoU loss
    is a mean weighted by the scores, to which no gradient flows.
    """
    scores, boxes = scores.float(), boxes.float()
    predicted = box_convert(boxes[positive], "cxcywh", "xyxy")
    wanted = truth.float()[:, None, None].expand(boxes.shape)[positive]
    iou, giou = overlaps(predicted, wanted)
    quality = torch.zeros_like(scores)
    quality[positive] = iou.detach().clamp(min=LEAST_OVERLAP)
    weights = scores.detach()[positive]
    mean = ((1 - giou) * weights).sum() / weights.sum().clamp(min=1e-5)
    return varifocal_sum(scores, quality, alpha, gamma), mean * positive.sum()
