"""An analysis in chunks is that of all maps and outputs at once."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from analysed_models import ATTENTIVE, REPLKNET, drawn, images
from torch import Tensor, nn

from tasks.analysis import attention, kernels, measuring
from tasks.analysis.cka import HsicSums, gram
from tasks.analysis.layers import attention_layers, attention_maps, blocks, kernel_layers
from tasks.analysis.measuring import Analysed, Options, Subject
from tasks.analysis.results import summary
from tasks.metrics import Measurement, Summary

OPTIONS = Options(
    attention=True, estimators=("unbiased", "biased"), batch=3, cls_rule="drop_renormalise", eps=1e-8,
    kernel_rule="abs", kernel_pixels=True, re_param=False, pooled=False,
)  # fmt: skip
NAMES = {"unbiased": "cka", "biased": "cka_biased"}


def analysed(subject: Subject, all_images: Tensor, chunks: list[int]) -> Summary:
    """The summary over chunks, through JSON as it is resumed."""
    parts, first = [], 0
    for size in chunks:
        with torch.no_grad():
            ((_, part),) = subject.parts([{"images": all_images[first : first + size], "item": f"{first:012d}"}], 99)
        parts.append(json.loads(json.dumps(part)))
        first += size
    assert first == len(all_images)
    names = {each: NAMES[each] for each in subject.options.estimators}
    done = summary(parts, names, two_models=subject.model.other is not None)
    return Summary(done.figures, list(done.measurements))


def rows(of: Summary, figure: str) -> dict[tuple[int | None, int | None, str], float]:
    return {(row.layer, row.head, row.item): row.value for row in of.measurements if row.figure == figure}


def all_at_once(model: nn.Module, all_images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Every map and every output of one pass over all images, kept."""
    layers, of = attention_layers(model, (32, 32)), blocks(model)
    maps: dict[int, Tensor] = {}
    outputs: dict[int, Tensor] = {}
    handles = [
        module.register_forward_hook(lambda m, g, out, n=number: outputs.__setitem__(n, out))
        for number, module in enumerate(of.modules)
    ]
    with torch.no_grad(), attention_maps(layers, maps.__setitem__):
        model(all_images)
    for handle in handles:
        handle.remove()
    return [maps[i] for i in range(len(maps))], [outputs[i] for i in range(len(outputs))]


@pytest.mark.parametrize("family", ["deit", "beit", "swin", "swinv2"])
def test_streaming_is_what_all_maps_at_once_give(family: str) -> None:
    model, all_images = drawn(ATTENTIVE[family]), images(11)
    maps, outputs = all_at_once(model, all_images)
    done = analysed(Subject(Analysed(model, None, (32, 32)), OPTIONS), all_images, [6, 5])
    for number, (layer, weights) in enumerate(zip(attention_layers(model, (32, 32)), maps, strict=True)):
        means = attention.measured(weights, layer.places, "drop_renormalise", 1e-8).means()
        for head in range(layer.heads):
            for figure, value in (("attention_distance", means.distance), ("attention_entropy", means.entropy)):
                assert rows(done, figure)[number, head, ""] == pytest.approx(value[head].item(), rel=1e-5)
        pairs = {(i, j) for i in range(layer.heads) for j in range(layer.heads) if i != j}
        divergence = rows(done, "head_divergence")
        assert {(head, int(item)) for at, head, item in divergence if at == number} == pairs
        for i, j in pairs:
            assert divergence[number, i, str(j)] == pytest.approx(means.divergence[i, j].item(), rel=1e-5, abs=1e-6)
        distance, entropy = attention.uniform(layer.places, "drop_renormalise", layer.allowed)
        assert rows(done, "uniform_distance")[number, None, ""] == pytest.approx(distance)
        assert rows(done, "uniform_entropy")[number, None, ""] == pytest.approx(entropy)
    for estimator, name in NAMES.items():
        grams = [[gram(output[part]) for output in outputs] for part in (slice(0, 6), slice(6, 11))]
        sums = [HsicSums.of(each, None, estimator) for each in grams]  # type: ignore[arg-type]
        wanted = (sums[0] + sums[1]).cka()
        values = rows(done, name)
        assert len(values) == len(outputs) ** 2
        for (i, head, j), value in values.items():
            assert head is None
            assert i is not None
            assert value == pytest.approx(wanted[i, int(j)].item(), rel=1e-4)


def test_chunks_change_attention_by_rounding_alone() -> None:
    subject = Subject(Analysed(drawn(ATTENTIVE["swinv2"]), None, (32, 32)), replace(OPTIONS, estimators=()))
    one, other = (analysed(subject, images(7), chunks) for chunks in ([7], [2, 1, 4]))
    assert one.figures == pytest.approx(other.figures, rel=1e-6)
    assert set(one.figures) == {
        "attention_distance", "attention_entropy", "head_divergence", "uniform_distance", "uniform_entropy"
    }  # fmt: skip


@pytest.mark.parametrize(("estimators", "passes"), [((), 0), (("unbiased",), 1)])
def test_a_forward_pass_ends_with_its_last_map_where_no_output_is_wanted(estimators: Any, passes: int) -> None:
    """And the next pass of the chunk begins anew: 7 images are three passes of 3, and every layer has all of them."""
    model, seen = drawn(ATTENTIVE["vit"]), []
    model.norm.register_forward_hook(lambda *_: seen.append(1))  # type: ignore[union-attr]
    subject = Subject(Analysed(model, None, (32, 32)), replace(OPTIONS, estimators=estimators))
    with torch.no_grad():
        part = subject.chunk(images(7))
    assert len(seen) == passes
    assert [layer["queries"] for layer in part["attention"]] == [7 * 64] * len(subject.attention)


def test_figures_are_means_over_layers_of_means_over_heads() -> None:
    done = analysed(Subject(Analysed(drawn(ATTENTIVE["swin"]), None, (32, 32)), OPTIONS), images(6), [6])
    for figure in ("attention_distance", "attention_entropy", "head_divergence", "uniform_distance"):
        layers: dict[Any, list[float]] = {}
        for (layer, _, _), value in rows(done, figure).items():
            layers.setdefault(layer, []).append(value)
        assert {len(values) for values in layers.values()} != {1} or figure == "uniform_distance"
        wanted = sum(sum(values) / len(values) for values in layers.values()) / 4
        assert done.figures[figure] == pytest.approx(wanted)
    off_diagonal = [value for (i, _, j), value in rows(done, "cka").items() if i != int(j)]
    assert done.figures["cka_mean"] == pytest.approx(sum(off_diagonal) / 12)
    assert done.figures["cka_min"] == min(off_diagonal)
    assert [rows(done, "cka")[i, None, str(i)] for i in range(4)] == pytest.approx([1] * 4)


def test_layers_of_another_model_are_the_items() -> None:
    """Of the model itself: a matrix that is symmetric, and 1 for equal layers; of another one neither."""
    first, second = drawn(ATTENTIVE["vit"]), drawn(ATTENTIVE["swinv2"], seed=1)
    options = replace(OPTIONS, attention=False)
    alone = analysed(Subject(Analysed(first, None, (32, 32)), options), images(8), [8])
    twin = analysed(Subject(Analysed(first, drawn(ATTENTIVE["vit"]), (32, 32)), options), images(8), [8])
    assert rows(twin, "cka") == pytest.approx(rows(alone, "cka"))
    assert twin.figures["cka_mean"] != pytest.approx(alone.figures["cka_mean"])  # with the pairs (i, i)
    both = rows(analysed(Subject(Analysed(first, second, (32, 32)), options), images(8), [8]), "cka")
    assert set(both) == {(i, None, str(j)) for i in range(2) for j in range(4)}
    turned = rows(analysed(Subject(Analysed(second, first, (32, 32)), options), images(8), [8]), "cka")
    assert {(i, j): value for (i, _, j), value in both.items()} == pytest.approx(
        {(int(j), str(i)): value for (i, _, j), value in turned.items()}
    )


def test_pooled_features_have_one_number_for_each_channel() -> None:
    subject = Subject(Analysed(drawn(ATTENTIVE["vit"]), None, (32, 32)), OPTIONS)
    pooled = Subject(subject.model, replace(OPTIONS, pooled=True))
    assert [layer["features"] for layer in subject.facts()["cka_layers"]] == [65 * 32] * 2
    assert [layer["features"] for layer in pooled.facts()["cka_layers"]] == [32] * 2
    assert rows(analysed(subject, images(8), [8]), "cka") != rows(analysed(pooled, images(8), [8]), "cka")


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("image_pixels", [False, True])
def test_channels_of_large_kernels_are_heads(merged: bool, image_pixels: bool) -> None:
    model = drawn(REPLKNET)
    options = replace(OPTIONS, re_param=merged, kernel_pixels=image_pixels, estimators=())
    done = analysed(Subject(Analysed(model, None, (64, 64)), options), images(4, 64), [2, 2])
    layers = kernel_layers(model, merged)
    assert len(layers) == 5
    for number, layer in enumerate(layers):
        means = kernels.measured(layer.kernels, "abs", 1e-8, layer.stride if image_pixels else 1)
        for figure, values in (
            ("attention_distance", means.distance), ("attention_entropy", means.entropy),
            ("head_divergence", means.divergence),
        ):  # fmt: skip
            own = {head: value for (at, head, item), value in rows(done, figure).items() if at == number and not item}
            assert own == pytest.approx(dict(enumerate(values.tolist())))
        assert rows(done, "uniform_entropy")[number, None, ""] == pytest.approx(math.log(layer.kernels[0].numel()))


def test_what_is_no_number_is_a_row_and_in_no_figure() -> None:
    model = drawn(REPLKNET)
    with torch.no_grad():
        kernel_layers(model, False)[0].kernels[3] = 0
    done = analysed(Subject(Analysed(model, None, (64, 64)), replace(OPTIONS, estimators=())), images(2, 64), [2])
    assert math.isnan(rows(done, "attention_distance")[0, 3, ""])
    assert all(math.isfinite(value) for value in done.figures.values())
    sums = HsicSums(torch.ones(3, 3), torch.tensor([1.0, -1.0, 4.0]), torch.tensor([1.0, -1.0, 4.0]))
    part = {"images": 4, "attention": [], "uniform": [], "cka": {"unbiased": sums.plain()}}
    partly = summary([part], {"unbiased": "cka"}, two_models=False)
    assert partly.figures == {"cka_mean": 0.5, "cka_min": 0.5}
    values = [row for row in partly.measurements if isinstance(row, Measurement)]
    assert sum(math.isnan(row.value) for row in values) == 5


def test_a_single_head_has_no_pairs() -> None:
    spec = ATTENTIVE["vit"].model_copy(update={"args": {**ATTENTIVE["vit"].args, "num_heads": 1}})
    subject = Subject(Analysed(drawn(spec), None, (32, 32)), replace(OPTIONS, estimators=()))
    done = analysed(subject, images(2), [2])
    assert rows(done, "head_divergence") == {}
    assert "head_divergence" not in done.figures
    assert done.figures["attention_distance"] > 0


def test_progress_is_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(measuring, "LOG_SECONDS", 0.0)
    subject = Subject(Analysed(drawn(ATTENTIVE["vit"]), None, (32, 32)), replace(OPTIONS, estimators=()))
    with caplog.at_level(logging.INFO, "tasks"), torch.no_grad():
        batches = [{"images": images(2), "item": f"{first:012d}"} for first in (0, 2)]
        assert len(list(subject.parts(batches, 4))) == 2
    assert [record.message.partition(",")[0] for record in caplog.records] == [
        "2 of 4 images analysed here", "4 of 4 images analysed here"
    ]  # fmt: skip
