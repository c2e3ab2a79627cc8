"""Attention distance, entropy and divergence: closed forms, loops in float64, and reference outputs."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tasks.analysis import attention
from tasks.analysis.attention import AttentionSums, ClsRule, Places, measured, uniform

GOLDEN = Path(__file__).parent / "golden"
VIT = Places(4, 4, (16.0, 16.0), prefix=1)
WINDOW = Places(4, 4, (8.0, 8.0))
TOLERANCE = {"rtol": 1e-6, "atol": 1e-6}


@pytest.fixture(scope="module")
def maps() -> dict[str, Tensor]:
    with np.load(GOLDEN / "attention_tensors.npz", allow_pickle=False) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files if name != "settings"}


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((GOLDEN / "attention_metrics.json").read_text())
    return loaded


def close(value: Tensor | float, wanted: Any, **tolerance: float) -> None:
    wanted = torch.as_tensor(wanted, dtype=torch.float64)
    torch.testing.assert_close(torch.as_tensor(value, dtype=torch.float64), wanted, **(tolerance or TOLERANCE))


def mean_of_pairs(divergence: Tensor) -> float:
    """Over ordered pairs of different heads."""
    return divergence[~torch.eye(len(divergence), dtype=torch.bool)].mean().item()


@pytest.mark.parametrize(
    ("rule", "distance", "entropy"),
    [
        ("drop_renormalise", "cls_dropped_plus1e_8_renormalised", "cls_dropped_renormalised_eps0"),
        ("drop", "cls_dropped_not_renormalised", None),
        ("keep", "cls_dropped_not_renormalised", "with_cls_eps0"),
    ],
)
def test_distance_and_entropy_of_every_image_are_the_reference(
    rule: ClsRule, distance: str, entropy: str | None, maps: dict[str, Tensor], expected: dict[str, Any]
) -> None:
    means = [measured(image[None], VIT, rule, 1e-8).means() for image in maps["attn_vit"]]
    close(torch.stack([each.distance for each in means]), expected["distance"][distance])
    if entropy is not None:
        close(torch.stack([each.entropy for each in means]), expected["entropy"][entropy])


@pytest.mark.parametrize("eps", ["1e-12", "1e-08", "1e-05"])
@pytest.mark.parametrize(("rule", "name"), [("keep", "with_cls"), ("drop_renormalise", "cls_dropped_renormalised")])
def test_divergence_is_the_reference(
    rule: ClsRule, name: str, eps: str, maps: dict[str, Tensor], expected: dict[str, Any]
) -> None:
    means = measured(maps["attn_vit"], VIT, rule, float(eps)).means()
    wanted = expected["kl"][f"{name}_eps{eps}"]
    close(means.divergence, wanted["matrix_i_j"])
    close(mean_of_pairs(means.divergence), wanted["offdiag_mean"])


def test_windows_are_the_reference(maps: dict[str, Tensor], expected: dict[str, Any]) -> None:
    """Distances within shifted windows are those in the image: what wraps around is masked."""
    wanted = expected["swin_window"]
    shifted = measured(maps["attn_swin_shifted"], WINDOW, "drop_renormalise", 1e-8).means()
    close(shifted.distance, wanted["distance_shifted_in_window_coords"])
    close(shifted.distance, wanted["distance_shifted_true_image_coords"])
    close(shifted.entropy, wanted["entropy_shifted"])
    plain = measured(maps["attn_swin_plain"], WINDOW, "drop_renormalise", 1e-8).means()
    close(plain.distance, wanted["distance_unshifted"])


@pytest.mark.parametrize(
    ("places", "name"),
    [
        (Places(14, 14, (16.0, 16.0), 1), "uniform_14x14_patch16_px"),
        (Places(7, 7, (32.0, 32.0)), "uniform_7x7_px32"),
        (Places(14, 14, (4.0, 4.0)), "uniform_window14_px4"),
        (Places(12, 12, (16.0, 16.0)), "uniform_window12_px16"),
        (Places(16, 16, (16.0, 16.0)), "uniform_window16_px16"),
    ],
)
def test_uniform_attention_is_the_anchor(places: Places, name: str, expected: dict[str, Any]) -> None:
    distance, entropy = uniform(places, "drop_renormalise")
    close(distance, expected["anchors"][name], rtol=1e-9, atol=1e-9)
    close(entropy, math.log(places.height * places.width), rtol=1e-12, atol=0)


def test_uniform_attention_has_116_pixels_and_no_divergence() -> None:
    places = Places(14, 14, (16.0, 16.0), 1)
    maps = torch.full((2, 3, 197, 197), 1 / 197)
    means = measured(maps, places, "drop_renormalise", 1e-8).means()
    assert means.distance.tolist() == pytest.approx([116.49] * 3, abs=0.005)
    assert means.entropy.tolist() == pytest.approx([math.log(196)] * 3, abs=1e-6)
    assert means.divergence.abs().max() < 1e-12
    kept = measured(maps, places, "keep", 1e-8).means()
    assert kept.entropy.tolist() == pytest.approx([math.log(197)] * 3, abs=1e-6)


def test_attention_to_oneself_is_near_and_focused() -> None:
    """And a head that looks at its neighbour diverges from it by as much as eps allows: log((1 + eps) / eps)."""
    own = torch.eye(16)
    maps = torch.stack([own, own.roll(1, 0)])[None]
    means = measured(maps, WINDOW, "keep", 1e-8).means()
    assert means.distance[0] == 0
    # the neighbour to the left, and for the first of a row the last of the row above, or of all
    wrapped = [8.0] * 12 + [8 * math.hypot(1, 3)] * 3 + [8 * math.hypot(3, 3)]
    assert means.distance[1].item() == pytest.approx(sum(wrapped) / 16)
    assert means.entropy.tolist() == [0, 0]
    assert means.divergence[0, 1].item() == pytest.approx(math.log((1 + 1e-8) / 1e-8))
    assert mean_of_pairs(means.divergence) == pytest.approx(math.log((1 + 1e-8) / 1e-8))


def brute_force(maps: Tensor, places: Places, rule: ClsRule, eps: float) -> tuple[Any, Any, Any]:
    """The definitions, one number at a time in float64; the loops know nothing of chunks, sums or matrix products."""
    images, heads, tokens, first = *maps.shape[:3], places.prefix
    rows = maps.double().numpy()
    where = [
        (r * places.pixel[0], c * places.pixel[1])
        for r, c in itertools.product(range(places.height), range(places.width))
    ]

    def row(image: int, head: int, query: int) -> list[float]:
        full = [float(weight) for weight in rows[image, head, query]]
        if rule == "keep":
            return full
        patches = full[first:]
        return [weight / sum(patches) for weight in patches] if rule == "drop_renormalise" and first else patches

    asking = range(tokens) if rule == "keep" else range(first, tokens)
    distance, entropy, divergence = np.zeros(heads), np.zeros(heads), np.zeros((heads, heads))
    for image, head in itertools.product(range(images), range(heads)):
        for query in range(first, tokens):
            patches = [float(weight) for weight in rows[image, head, query, first:]]
            if rule == "drop_renormalise" and first:
                patches = [(weight + 1e-8) / (sum(patches) + 1e-8 * len(patches)) for weight in patches]
            at = where[query - first]
            distance[head] += sum(w * math.dist(at, key) for w, key in zip(patches, where, strict=True))
        for query in asking:
            weights = row(image, head, query)
            entropy[head] -= sum(weight * math.log(weight) for weight in weights if weight > 0)
            for other in range(heads):
                pairs = zip(weights, row(image, other, query), strict=True)
                divergence[head, other] += sum(p * math.log((p + eps) / (q + eps)) for p, q in pairs)
    return (
        distance / (images * (tokens - first)),
        entropy / (images * len(asking)),
        divergence / (images * len(asking)),
    )


@pytest.mark.parametrize("rule", ["drop_renormalise", "drop", "keep"])
@pytest.mark.parametrize("prefix", [0, 2])
@pytest.mark.parametrize("chunk", [1, 100, 1 << 20])
def test_it_is_what_loops_compute(rule: ClsRule, prefix: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps and pixels that are not square, zeros among the weights, chunks of queries and of images."""
    monkeypatch.setattr(attention, "CHUNK", chunk)
    places = Places(2, 3, (4.0, 5.0), prefix)
    draw = torch.Generator().manual_seed(prefix)
    maps = (4 * torch.randn(3, 2, places.tokens, places.tokens, generator=draw)).softmax(-1)
    maps[0, 0, 3, 4] = 0
    wanted = brute_force(maps, places, rule, 1e-6)
    for given, tolerance in ((maps.double(), 1e-12), (maps, 1e-6)):
        kept = given.clone()
        means = measured(given, places, rule, 1e-6).means()
        assert given.equal(kept), "they are the model's"
        for value, of_loops in zip((means.distance, means.entropy, means.divergence), wanted, strict=True):
            close(value, of_loops, rtol=tolerance, atol=tolerance)


def test_sums_of_parts_are_those_of_the_whole(maps: dict[str, Tensor]) -> None:
    """And they survive as JSON."""
    whole = measured(maps["attn_swin_plain"], WINDOW, "keep", 1e-8)
    parts = [measured(part, WINDOW, "keep", 1e-8) for part in maps["attn_swin_plain"].split([3, 1, 4])]
    summed = parts[0] + AttentionSums.from_plain(json.loads(json.dumps(parts[1].plain()))) + parts[2]
    close(summed.means().distance, whole.means().distance, rtol=1e-12, atol=0)
    close(summed.means().entropy, whole.means().entropy, rtol=1e-12, atol=0)
    close(summed.means().divergence, whole.means().divergence, rtol=1e-12, atol=1e-12)


def test_a_query_that_sees_only_the_class_token_is_uniform_among_patches() -> None:
    maps = torch.zeros(1, 1, 17, 17)
    maps[..., 0] = 1
    means = measured(maps, VIT, "drop_renormalise", 1e-8).means()
    distance, entropy = uniform(VIT, "drop_renormalise")
    assert (means.distance.item(), means.entropy.item()) == pytest.approx((distance, entropy), rel=1e-6)


def test_the_anchor_of_a_shifted_window_is_uniform_over_what_it_sees() -> None:
    """A window of two places by two, cut between its rows: every query sees itself and its neighbour."""
    allowed = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]], dtype=torch.bool)[None]
    assert uniform(Places(2, 2, (8.0, 8.0)), "keep", allowed) == pytest.approx((4.0, math.log(2)))


def test_maps_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(1, 1, 16, 16\) for 1 prefix tokens and 4 x 4 patches"):
        measured(torch.full((1, 1, 16, 16), 1 / 16), VIT, "keep", 1e-8)
