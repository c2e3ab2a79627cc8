"""Pairs: which two frames, in which order, from which sets; what their crops show; nothing but the seed decides."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from moving_squares import SIDE, Squares, sequence
from PIL import Image

from tasks.base import DataContext
from tasks.datasets.samples import Sample
from tasks.datasets.sequences.types import Sequence
from tasks.errors import DataError
from tasks.tracking.crops import Floats, region
from tasks.tracking.loaders import TrackingInput, TrackingLoaders
from tasks.tracking.options import TrackingAugment
from tasks.tracking.sampler import CutPair, PairSamples, PairTarget, Sampling, jittered, pair

GENERATOR = np.random.default_rng


def test_a_pair_is_two_visible_frames_of_the_window_in_both_orders() -> None:
    frames = sequence(length=300, hidden=range(100, 140))
    generator = GENERATOR(0)
    pairs = [pair(frames, 100, generator) for _ in range(2000)]
    template, search = np.array(pairs).T
    assert 95 <= np.abs(template - search).max() <= 100
    assert (template != search).all()
    assert not np.isin([template, search], np.arange(100, 140)).any()
    assert 0.45 < (template < search).mean() < 0.55
    assert {0, 299} <= set(template) | set(search)


@pytest.mark.parametrize(("fps", "farthest"), [(30.0, 20), (15.0, 10), (10.0, 7), (1.0, 1)])
def test_the_gap_follows_the_frame_rate(fps: float, farthest: int) -> None:
    frames, generator = sequence(length=200, fps=fps), GENERATOR(0)
    pairs = [found for _ in range(1500) if (found := pair(frames, 20, generator))]
    gaps = {abs(first - second) for first, second in pairs}
    assert max(gaps) == farthest


def test_a_still_image_is_paired_with_itself_and_a_single_frame_with_none() -> None:
    still = sequence(length=3, still=True)
    assert {pair(still, 10, GENERATOR(seed)) for seed in range(40)} == {(0, 0), (1, 1), (2, 2)}
    assert pair(sequence(length=5, hidden=range(1, 5)), 10, GENERATOR(0)) is None
    assert pair(sequence(length=2, hidden=range(2), still=True), 10, GENERATOR(0)) is None


def test_a_frame_without_a_neighbour_gives_no_pair() -> None:
    frames = sequence(length=100, hidden=[frame for frame in range(100) if frame not in (0, 99)])
    assert {pair(frames, 10, GENERATOR(seed)) for seed in range(20)} == {None}


def drawn(samples: PairSamples, index: int) -> Sample:
    np.random.seed(index)
    return samples.sample(index)


def test_every_set_has_the_same_weight() -> None:
    """However many sequences it has."""
    sets = [Squares(1, shade=50), Squares(9, shade=200)]
    samples = PairSamples(sets, Sampling(1000, 10))
    shades = Counter(int(drawn(samples, index).image[0, 0, 0]) for index in range(200))
    assert set(shades) == {50, 200}
    assert 80 < shades[50] < 120


def test_sequences_that_have_no_pair_are_passed_over_and_sets_without_any_refused() -> None:
    some = Squares(6, hidden={number: range(1, 20) for number in range(5)})
    names = {drawn(PairSamples([some], Sampling(10, 10)), index).image[0, 1, 0] for index in range(10)}
    assert names == {5}
    none = Squares(2, hidden={0: range(20), 1: range(1, 20)})
    with pytest.raises(
        DataError, match=r"squares: of 100 sequences of train .* none has two frames, at most task\.frame_gap 10"
    ):
        drawn(PairSamples([none], Sampling(10, 10)), 0)


class Leaves(Squares):
    """The object reaches out of every frame on the left, and is outside the odd ones."""

    def load(self, index: int) -> Sequence:
        whole = super().load(index)
        boxes = whole.boxes.copy()
        boxes[:, 0] = np.where(np.arange(len(boxes)) % 2, -90, -6)
        return replace(whole, boxes=boxes)


def test_boxes_are_clipped_to_their_frames_and_none_outside_is_drawn() -> None:
    samples = PairSamples([Leaves(2)], Sampling(10, 10))
    for index in range(10):
        boxes = drawn(samples, index).target.boxes
        assert boxes[:, 0].tolist() == [0, 0]
        assert boxes[:, 2].tolist() == [10, 10]
    with pytest.raises(DataError, match="squares: of 100 pairs of train drawn at random each has a box outside"):
        drawn(PairSamples([Leaves(2, length=2)], Sampling(10, 10)), 0)


def test_the_search_region_is_moved_and_scaled_and_always_shows_the_object() -> None:
    box, generator = np.array([40.0, 40, 60, 50]), GENERATOR(1)
    plain = region(box, 4)
    found = [jittered(box, TrackingAugment(), generator) for _ in range(3000)]
    scales = np.log([np.asarray(around.sides) / plain.sides for around, _ in found])
    assert scales.std(0) == pytest.approx(0.25, rel=0.06)
    assert abs(np.corrcoef(scales.T)[0, 1]) < 0.06  # width and height each by itself
    boxes = np.array([inside for _, inside in found])
    assert boxes.min() >= 0
    assert boxes.max() <= 1
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    shares = np.array([(np.asarray(around.centre) - plain.centre) / around.sides for around, _ in found])
    means = np.array([np.mean([20, 10] / np.asarray(around.sides)) for around, _ in found])
    assert np.abs(shares / means[:, None]).max() == pytest.approx(1.5, abs=0.05)
    around, inside = jittered(box, TrackingAugment.none(), generator)
    assert around == plain
    np.testing.assert_allclose(inside, plain.inside(box))


def shown(crop: torch.Tensor, box: Floats) -> float:
    """IoU of the box with the bright square that the crop shows."""
    bright = crop.float().mean(0) > 150
    rows, columns = (torch.nonzero(bright.any(axis))[:, 0] for axis in (1, 0))
    side = crop.shape[-1]
    found = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / side
    met = np.clip(np.minimum(found[2:], box[2:]) - np.maximum(found[:2], box[:2]), 0, None).prod()
    return float(met / (np.prod(found[2:] - found[:2]) + np.prod(box[2:] - box[:2]) - met))


def test_the_box_of_a_pair_lies_on_its_object() -> None:
    samples = PairSamples([Squares(4, square=255)], Sampling(50, 10))
    plain = TrackingAugment(grey=0, brightness=0, contrast=0, saturation=0)
    for index in range(20):
        cropped = CutPair(32, 64, plain)(drawn(samples, index))
        target: PairTarget = cropped.target
        assert cropped.image.shape == (3, 64, 64)
        assert target.search.shape == (3, 32, 32)  # by now the template
        assert shown(cropped.image, target.boxes) > 0.8
        middle = 0.5 - 1 / np.sqrt(4) / 2  # the object has half the template's side
        assert shown(target.search, np.array([middle, middle, 1 - middle, 1 - middle])) > 0.8


def test_both_crops_of_a_pair_become_grey() -> None:
    samples = PairSamples([Squares(4)], Sampling(50, 10))
    cropped = CutPair(32, 64, TrackingAugment(grey=1))(drawn(samples, 0))
    for crop in (cropped.image, cropped.target.search):
        assert torch.equal(crop[0], crop[2])
    colours = CutPair(32, 64, TrackingAugment(grey=0))(drawn(samples, 0)).image
    assert not torch.equal(colours[0], colours[2])


def loaders(pairs: int = 24, **context: Any) -> TrackingLoaders:
    how = TrackingInput(32, 64, Sampling(pairs, 10), TrackingAugment(), "imagenet", 0.5)
    place = DataContext(Path(), (64, 64), "cpu", **{"seed": 3, "batch": 8, **context})
    return TrackingLoaders([Squares(4)], Squares(2, part="val"), how, place)


def test_an_epoch_depends_on_seed_and_epoch_alone_and_worker_processes_change_nothing() -> None:
    def pixels(made: TrackingLoaders, epoch: int) -> list[float]:
        return [float(batch["images"].double().sum()) for batch in made.epoch(epoch)]

    whole = pixels(loaders(), 1)
    assert pixels(loaders(), 1) == whole
    assert pixels(loaders(loader_workers=2), 1) == whole
    assert len({*whole, *pixels(loaders(), 0), *pixels(loaders(seed=4), 1)}) == 9
    first = next(iter(loaders().epoch(1, 2)))
    assert float(first["images"].double().sum()) == whole[2]


def test_drop_path_begins_after_its_epochs() -> None:
    made = loaders()
    drops = [batch["drop"] for epoch in (0, 1) for batch in made.epoch(epoch)]
    assert [set(each) for each in drops] == [{False}, {False}, {True}, {True}, {True}, {True}]
    assert {len(each) for each in drops} == {8}


def test_a_frame_that_cannot_be_read_is_replaced_as_far_as_allowed() -> None:
    how = TrackingInput(32, 64, Sampling(24, 10), TrackingAugment(), "imagenet", 0)

    def made(max_unreadable: float) -> TrackingLoaders:
        context = DataContext(Path(), (64, 64), "cpu", seed=3, batch=8, max_unreadable=max_unreadable)
        return TrackingLoaders([Squares(4, damaged=3)], Squares(2), how, context)

    with pytest.raises(DataError, match=r"squares: cannot read frame 3/\d+"):
        list(made(0).epoch(0))
    generous = made(0.9)
    assert len(list(generous.epoch(0))) == 3
    assert generous.unreadable


def test_images_are_read_once_for_a_still_pair() -> None:
    some = Squares(3, still=True)
    drawn(PairSamples([some], Sampling(4, 10)), 0)
    assert some.read == 1
    assert Image.fromarray(some.image("0/0")).size == (SIDE, SIDE)
