"""Mask2Former: transformers' decoders over the maps of a backbone, and its loss, a sum over images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Mask2FormerConfig
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerLoss,
    Mask2FormerPixelDecoder,
    Mask2FormerPreTrainedModel,
    Mask2FormerTransformerModule,
)

from tasks.backbones.map_pyramid import PyramidMaps
from tasks.datasets.class_maps.types import IGNORED
from tasks.segmentation.options import Mask2FormerOptions

TERMS = ("class", "mask", "dice")


class _Decoders(Mask2FormerPreTrainedModel):
    """What follows the backbone, with transformers' initial weights."""

    def __init__(self, config: Mask2FormerConfig, channels: Sequence[int]) -> None:
        super().__init__(config)
        self.pixels = Mask2FormerPixelDecoder(config, feature_channels=list(channels))
        self.queries = Mask2FormerTransformerModule(in_features=config.feature_size, config=config)
        self.classes = nn.Linear(config.hidden_dim, config.num_labels + 1)
        self.post_init()

    def no_weight_decay(self) -> set[str]:
        """Embeddings of queries and levels, as in the public code (besides norms)."""
        return {f"{name}.weight" for name, part in self.named_modules() if isinstance(part, nn.Embedding)}

    def forward(self, maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Of every decoder layer, the last one last: classes (n, queries, classes + 1), masks (n, queries, h, w)."""
        pixels = self.pixels(maps, output_hidden_states=False, output_attentions=False, return_dict=True)
        found = self.queries(
            multi_scale_features=pixels.multi_scale_features, mask_features=pixels.mask_features,
            output_hidden_states=True, output_attentions=False,
        )  # fmt: skip
        classes = [self.classes(each.transpose(0, 1)) for each in found.intermediate_hidden_states]
        return classes, list(found.masks_queries_logits)


class Mask2Former(nn.Module):
    """With maps the terms of the loss, without them scores of classes.

    The loss is transformers' of every image alone, with points of its own: so neither the number of workers nor the
    micro-batch changes it. The matcher there draws points for a whole batch.
    """

    def __init__(self, maps: PyramidMaps, classes: int, options: Mask2FormerOptions) -> None:
        """Raises ValueError for maps of fewer than three strides."""
        super().__init__()
        if len(maps.strides) < 3:
            raise ValueError(
                f"Mask2Former takes maps of at least three strides, and this backbone has {len(maps.strides)}; use one "
                "with more stages, or task.decoder upernet"
            )
        self.maps, self._options, self._classes = maps, options, classes
        config = Mask2FormerConfig(
            num_labels=classes, feature_size=options.channels, mask_feature_size=options.channels,
            hidden_dim=options.channels, encoder_feedforward_dim=options.encoder_feed_forward,
            dim_feedforward=options.feed_forward, encoder_layers=options.encoder_layers,
            decoder_layers=options.decoder_layers + 1,  # transformers counts the prediction before the first layer
            num_attention_heads=options.attention_heads, num_queries=options.queries, train_num_points=options.points,
            class_weight=options.class_weight, mask_weight=options.mask_weight, dice_weight=options.dice_weight,
            no_object_weight=options.no_object, feature_strides=list(maps.strides), common_stride=maps.strides[0],
        )  # fmt: skip
        self.decoders = _Decoders(config, maps.channels)
        self.criterion = Mask2FormerLoss(config, weight_dict={})

    def forward(self, images: Tensor, truth: Tensor | None = None, seeds: Sequence[int] = ()) -> Any:
        """`images` (n, 3, h, w). With `truth` (n, h, w) and `seeds`, one for each image, the terms by name, each a sum;
        else (n, classes, h, w)."""
        classes, masks = self.decoders(self.maps(images))
        if truth is None:
            return _semantic(classes[-1], masks[-1], images)
        with torch.autocast(images.device.type, enabled=False):
            return self._terms(classes, masks, truth, seeds)

    def _terms(
        self, classes: list[Tensor], masks: list[Tensor], truth: Tensor, seeds: Sequence[int]
    ) -> dict[str, Tensor]:
        """The sum over images and layers of each term, with its weight. The layers of an image are a batch to
        transformers' loss: one image and all its layers at once."""
        options, criterion = self._options, self.criterion
        sums = {name: truth.new_zeros((), dtype=torch.float32) for name in TERMS}
        images = (torch.stack(each, 1).float().unbind() for each in (classes, masks))  # one tensor in the backward pass
        layers = len(classes)
        for own, shapes, labels, seed in zip(*images, truth, seeds, strict=True):
            present = classes_in(labels)
            names = [present] * layers
            wanted = [(labels[None] == present[:, None, None]).float()] * layers
            with drawn_from(seed, labels.device):
                matched = criterion.matcher(shapes, own, wanted, names)
                of_masks = criterion.loss_masks(shapes, wanted, matched, 1) if len(present) else None
            weights = layers * _class_weights(len(present), options)  # it gives their weighted mean
            of_classes = criterion.loss_labels(own, names, matched)["loss_cross_entropy"]
            sums["class"] = sums["class"] + options.class_weight * weights * of_classes
            if of_masks is None:
                sums["mask"] = sums["mask"] + 0 * shapes.sum()  # every parameter keeps a gradient
                continue
            sums["mask"] = sums["mask"] + options.mask_weight * of_masks["loss_mask"]
            sums["dice"] = sums["dice"] + options.dice_weight * of_masks["loss_dice"]
        return sums


def denominators(maps: Tensor, options: Mask2FormerOptions) -> Mapping[str, float]:
    """What each term is divided by: masks, and the weights of queries. `maps` (n, h, w)."""
    counts = [len(classes_in(each)) for each in maps]
    masks = float(sum(counts))
    return {"class": sum(_class_weights(each, options) for each in counts), "mask": masks, "dice": masks}


def classes_in(labels: Tensor) -> Tensor:
    """(k,) int64: the classes of a map (h, w), in ascending order."""
    present = torch.unique(labels).long()
    kept: Tensor = present[present != IGNORED]
    return kept


def _class_weights(present: int, options: Mask2FormerOptions) -> float:
    """The weights of an image's queries, of which as many as there are masks stand for something."""
    matched = min(present, options.queries)
    return matched + options.no_object * (options.queries - matched)


@contextmanager
def drawn_from(seed: int, device: torch.device) -> Iterator[None]:
    """What is drawn follows from the seed alone, and the global generators are left as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _semantic(classes: Tensor, masks: Tensor, images: Tensor) -> Tensor:
    """(n, classes, h, w): for every class the sum over queries of its probability times that of the query's mask."""
    masks = functional.interpolate(masks.float(), images.shape[-2:], mode="bilinear", align_corners=False)
    probabilities = classes.float().softmax(-1)[..., :-1]
    return torch.einsum("nqc,nqhw->nchw", probabilities, masks.sigmoid())
