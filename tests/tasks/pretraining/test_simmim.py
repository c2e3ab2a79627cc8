"""SimMIM against restatements of the reference's formulas that share no code with ours."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tasks.backbones.replknet  # noqa: F401 (makes its names known to timm)
from tasks.backbones.model import build
from tasks.backbones.spec import BackboneSpec
from tasks.pretraining.masking import Masking
from tasks.pretraining.simmim import SimMIM, hidden_l1, masked_l1, normalised_target

SIDE = 64
SWIN = {"embed_dim": 16, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 4, 8], "window_size": 4}
VIT = {"embed_dim": 32, "depth": 2, "num_heads": 2}
BEIT = {
    **VIT, "global_pool": "token", "init_values": 0.1,
    "use_abs_pos_emb": False, "use_rel_pos_bias": False, "use_shared_rel_pos_bias": True,
}  # fmt: skip
NO_TOKEN = {**VIT, "class_token": False, "global_pool": "avg", "fc_norm": False}
REPLKNET = {"layers": [1, 1, 1, 1], "channels": [8, 16, 16, 16], "kernels": [7, 5, 3, 3], "entry_channels": 8}
FAMILIES: dict[str, tuple[str, dict[str, Any], int, str]] = {
    "swinv2": ("swinv2_base_window12_192", SWIN, 32, "patch_embed"),
    "swin": ("swin_base_patch4_window7_224", SWIN, 32, "patch_embed"),
    "vit": ("vit_tiny_patch16_224", VIT, 16, "patch_embed"),
    "vit without class token": ("vit_tiny_patch16_224", NO_TOKEN, 16, "patch_embed"),
    "beit": ("beit_base_patch16_224", BEIT, 16, "patch_embed"),
    "beit with a bias per block": ("beit_base_patch16_224", {**VIT, "global_pool": "token"}, 16, "patch_embed"),
    "beit with positions": ("beit_base_patch16_224", {**BEIT, "use_abs_pos_emb": True}, 16, "patch_embed"),
    "replknet": ("replknet_31b_mim", REPLKNET, 32, "entry"),
}
"""Model, arguments, pixels that a vector of the last map stands for, and the module whose output is masked."""
each_family = pytest.mark.parametrize("family", FAMILIES)


def model(family: str, mask_patch: int = 16, **other: Any) -> SimMIM:
    torch.manual_seed(0)
    name, args, _, _ = FAMILIES[family]
    net = SimMIM(build(BackboneSpec(model=name, args={**args, **other}, image_size=SIDE), 0), SIDE, mask_patch)
    with torch.no_grad():  # a token and biases that cannot be mistaken for zero
        for name, parameter in net.named_parameters():
            if name == "mask_token" or name.endswith(("bias_table", "pos_embed")) or parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return net


def batch(mask_patch: int = 16, count: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    masking = Masking(SIDE, mask_patch, 0.6)
    masks = np.stack([masking.of(seed) for seed in range(count)])
    return torch.randn(count, 3, SIDE, SIDE, generator=generator), torch.from_numpy(masks)


def by_the_reference(net: SimMIM, family: str, images: Tensor, masks: Tensor) -> Tensor:
    """x * (1 - w) + token * w where the family's reference does it, through timm's own forward_features; the decoder
    as a matrix, and its pixels put in place one by one."""
    _, _, stride, where = FAMILIES[family]
    encoder: Any = net.encoder

    def replaced(_: nn.Module, __: Any, out: Tensor) -> Tensor:
        as_rows = out.flatten(2).transpose(1, 2) if where == "entry" else out.reshape(len(out), -1, out.shape[-1])
        side = math.isqrt(as_rows.shape[1])
        weight = masks.float().numpy().repeat(side // masks.shape[1], 1).repeat(side // masks.shape[2], 2)
        w = torch.from_numpy(weight).reshape(len(out), -1, 1)
        new = as_rows * (1 - w) + net.mask_token * w
        return new.transpose(1, 2).reshape(out.shape) if where == "entry" else new.reshape(out.shape)

    handle = encoder.get_submodule(where).register_forward_hook(replaced)
    features = encoder.forward_features(images)
    handle.remove()
    if features.ndim == 3:
        features = features[:, encoder.num_prefix_tokens :]
    elif where == "patch_embed":
        features = features.flatten(1, 2)  # Swin: the channels are last
    else:
        features = features.flatten(2).transpose(1, 2)
    weight, bias = dict(net.named_parameters())["decoder.0.weight"], dict(net.named_parameters())["decoder.0.bias"]
    values = features @ weight.flatten(1).T + bias  # (n, positions, stride * stride * 3)
    side = SIDE // stride
    out = torch.empty(len(images), 3, SIDE, SIDE)
    for position in range(side * side):
        top, left = position // side * stride, position % side * stride
        for channel in range(3):
            for y in range(stride):
                first = (channel * stride + y) * stride
                out[:, channel, top + y, left : left + stride] = values[:, position, first : first + stride]
    return out


@each_family
def test_output_and_gradients_are_those_of_the_reference(family: str) -> None:
    """Gradients too: the loss alone barely sees a wrong epsilon of a norm."""
    net = model(family).eval()
    images, masks = batch()
    pixels = masks.repeat_interleave(16, 1).repeat_interleave(16, 2)[:, None].float()
    expected = by_the_reference(net, family, images, masks)
    (((images - expected).abs() * pixels).sum() / (pixels.sum() + 1e-5) / 3).backward()
    wanted = {name: parameter.grad for name, parameter in net.named_parameters()}
    net.zero_grad()
    said = net(images, masks)
    torch.testing.assert_close(said, expected, rtol=1e-5, atol=1e-5)
    masked_l1(images, said, masks).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, f"{name} has no gradient"
        torch.testing.assert_close(parameter.grad, wanted[name], rtol=1e-4, atol=1e-6)


@each_family
def test_what_is_hidden_is_not_seen_and_the_rest_is(family: str) -> None:
    net = model(family).eval()
    images, masks = batch()
    pixels = masks.repeat_interleave(16, 1).repeat_interleave(16, 2)[:, None]
    other = images + torch.randn_like(images)
    with torch.no_grad():
        said = net(images, masks)
        assert torch.equal(net(torch.where(pixels, other, images), masks), said)
        assert not torch.allclose(net(torch.where(pixels, images, other), masks), said)
        assert not torch.allclose(net(images, ~masks), said)


@each_family
def test_names_of_weights_and_what_has_no_decay(family: str) -> None:
    net = model(family)
    names = set(net.state_dict())
    own = {"mask_token", "decoder.0.weight", "decoder.0.bias"}
    assert own < names
    assert {f"encoder.{name}" for name in net.encoder.state_dict()} == names - own
    assert "mask_token" in net.no_weight_decay()
    assert net.no_weight_decay() == {"mask_token"} | {f"encoder.{name}" for name in net.encoder.no_weight_decay()}


def test_loss_is_that_of_the_definition() -> None:
    """Loops over pixels in NumPy; and the gradient, which is -sign / count."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, 8, 8, generator=generator)
    said = torch.randn(2, 3, 8, 8, generator=generator, requires_grad=True)
    masks = torch.tensor([[[True, False], [False, False]], [[False, True], [True, True]]])
    total, count = 0.0, 0
    for n in range(2):
        for y in range(8):
            for x in range(8):
                if masks[n, y // 4, x // 4]:
                    count += 1
                    total += sum(abs(float(images[n, c, y, x]) - said[n, c, y, x].item()) for c in range(3))
    loss = masked_l1(images, said, masks)
    assert loss.item() == pytest.approx(total / (count + 1e-5) / 3, rel=1e-6)
    loss.backward()
    pixels = masks.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None].numpy()
    expected = -np.sign((images - said).detach().numpy()) * pixels / (count + 1e-5) / 3
    np.testing.assert_allclose(said.grad, expected, rtol=1e-6)


def test_loss_is_zero_without_hidden_pixels() -> None:
    images, said = torch.ones(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)
    nothing = torch.zeros(1, 2, 2, dtype=torch.bool)
    assert masked_l1(images, said, nothing) == 0
    assert masked_l1(images, said, ~nothing).item() == pytest.approx(1)
    assert hidden_l1(images, said, nothing)[1] == 0


def test_losses_of_parts_of_a_batch_add_up_to_that_of_the_whole() -> None:
    """As accumulation over micro-batches and workers supposes: every image hides as many pixels."""
    images, masks = batch(count=4)
    said = torch.zeros_like(images)
    halves = [masked_l1(images[part], said[part], masks[part]) for part in (slice(2), slice(2, 4))]
    assert 0 < halves[0] != halves[1] > 0
    torch.testing.assert_close(sum(halves) / 2, masked_l1(images, said, masks))
    total, count = hidden_l1(images, said, masks)
    assert count == 4 * 10 * 16 * 16
    assert total / count / 3 == pytest.approx(masked_l1(images, said, masks).item())


@pytest.mark.parametrize("contrast", [2, 1e-3])
@pytest.mark.parametrize(("side", "window"), [(20, 7), (20, 47), (48, 47)])
def test_normalised_target_is_that_of_the_definition(side: int, window: int, contrast: float) -> None:
    """Mean and unbiased variance over the square around each pixel, cut at the border. At a low contrast the 1e-6 that
    is added to the variance counts as much as the variance."""
    images = (torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0)) + 0.5) * contrast
    found, half = normalised_target(images, window).numpy(), window // 2
    for n, c, y, x in [(0, 0, 0, 0), (0, 1, side - 1, 3), (1, 2, side // 2, side // 2), (1, 0, 5, side - 1)]:
        around = images[n, c, max(0, y - half) : y + half + 1, max(0, x - half) : x + half + 1].double().numpy()
        expected = (float(images[n, c, y, x]) - around.mean()) / math.sqrt(around.var(ddof=1) + 1e-6)
        assert found[n, c, y, x] == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("contrast", [1e-4, 1e-3, 1e-2])
def test_of_a_flat_region_the_target_stays_small(contrast: float) -> None:
    """1e-6 is added to the variance, inside the root: it weighs as much as a deviation of 1e-3."""
    images = torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(0)) * contrast
    around = images[0, 0, 3:8, 3:8].double()  # a window of 5 around (5, 5)
    expected = float(images[0, 0, 5, 5] - around.mean()) / math.sqrt(float(around.var()) + 1e-6)
    assert normalised_target(images, 5)[0, 0, 5, 5].item() == pytest.approx(expected, rel=1e-3)
    assert abs(expected) < 3 * contrast / 1e-3


def test_normalised_target_of_one_colour_is_zero() -> None:
    images = torch.full((1, 3, 16, 16), 0.7)
    assert normalised_target(images, 5).abs().max() < 1e-3
    images[..., 8, 8] = 0.9
    found = normalised_target(images, 5)
    assert found[..., 8, 8].min() > 4  # (n - 1) / sqrt(n) deviations of n = 25 pixels
    assert found[..., :6, :6].abs().max() < 1e-3


def test_mask_token_starts_small_and_beit_is_rescaled_by_depth() -> None:
    torch.manual_seed(0)
    args = {**BEIT, "embed_dim": 256, "depth": 8}
    net: Any = SimMIM(build(BackboneSpec(model="beit_base_patch16_224", args=args, image_size=SIDE), 0), SIDE, 16)
    assert net.mask_token.std().item() == pytest.approx(0.02, rel=0.2)
    for layer, block in enumerate(net.encoder.blocks, 1):
        for weight in (block.attn.proj.weight, block.mlp.fc2.weight):
            assert weight.std().item() == pytest.approx(0.02 / math.sqrt(2 * layer), rel=0.05)
        assert block.attn.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert block.gamma_1.unique().item() == pytest.approx(0.1)


def test_a_family_without_a_place_for_the_token_is_refused() -> None:
    resnet = build(BackboneSpec(model="resnet18", image_size=SIDE), 0)
    with pytest.raises(ValueError, match=r"ResNet cannot be pre-trained with SimMIM here.* SwinV2, Swin"):
        SimMIM(resnet, SIDE, 16)


def test_a_norm_behind_the_pooling_is_refused() -> None:
    with pytest.raises(ValueError, match=r"backbone\.args\.global_pool to token"):
        model("beit", global_pool="avg")


@pytest.mark.parametrize("mask_patch", [8, 32 + 8])
def test_a_mask_patch_that_is_no_multiple_of_the_models_is_refused(mask_patch: int) -> None:
    with pytest.raises(ValueError, match=f"mask_patch {mask_patch} is no multiple of the model's patch of 16 pixels"):
        model("vit", mask_patch)


def test_an_image_that_the_last_map_does_not_divide_is_refused() -> None:
    spec = BackboneSpec(model="replknet_31b_mim", args=REPLKNET, image_size=80)
    with pytest.raises(ValueError, match="image_size 80 does not divide by the 32 pixels"):
        SimMIM(build(spec, 0), 80, 16)


@pytest.mark.parametrize("family", ["swinv2", "vit", "beit", "replknet"])
def test_recomputed_activations_give_the_same_gradients(family: str) -> None:
    images, masks = batch()
    gradients = []
    for again in (False, True):
        net = model(family).train()
        net.set_grad_checkpointing(again)
        masked_l1(images, net(images, masks), masks).backward()
        gradients.append([parameter.grad for parameter in net.parameters()])
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", ["vit", "beit"])
def test_blocks_are_trained_with_recomputed_activations_also_behind_frozen_tokens(family: str) -> None:
    """Torch's older way of recomputing gives blocks no gradient where what goes into them needs none."""
    images, masks = batch()
    net = model(family).train()
    net.set_grad_checkpointing()
    for parameter in net.parameters():
        parameter.requires_grad = False
    block: Any = net.encoder.get_submodule("blocks.0")
    block.mlp.fc1.weight.requires_grad = True
    masked_l1(images, net(images, masks), masks).backward()
    assert block.mlp.fc1.weight.grad.abs().max() > 0
