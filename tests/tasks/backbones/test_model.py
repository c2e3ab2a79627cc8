"""timm backbones: their names, how they are built, and what becomes of initial weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from pydantic import ValidationError

from tasks.backbones.loading import fitted, load
from tasks.backbones.model import build, draw_head, head_names
from tasks.backbones.spec import BackboneSpec, FromFile
from tasks.backbones.timm_names import timm_names

VIT = {"embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": 4}
SWIN = {"embed_dim": 16, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 4, 8], "window_size": 4}


def spec(model: str = "vit_tiny_patch16_224", **other: Any) -> BackboneSpec:
    args = {"vit_tiny_patch16_224": VIT, "swinv2_base_window12_192": SWIN}.get(model, {})
    return BackboneSpec(model=model, **{"args": args, "image_size": 16, **other})


def test_names_are_those_of_timm() -> None:
    import tasks.backbones.replknet  # noqa: F401 (makes its names known to timm)

    assert timm_names() == set(timm.list_models())


def test_an_unknown_model_gets_the_nearest() -> None:
    with pytest.raises(ValidationError, match="vit_tiny_patch16_224"):
        spec("vit_tiny_patch_224")


@pytest.mark.parametrize("name", ["pretrained", "num_classes", "img_size", "drop_path_rate"])
def test_arguments_that_are_decided_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name} is not set here"):
        spec(args={name: 1})


def test_an_argument_that_timm_would_drop_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"timm drops arguments that are null.*leave out small_kernel"):
        spec("replknet_31b", args={"small_kernel": None})


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"depth": 10**9}, "depth 1000000000: at most 1,000"),
        ({"depths": [2, 2, 1001, 2]}, "depths 1001: at most 1,000"),
        ({"embed_dim": 10**12}, "embed_dim 1000000000000: at most 1,000,000"),
        ({"stem": {"layers": [[2000]]}}, "layers 2000: at most 1,000"),
    ],
)
def test_a_number_that_would_take_all_memory_is_refused_with_the_spec(args: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        spec(args=args)
    assert spec(args={"depth": 1000, "embed_dim": 1_000_000, "init_values": 1e9}).args["depth"] == 1000


def test_image_size_and_drop_path_reach_the_model() -> None:
    vit = build(spec(image_size=24, drop_path=0.3), classes=5)
    assert vit.patch_embed.img_size == (24, 24)
    assert vit.blocks[-1].drop_path1.drop_prob == pytest.approx(0.3)
    assert vit(torch.zeros(2, 3, 24, 24)).shape == (2, 5)
    swin = build(spec("swinv2_base_window12_192", image_size=64), classes=5)
    assert swin.layers[-1].blocks[-1].drop_path1.__class__.__name__ == "Identity"  # timm's own default is 0.1
    assert swin(torch.zeros(2, 3, 64, 64)).shape == (2, 5)


def test_a_convolutional_network_takes_any_image_size() -> None:
    assert build(spec("resnet10t", image_size=32), classes=5)(torch.zeros(2, 3, 32, 32)).shape == (2, 5)


def test_drop_path_that_a_model_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match="vgg11 has no drop path"):
        build(spec("vgg11", drop_path=0.1), classes=5)


def test_an_argument_that_timm_does_not_take_is_named() -> None:
    with pytest.raises(ValueError, match="patch_sise"):
        build(spec(args={"patch_sise": 4}), classes=5)


def test_arguments_that_timm_takes_and_cannot_use_are_named() -> None:
    with pytest.raises(ValueError, match=r"vit_tiny_patch16_224 with .*'num_heads': 3.*divisible by num_heads"):
        build(spec(args={**VIT, "num_heads": 3}), 0)


def test_patches_that_do_not_divide_the_image_are_refused() -> None:
    with pytest.raises(
        ValueError,
        match="patches of 5 pixels do not divide image_size 16: 1 row and 1 column would be ignored; "
        "use image_size 15 or 20, or another patch_size",
    ):
        build(spec(args={**VIT, "patch_size": 5}), 0)
    with pytest.raises(
        ValueError,
        match="patches of 4 x 4 pixels do not divide an input of 16 x 22: 2 columns would be ignored; "
        "use width 20 or 24, or another patch_size",
    ):
        build(spec(), 0, (16, 22))


@pytest.mark.parametrize("model", ["vit_tiny_patch16_224", "swinv2_base_window12_192", "resnet10t"])
def test_height_and_width_may_differ(model: str) -> None:
    net = build(spec(model, image_size=64), 5, (128, 64))
    assert net(torch.zeros(2, 3, 128, 64)).shape == (2, 5)
    if model != "resnet10t":
        assert net.patch_embed.img_size == (128, 64)
        assert build(spec(model, image_size=64), 5, (64, 64)).patch_embed.img_size == (64, 64)


@pytest.mark.parametrize("model", ["hrnet_w18_small", "poolformer_s12", "ese_vovnet19b_slim_dw"])
def test_models_that_name_all_unknown_arguments_at_once_are_built_too(model: str) -> None:
    with torch.device("meta"):
        build(spec(model, image_size=32), 5)
    with pytest.raises(ValueError, match=r"unexpected keyword argument\(s\): \['no_such'\]"):
        build(spec(model, args={"no_such": 1}), 5)


def test_weights_find_their_place_and_the_head_is_left() -> None:
    torch.manual_seed(0)
    source, model = build(spec(), classes=5), build(spec(), classes=7)
    head = model.head.weight.clone()
    load(model, source.state_dict())
    for name, value in source.state_dict().items():
        if not name.startswith("head."):
            assert torch.equal(model.state_dict()[name], value), name
    assert torch.equal(model.head.weight, head)


def test_weights_without_a_head_are_enough() -> None:
    model, source = build(spec(), classes=5), build(spec(), classes=0).state_dict()
    head = model.head.weight.clone()
    load(model, source)
    assert torch.equal(model.head.weight, head)
    loaded = {name: value for name, value in model.state_dict().items() if not name.startswith("head.")}
    assert loaded.keys() == source.keys()
    assert all(torch.equal(value, source[name]) for name, value in loaded.items())


def test_a_head_can_be_kept() -> None:
    source, model = build(spec(), classes=5), build(spec(), classes=5)
    with torch.no_grad():
        source.head.weight.fill_(3)
    load(model, source.state_dict(), keep_head=True)
    assert (model.head.weight == 3).all()
    with pytest.raises(ValueError, match=r"2 of another shape: head.weight \(5, 16\) for \(6, 16\), head.bias"):
        load(build(spec(), classes=6), source.state_dict(), keep_head=True)


def test_weights_that_do_not_fit_are_listed_and_nothing_is_copied() -> None:
    model = build(spec(), classes=5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    weights = {f"net.{name}": torch.ones_like(value) for name, value in before.items()}
    with pytest.raises(ValueError, match=r"missing: cls_token, .*; \d+ left over: net.cls_token"):
        load(model, weights)
    weights = {name: torch.ones_like(value) for name, value in before.items()}
    weights["blocks.0.attn.qkv.weight"] = torch.ones(3, 16)
    with pytest.raises(ValueError, match=r"1 of another shape: blocks.0.attn.qkv.weight \(3, 16\) for \(48, 16\)"):
        load(model, weights)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_raw_checkpoint_is_not_taken_for_weights() -> None:
    with pytest.raises(ValueError, match="missing"):
        load(build(spec(), classes=5), {"model": torch.zeros(1)})


def test_swin_weights_move_to_another_image_size() -> None:
    """Their position bias is a function of coordinates; the tables of coordinates are made anew, not loaded."""
    small = build(spec("swinv2_base_window12_192", image_size=64), classes=5)
    large = build(spec("swinv2_base_window12_192", image_size=128, args={**SWIN, "window_size": 8}), classes=5)
    load(large, small.state_dict())
    assert large(torch.zeros(1, 3, 128, 128)).isfinite().all()


@pytest.mark.parametrize("model", ["vit_tiny_patch16_224", "swinv2_base_window12_192", "resnet10t"])
def test_heads_are_drawn_anew(model: str) -> None:
    net = build(spec(model, image_size=64), classes=50)
    (name,) = head_names(net)
    torch.manual_seed(0)
    draw_head(net)
    weight, bias = net.get_submodule(name).weight, net.get_submodule(name).bias
    assert weight.shape[0] == 50
    assert 0.018 < weight.std().item() < 0.022
    assert (bias == 0).all()
    draw_head(net, zero=True)
    assert (weight == 0).all()


@pytest.mark.parametrize("model", ["vit_tiny_patch16_224", "swinv2_base_window12_192"])
def test_eps_of_layer_norm_is_set_everywhere_or_left(model: str) -> None:
    def eps(net: torch.nn.Module) -> set[float]:
        return {part.eps for part in net.modules() if isinstance(part, torch.nn.LayerNorm)}

    assert eps(build(spec(model, image_size=64), 5)) == {1e-6 if model.startswith("vit") else 1e-5}
    assert eps(build(spec(model, image_size=64, norm_eps=1e-3), 5)) == {1e-3}
    torch.manual_seed(0)
    plain = build(spec(model, image_size=64), 0).eval()
    other = build(spec(model, image_size=64, norm_eps=1e-2), 0).eval()
    other.load_state_dict(plain.state_dict())
    images = torch.randn(1, 3, 64, 64)
    assert not torch.allclose(plain(images), other(images), rtol=1e-4)


def test_eps_of_a_model_without_layer_norm_is_refused() -> None:
    with pytest.raises(ValueError, match=r"resnet10t has no LayerNorm; leave backbone\.norm_eps out"):
        build(spec("resnet10t", image_size=32, norm_eps=1e-6), 5)


@pytest.mark.parametrize("model", ["swinv2_base_window12_192", "swin_base_patch4_window7_224"])
@pytest.mark.parametrize(
    ("image_size", "window", "said"),
    [
        (
            64,
            5,
            r"window 5 .* 16 x 16 tokens \(image_size 64\).* every map: 2, 4, 8, 16; image sizes for window 5: 160",
        ),
        (64, 3, r"window 3 does not divide"),
        (224, 16, r"window 16 .* 56 x 56 .* every map: 7, 14, 28, 56; image sizes for window 16: 64, 128, 256, 512"),
        (256, 14, r"window 14 .* 64 x 64 .* every map: 2, 4, 8, 16; image sizes for window 14: 224, 448, 896"),
    ],
)
def test_windows_that_do_not_divide_the_map_are_refused(model: str, image_size: int, window: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build(spec(model, image_size=image_size, args={**SWIN, "window_size": window}), 5)


def test_windows_are_checked_along_both_sides() -> None:
    args = {**SWIN, "window_size": 4}
    build(spec("swinv2_base_window12_192", args=args), 0, (64, 128))
    with pytest.raises(
        ValueError,
        match=r"window 4 does not divide a map of 8 x 10 tokens \(an input of 64 x 80 pixels\).* every map: none; "
        r"image sizes for window 4: heights 32, 64, 128, 256; widths 32, 64, 128, 256",
    ):
        build(spec("swinv2_base_window12_192", args=args), 0, (64, 80))


@pytest.mark.parametrize(
    ("image_size", "window"), [(64, 4), (64, 16), (64, 32), (192, 12), (224, 14), (224, 7), (112, 14), (96, 12)]
)
def test_windows_that_divide_the_map_or_are_larger_are_fine(image_size: int, window: int) -> None:
    with torch.device("meta"):
        model = build(spec("swinv2_base_window12_192", image_size=image_size, args={**SWIN, "window_size": window}), 5)
        assert model(torch.zeros(1, 3, image_size, image_size)).shape == (1, 5)
    sides = [-(-image_size // reduction) for reduction in (4, 8, 16, 32)]  # an odd side is padded
    used = [layer.blocks[0].window_size for layer in model.layers]
    assert used == [(min(window, side),) * 2 for side in sides]


def test_windows_of_real_models_as_in_the_reference() -> None:
    """The sizes that the reference's classification, depth and pose configurations have."""
    for size, window in ((192, 12), (224, 14), (256, 16), (352, 22), (480, 30), (640, 20)):
        with torch.device("meta"):
            model = build(spec("swinv2_base_window12_192", image_size=size, args={**SWIN, "window_size": window}), 0)
        first, last = model.layers[0].blocks[0], model.layers[-1].blocks[0]
        assert (first.window_size, last.window_size) == ((window, window), (min(window, size // 32),) * 2)


@pytest.mark.parametrize("make", ["swinv2_base_window12_192", "vit_tiny_patch16_224"])
def test_what_would_be_loaded_is_known_without_memory_for_the_model(make: str) -> None:
    source = build(spec(make, image_size=64), 5)
    with torch.device("meta"):
        empty = build(spec(make, image_size=96 if make.startswith("vit") else 64), 5)
    given, notes = fitted(empty, source.state_dict())
    assert all(tensor.device.type == "cpu" for tensor in given.values())
    assert len(notes) == make.startswith("vit")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("w/simmim.pth", "weights import FILE w/simmim.pth"),
        ("s3://bucket/w.safetensors", "s3:// is not supported; give a path"),
        ("https://example.org/w.safetensors", "a URI needs sha256, because its content may change"),
        ("https://example.org/w.pth", "weights import"),
    ],
)
def test_paths_that_cannot_be_trained_from_are_refused_at_load(path: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        FromFile(name="MIM", path=path)


def test_where_a_file_is_expected() -> None:
    digest = "ab" * 32
    root = Path("/data")
    assert FromFile(name="M", path="w/m.safetensors").local(root) == Path("/data/w/m.safetensors")
    assert FromFile(name="M", path="file:///there/my%20m.safetensors").local(root) == Path("/there/my m.safetensors")
    assert FromFile(name="M", path="~/m.safetensors").local(root) == Path.home() / "m.safetensors"
    assert FromFile(name="M", path="~nobody-here/m.safetensors").local(root) == root / "~nobody-here/m.safetensors"
    remote = FromFile(name="M", path="https://example.org/a/m.safetensors?v=1", sha256=digest)
    assert remote.local(root) == Path("/data/weights/abababababab-m.safetensors")
