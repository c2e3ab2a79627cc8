"""UperNet and Mask2Former over timm backbones: beside transformers' own models, and what their losses depend on."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from segmentation_trials import MASK2FORMER, SWIN, UPERNET
from torch import Tensor, nn

from tasks.backbones.map_pyramid import PyramidMaps, levels_in
from tasks.backbones.model import build_backbone
from tasks.backbones.spec import BackboneSpec
from tasks.datasets.class_maps.types import IGNORED
from tasks.segmentation.options import Mask2FormerOptions, UperNetOptions
from workers.layer_decay import no_weight_decay

transformers = pytest.importorskip("transformers")
from tasks.segmentation import mask2former, upernet  # noqa: E402 (they import it)

PYRAMID = BackboneSpec.model_validate(SWIN)
VIT = BackboneSpec(model="vit_tiny_patch16_224", image_size=32, args={"embed_dim": 16, "depth": 2, "num_heads": 2})
RESNET = BackboneSpec(model="resnet10t", image_size=32)
HEADS = UperNetOptions(**UPERNET)
QUERIES = Mask2FormerOptions(**MASK2FORMER)
SEEDS = [5, 6, 7, 8]
backbones = pytest.mark.parametrize("spec", [PYRAMID, VIT, RESNET], ids=["swin", "vit", "resnet"])


def maps_of(spec: BackboneSpec = PYRAMID, any_size: bool = False) -> PyramidMaps:
    torch.manual_seed(0)
    levels = levels_in(spec)
    return PyramidMaps(build_backbone(spec, levels=levels, any_size=any_size), levels, level_norm=True)


def batch() -> tuple[Tensor, Tensor]:
    """Four images and their maps of three classes, one without any."""
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(4, 3, 32, 32, generator=generator)
    truth = torch.randint(0, 3, (4, 32, 32), generator=generator).to(torch.uint8)
    truth[0, :9] = IGNORED
    truth[1][truth[1] == 2] = 0
    truth[3] = IGNORED
    return images, truth


def divided(terms: Mapping[str, Tensor], below: Mapping[str, Any]) -> Tensor:
    assert set(terms) == set(below)
    return sum((term / (float(below[name]) or 1) for name, term in terms.items()), torch.zeros(()))


class _Encoder(nn.Module):
    """Our maps as transformers' models take them."""

    def __init__(self, maps: PyramidMaps) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, images: Tensor) -> Any:
        return SimpleNamespace(feature_maps=self.maps(images), hidden_states=None, attentions=None)

    def forward_with_filtered_kwargs(self, images: Tensor, **other: Any) -> Any:
        return self(images)


def its_config() -> Any:
    """Of a backbone that is replaced."""
    return transformers.Swinv2Config(
        image_size=32, embed_dim=8, depths=[1, 1, 1], num_heads=[1, 2, 4], window_size=2,
        out_features=["stage1", "stage2", "stage3"],
    )  # fmt: skip


def test_upernet_is_that_of_transformers() -> None:
    ours = upernet.UperNet(maps_of(), 3, HEADS.model_copy(update={"averaged_over": "labelled"})).eval()
    config = transformers.UperNetConfig(
        backbone_config=its_config(), num_labels=3, hidden_size=16, auxiliary_channels=8, auxiliary_in_channels=16
    )
    theirs = transformers.UperNetForSemanticSegmentation(config).eval()
    theirs.backbone = _Encoder(ours.maps)
    theirs.decode_head, theirs.auxiliary_head = ours.heads.decode_head, ours.heads.auxiliary_head
    images, truth = batch()
    wanted = theirs(images, labels=truth.long())
    torch.testing.assert_close(ours(images), wanted.logits)
    labelled = ours._options
    torch.testing.assert_close(divided(ours(images, truth), upernet.denominators(truth, labelled)), wanted.loss)


def test_upernets_loss_over_all_pixels_is_mmsegmentations() -> None:
    """Which takes the mean of a loss that is 0 where the class is ignored."""
    model = upernet.UperNet(maps_of(), 3, HEADS.model_copy(update={"auxiliary_weight": 0.0})).eval()
    images, truth = batch()
    each = nn.functional.cross_entropy(model(images), truth.long(), ignore_index=IGNORED, reduction="none")
    below = upernet.denominators(truth, model._options)
    torch.testing.assert_close(divided(model(images, truth), below), each.mean())


def test_upernets_dropout_takes_whole_channels_of_both_heads_in_training() -> None:
    """As mmsegmentation; the names of the weights stay. The loop draws for layers of this type alone."""
    torch.manual_seed(0)
    model = upernet.UperNet(maps_of(), 3, HEADS.model_copy(update={"dropout": 0.5})).eval()
    plain = upernet.UperNet(maps_of(), 3, HEADS).eval()
    plain.load_state_dict(model.state_dict())
    images, truth = batch()
    torch.testing.assert_close(model(images), plain(images))
    heads = (model.heads.decode_head, model.heads.auxiliary_head)
    assert [sum(type(part) is nn.Dropout2d for part in head.modules()) for head in heads] == [1, 1]
    for head in heads:
        head.classifier.train()
        ones = torch.ones(4, head.classifier.in_channels, 5, 5)
        kept = head.classifier.dropout(ones)
        assert set(kept.unique().tolist()) == {0.0, 2.0}
        torch.testing.assert_close(kept, kept[..., :1, :1].expand_as(kept))
    dropped, whole = model(images, truth), plain(images, truth)
    assert all(not torch.isclose(dropped[name], whole[name]) for name in ("main", "auxiliary"))


def test_one_image_alone_is_refused_by_upernet_in_training() -> None:
    model, (images, truth) = upernet.UperNet(maps_of(), 3, HEADS), batch()
    model.eval()(images[:1], truth[:1])
    with pytest.raises(ValueError, match=r"needs two images or more .* optim\.micro_batch"):
        model.train()(images[:1], truth[:1])
    torch.nn.SyncBatchNorm.convert_sync_batchnorm(model.heads)
    pooled = model.heads.decode_head.psp_modules.blocks[0].layers[1].batch_norm
    assert isinstance(pooled, nn.SyncBatchNorm), (
        "transformers keeps its blocks in lists too, whose modules are the same"
    )


def test_mask2former_is_that_of_transformers() -> None:
    ours = mask2former.Mask2Former(maps_of(), 3, QUERIES).eval()
    settings = ours.decoders.config.to_dict()
    settings["backbone_config"] = its_config()
    theirs = transformers.Mask2FormerForUniversalSegmentation(transformers.Mask2FormerConfig(**settings)).eval()
    theirs.model.pixel_level_module.encoder = _Encoder(ours.maps)
    theirs.model.pixel_level_module.decoder = ours.decoders.pixels
    theirs.model.transformer_module, theirs.class_predictor = ours.decoders.queries, ours.decoders.classes
    images, _ = batch()
    found = theirs(images, output_auxiliary_logits=True)
    classes, masks = ours.decoders(ours.maps(images))
    torch.testing.assert_close(classes[-1], found.class_queries_logits)
    torch.testing.assert_close(masks[-1], found.masks_queries_logits)
    assert len(classes) == len(found.auxiliary_logits) + 1 == QUERIES.decoder_layers + 1


def test_mask2formers_loss_is_that_of_transformers() -> None:
    """For one image and one layer, where both draw the same points."""
    model = mask2former.Mask2Former(maps_of(), 3, QUERIES).eval()
    images, truth = (each[:1] for each in batch())
    classes, masks = model.decoders(model.maps(images))
    present = mask2former.classes_in(truth[0])
    labels = (truth[0][None] == present[:, None, None]).float()
    with mask2former.drawn_from(5, images.device):
        wanted = model.criterion(masks[-1], classes[-1], [labels], [present])
    terms = model._terms([classes[-1]], [masks[-1]], truth, [5])
    below = mask2former.denominators(truth, QUERIES)
    weights = {"class": 2.0, "mask": 5.0, "dice": 5.0}
    names = {"class": "loss_cross_entropy", "mask": "loss_mask", "dice": "loss_dice"}
    for name, weight in weights.items():
        torch.testing.assert_close(terms[name] / below[name], weight * wanted[names[name]])


def test_mask2formers_loss_is_the_sum_over_layers() -> None:
    """Of terms of each layer alone, but for the points that are drawn: of these there are many."""
    options = QUERIES.model_copy(update={"points": 12_544})
    model = mask2former.Mask2Former(maps_of(), 3, options).eval()
    images, truth = batch()
    classes, masks = model.decoders(model.maps(images))
    classes = [scale * each for scale, each in zip((1, 30, 60), classes, strict=True)]  # matched without a doubt
    whole = model._terms(classes, masks, truth, SEEDS)
    alone = [model._terms([own], [shape], truth, SEEDS) for own, shape in zip(classes, masks, strict=True)]
    for name, term in whole.items():
        together = torch.stack([each[name] for each in alone]).sum()
        torch.testing.assert_close(term, together, rtol=0.02, atol=0)


def test_mask2formers_scores_are_those_of_its_public_code() -> None:
    """Probabilities of classes, without that of nothing, times those of masks, summed over queries."""
    model = mask2former.Mask2Former(maps_of(), 3, QUERIES).eval()
    images, _ = batch()
    classes, masks = model.decoders(model.maps(images))
    large = nn.functional.interpolate(masks[-1], (32, 32), mode="bilinear", align_corners=False).sigmoid()
    wanted = sum(
        classes[-1][:, query].softmax(-1)[:, :3, None, None] * large[:, query, None] for query in range(QUERIES.queries)
    )
    torch.testing.assert_close(model(images), wanted)


def test_mask2formers_embeddings_and_norms_have_no_weight_decay() -> None:
    """As in its public code; nor has what timm spares of the backbone."""
    model = mask2former.Mask2Former(maps_of(), 3, QUERIES)
    spared = no_weight_decay(model, "timm")
    of_two_dimensions = {name for name in spared if model.get_parameter(name).ndim > 1}
    inside = {name for name in of_two_dimensions if name.startswith("decoders.")}
    assert inside == {
        f"decoders.queries.{name}.weight" for name in ("queries_embedder", "queries_features", "level_embed")
    }
    assert any("cpb_mlp" in name for name in of_two_dimensions - inside)
    norms = {f"{name}.weight" for name, part in model.named_modules() if isinstance(part, nn.LayerNorm | nn.GroupNorm)}
    assert norms <= spared


def both() -> list[tuple[Any, Any, Any]]:
    return [
        (upernet.UperNet, upernet.denominators, HEADS),
        (mask2former.Mask2Former, mask2former.denominators, QUERIES),
    ]


decoders = pytest.mark.parametrize("decoder", both(), ids=["upernet", "mask2former"])


@decoders
def test_a_batch_is_the_sum_of_its_parts(decoder: tuple[Any, Any, Any]) -> None:
    kind, below, options = decoder
    model, (images, truth) = kind(maps_of(), 3, options).eval(), batch()
    whole, parts = model(images, truth, SEEDS), [slice(0, 1), slice(1, 4)]
    pieces = [model(images[part], truth[part], SEEDS[part]) for part in parts]
    for name, term in whole.items():
        torch.testing.assert_close(sum(piece[name] for piece in pieces), term)
        assert float(below(truth, options)[name]) == pytest.approx(
            sum(float(below(truth[part], options)[name]) for part in parts)
        )


@decoders
@backbones
def test_any_backbone_learns_with_every_weight(spec: BackboneSpec, decoder: tuple[Any, Any, Any]) -> None:
    kind, below, options = decoder
    model, (images, truth) = kind(maps_of(spec), 3, options), batch()
    assert model.eval()(images).shape == (4, 3, 32, 32)
    divided(model.train()(images, truth, SEEDS), below(truth, options)).backward()  # type: ignore[no-untyped-call]
    assert [name for name, each in model.named_parameters() if each.grad is None] == []
    assert all(torch.isfinite(each.grad).all() for each in model.parameters() if each.grad is not None)


def test_points_follow_from_the_seeds_alone() -> None:
    model, (images, truth) = mask2former.Mask2Former(maps_of(), 3, QUERIES).eval(), batch()
    state = torch.get_rng_state()
    first, again, other = (model(images, truth, seeds) for seeds in (SEEDS, SEEDS, [9, 10, 11, 12]))
    assert torch.equal(torch.get_rng_state(), state)
    assert first["mask"].item() == again["mask"].item() != other["mask"].item()


def test_losses_are_computed_in_32_bits_under_autocast() -> None:
    images, truth = batch()
    for kind, _, options in both():
        model = kind(maps_of(), 3, options).eval()
        full = model(images, truth, SEEDS)
        with torch.autocast("cpu", torch.bfloat16):
            half = model(images, truth, SEEDS)
        assert {term.dtype for term in half.values()} == {torch.float32}
        for name, term in full.items():
            torch.testing.assert_close(half[name], term, rtol=0.1, atol=0.5)


def test_mask2former_takes_images_of_other_sizes() -> None:
    model = mask2former.Mask2Former(maps_of(any_size=True), 3, QUERIES).eval()
    assert model(torch.randn(1, 3, 32, 96)).shape == (1, 3, 32, 96)


def test_two_strides_are_too_few_for_mask2former() -> None:
    small = PYRAMID.model_copy(update={"args": {**PYRAMID.args, "depths": [1, 1], "num_heads": [1, 2]}})
    with pytest.raises(ValueError, match=r"at least three strides, and this backbone has 2; .* task\.decoder upernet"):
        mask2former.Mask2Former(maps_of(small), 3, QUERIES)
