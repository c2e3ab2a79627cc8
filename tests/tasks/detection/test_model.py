"""Mask R-CNN over timm backbones: what it is built from, its losses beside torchvision's, and what these depend on."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import object_trees as trees
import pytest
import torch
from torch import nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign

from tasks.backbones.map_pyramid import levels_in
from tasks.backbones.model import build_backbone
from tasks.backbones.spec import BackboneSpec
from tasks.detection.model import TERMS, Detector
from tasks.detection.options import DetectorOptions
from tasks.detection.pyramid import Pyramid

SMALL = DetectorOptions.model_validate(trees.SMALL)
SWIN = BackboneSpec.model_validate(trees.SWIN)
VIT = BackboneSpec(model="vit_tiny_patch16_224", image_size=64, args={"embed_dim": 16, "depth": 2, "num_heads": 2})
RESNET = BackboneSpec(model="resnet10t", image_size=64)


def detector(spec: BackboneSpec, options: DetectorOptions = SMALL) -> Detector:
    levels = levels_in(spec)
    body = build_backbone(spec, levels=levels)
    return Detector(Pyramid(body, levels, options.channels, options.level_norm), 3, options)


def batch(count: int = 2) -> tuple[torch.Tensor, list[tuple[int, int]], list[dict[str, torch.Tensor]], list[int]]:
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(count, 3, 64, 64, generator=generator)
    sizes = [(64, 48), (40, 64), (64, 64)][:count]
    targets = []
    for _ in range(count):
        boxes = torch.tensor([[4.0, 3.0, 28.0, 20.0], [2.0, 10.0, 20.0, 30.0]])
        masks = torch.zeros(2, 64, 64, dtype=torch.uint8)
        for each, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
            each[top:bottom, left:right] = 1
        targets.append({"boxes": boxes, "labels": torch.tensor([1, 3]), "masks": masks})
    return images, sizes, targets, list(range(count))


@pytest.mark.parametrize(
    ("spec", "strides"),
    [(SWIN, [4, 8]), (VIT, [4, 8, 16, 32]), (RESNET, [4, 8, 16, 32])],
    ids=["swin", "vit", "resnet"],
)
def test_any_backbone_learns_and_finds(spec: BackboneSpec, strides: list[int]) -> None:
    torch.manual_seed(0)
    model = detector(spec)
    assert model.pyramid.strides == strides
    images, *others = batch()
    terms = model(images, *others)
    assert list(terms) == list(TERMS.values())
    torch.stack(list(terms.values())).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    with torch.no_grad():
        found = model.eval()(images, others[0])
    for each, (height, width) in zip(found, others[0], strict=True):
        assert each["masks"].shape == (len(each["boxes"]), 1, 28, 28)
        assert len(each["boxes"]) == 0 or each["boxes"].amax(0)[2:].tolist() <= [width, height]


@pytest.mark.parametrize(
    "model", ["swinv2_tiny_window8_256", "vit_tiny_patch16_224", "convnext_atto", "resnet18", "beit_base_patch16_224"]
)
def test_models_are_built_without_memory(model: str) -> None:
    spec = BackboneSpec(model=model, image_size=256 if model.startswith("swin") else 224)
    with torch.device("meta"):
        built = detector(spec)
    assert all(parameter.is_meta for parameter in built.parameters())


def test_a_backbone_without_fitting_maps_is_refused() -> None:
    spec = BackboneSpec(
        model="vit_tiny_patch16_224",
        image_size=56,
        args={"patch_size": 14, "embed_dim": 16, "depth": 1, "num_heads": 2},
    )
    with pytest.raises(ValueError, match="feature maps of stride 14, and a pyramid of maps needs powers of two"):
        levels_in(spec)


class _Given(nn.Module):
    """The pyramid of a detector, as torchvision's Mask R-CNN takes backbones."""

    def __init__(self, pyramid: Pyramid) -> None:
        super().__init__()
        self.pyramid, self.out_channels = pyramid, pyramid.out_channels

    def forward(self, images: torch.Tensor) -> OrderedDict[str, torch.Tensor]:
        return OrderedDict(self.pyramid(images))


class _AsItIs(nn.Module):
    """Takes images as they are, in the place of torchvision's resizing."""

    def forward(self, images: Any, targets: Any = None) -> Any:
        return ImageList(torch.stack(images), [tuple(image.shape[1:]) for image in images]), targets

    def postprocess(self, found: Any, sizes: Any, originals: Any) -> Any:
        return found


def test_losses_and_detections_are_those_of_torchvision() -> None:
    """With the same weights, and images without padding, and as many samples as there are candidates."""
    options = SMALL.model_copy(update={"anchors": 5000, "regions": 200, "score": 0.0})
    torch.manual_seed(0)
    ours = detector(SWIN, options)
    anchors = AnchorGenerator(tuple((4.0 * stride,) for stride in (4, 8, 16)), ((0.5, 1.0, 2.0),) * 3)
    theirs = MaskRCNN(
        _Given(ours.pyramid), None, rpn_anchor_generator=anchors,
        rpn_pre_nms_top_n_train=60, rpn_pre_nms_top_n_test=30, rpn_post_nms_top_n_train=30, rpn_post_nms_top_n_test=30,
        rpn_batch_size_per_image=5000, box_batch_size_per_image=200, box_score_thresh=0.0,
        box_head=TwoMLPHead(8 * 49, 16), box_predictor=FastRCNNPredictor(16, 4),
        mask_head=MaskRCNNHeads(8, (8,) * 4, 1), mask_predictor=MaskRCNNPredictor(8, 8, 4),
        box_roi_pool=MultiScaleRoIAlign(["0", "1"], 7, 2), mask_roi_pool=MultiScaleRoIAlign(["0", "1"], 14, 2),
    )  # fmt: skip
    theirs.transform = _AsItIs()
    theirs.rpn.load_state_dict(ours.rpn.state_dict())
    theirs.roi_heads.load_state_dict(ours.roi_heads.state_dict())
    images, _, targets, seeds = batch()
    sizes = [(64, 64)] * 2
    own = ours(images, sizes, targets, seeds)
    wanted = theirs.train()(list(images), targets)
    for name, term in TERMS.items():
        torch.testing.assert_close(own[term], wanted[name])
    theirs.eval()
    with torch.no_grad():
        found = ours.eval()(images, sizes)
        others = theirs(list(images))
    for mine, other in zip(found, others, strict=True):
        assert len(mine["boxes"]) == len(other["boxes"]) > 0
        for name in ("boxes", "scores", "labels", "masks"):
            torch.testing.assert_close(mine[name], other[name])


def test_what_is_sampled_of_an_image_follows_from_its_seed_alone() -> None:
    torch.manual_seed(0)
    model = detector(SWIN).eval()
    images, sizes, targets, _ = batch()
    state = torch.get_rng_state()
    first = model(images, sizes, targets, [7, 8])
    assert torch.equal(torch.get_rng_state(), state)
    again = model(images, sizes, targets, [7, 8])
    assert {name: term.item() for name, term in first.items()} == {name: term.item() for name, term in again.items()}
    other = model(images, sizes, targets, [9, 10])
    assert other["rpn_class"].item() != first["rpn_class"].item()
    # of each image the same whatever comes with it: the mean over the batch is that of the images
    alone = [model(images[i : i + 1], sizes[i : i + 1], targets[i : i + 1], [7 + i]) for i in range(2)]
    torch.testing.assert_close(sum(each["rpn_class"] for each in alone) / 2, first["rpn_class"])


def test_small_images_of_a_first_batch_do_not_change_scales() -> None:
    """torchvision takes the scale of the maps from the largest image of the first batch."""
    torch.manual_seed(0)
    one = detector(SWIN).eval()
    images, _, _targets, _seeds = batch()
    small = [(32, 32)] * 2
    with torch.no_grad():
        one(images, small)
        after = one(images, [(64, 64)] * 2)
        torch.manual_seed(0)
        fresh = detector(SWIN).eval()(images, [(64, 64)] * 2)
    for mine, other in zip(after, fresh, strict=True):
        torch.testing.assert_close(mine["scores"], other["scores"])


def test_boxes_keep_their_precision_under_autocast() -> None:
    torch.manual_seed(0)
    model = detector(SWIN)
    seen: list[torch.Tensor] = []
    head = model.rpn.anchor_generator.register_forward_hook(lambda module, given, anchors: seen.extend(anchors))
    images, sizes, targets, seeds = batch()
    with torch.autocast("cpu", torch.bfloat16):
        terms = model(images, sizes, targets, seeds)
    head.remove()
    assert {anchors.dtype for anchors in seen} == {torch.float32}
    assert {term.dtype for term in terms.values()} == {torch.float32}
    full = model(images, sizes, targets, seeds)
    for name, term in full.items():
        torch.testing.assert_close(terms[name], term, rtol=0.1, atol=0.02)


def test_images_without_objects_are_learnt_from() -> None:
    torch.manual_seed(0)
    model = detector(SWIN)
    images, sizes, _targets, seeds = batch()
    empty = {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0, dtype=torch.int64),
        "masks": torch.zeros(0, 64, 64, dtype=torch.uint8),
    }
    terms = model(images, sizes, [empty, empty], seeds)
    assert terms["roi_box"].item() == terms["mask"].item() == terms["rpn_box"].item() == 0
    assert all(torch.isfinite(term) for term in terms.values())
