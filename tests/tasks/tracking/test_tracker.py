"""The tracker finds what its model sees: states, window, clipping; the same boxes however sequences are batched."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
import pytest
import torch
from moving_squares import Squares
from torch import Tensor, nn

from tasks.backbones.spec import BackboneSpec
from tasks.base import Piece
from tasks.errors import DataError
from tasks.tracking.baselines import matched, misled, unmoved
from tasks.tracking.crops import Floats
from tasks.tracking.loaders import Tracked
from tasks.tracking.measuring import continued, measured
from tasks.tracking.metrics import overlap
from tasks.tracking.model import TrackingModel, hann_window
from tasks.tracking.options import FusionOptions, Inference
from tasks.tracking.task import Tracking
from tasks.tracking.tracker import Tracker

TINY = BackboneSpec(
    model="swinv2_tiny_window8_256",
    args={"patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4},
    image_size=64,
)


class SeesBright(nn.Module):
    """In the place of a model: scores each token by its brightness and puts a box around all that is bright."""

    grid, template_side, search_side = (8, 8), 32, 64

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))
        self.rows: list[int] = []

    def forward(
        self, templates: Tensor | None = None, searches: Tensor | None = None, tokens: Tensor | None = None
    ) -> Any:
        if searches is None:
            assert templates is not None
            return torch.zeros(len(templates), 1, 1)
        self.rows.append(len(searches))
        bright = searches.mean(1) > 1.0  # of normalised pixels
        scores = nn.functional.avg_pool2d(bright.float(), 8).clamp(0.001, 0.999)
        boxes = torch.zeros(len(searches), 8, 8, 4)
        for box, each in zip(boxes, bright, strict=True):
            rows, columns = (torch.nonzero(each.any(axis))[:, 0] for axis in (1, 0))
            if len(rows):
                (x0, x1), (y0, y1) = ((int(axis[0]), int(axis[-1]) + 1) for axis in (columns, rows))
                box[:] = torch.tensor([x0 + x1, y0 + y1, 2 * (x1 - x0), 2 * (y1 - y0)]) / 128
        return scores, boxes


def tracker(model: Any = None, **inference: Any) -> Tracker:
    return Tracker(model or SeesBright(), Inference(**inference), "imagenet")


def tracks(tracker: Tracker, some: Squares, at_once: int) -> dict[str, Floats]:
    videos = [Tracked(some, index) for index in range(len(some))]
    return {video.name: boxes for video, boxes, _ in tracker.track(videos, at_once)}  # type: ignore[attr-defined]


def test_it_follows_the_object_from_frame_to_frame() -> None:
    some = Squares(3, square=255)
    found = tracks(tracker(), some, 2)
    for index in range(3):
        truth = Tracked(some, index).boxes
        boxes = found[f"square {index}"]
        assert boxes.shape == truth.shape
        np.testing.assert_array_equal(boxes[0], truth[0])
        assert overlap(boxes, truth).min() > 0.85


def test_every_sequence_ends_once_and_batches_keep_their_size() -> None:
    model = SeesBright()
    lengths = [5, 1, 9, 2, 7]
    found = tracks(tracker(model), Squares(5, lengths=lengths, square=255), 3)
    assert [len(found[f"square {index}"]) for index in range(5)] == lengths
    assert set(model.rows) == {3}
    assert len(model.rows) < sum(lengths) - 5  # several at once


def test_what_is_tracked_beside_a_sequence_does_not_change_its_boxes() -> None:
    """To the last bit: figures of an evaluation that was interrupted are those of one that was not."""
    torch.manual_seed(0)
    task = Tracking(dataset="scene-tracks", stride=8, fusion=FusionOptions(width=16, heads=2, blocks=1, init_std=0.5))
    model = task.build(TINY, None).eval()
    some = Squares(5, lengths=[6, 4, 8, 3, 7])
    whole = tracks(tracker(model), some, 4)
    assert len({boxes[-1].tobytes() for boxes in whole.values()}) == 5
    for index in range(5):
        (alone,) = [boxes for _, boxes, _ in tracker(model).track([Tracked(some, index)], 4)]
        np.testing.assert_array_equal(alone, whole[f"square {index}"])
    one_by_one = tracks(tracker(model), some, 1)
    for name, boxes in whole.items():
        np.testing.assert_allclose(one_by_one[name], boxes, atol=1e-3)


class Killed(Exception):
    pass


class Dies(nn.Module):
    """A model that stops the process, as it were, after so many passes."""

    def __init__(self, model: TrackingModel, passes: int) -> None:
        super().__init__()
        self.model, self.passes = model, passes
        self.grid, self.template_side, self.search_side = model.grid, model.template_side, model.search_side

    def forward(self, **inputs: Any) -> Any:
        if self.passes == 0:
            raise Killed
        self.passes -= 1
        return self.model(**inputs)


def test_what_is_known_of_a_sequence_is_not_tracked_again() -> None:
    """After a kill at any frame the boxes are the same to the last bit, and at most as many frames are tracked again as
    the shortest sequence has, besides the first frame of those under way."""
    torch.manual_seed(0)
    task = Tracking(dataset="scene-tracks", stride=8, fusion=FusionOptions(width=16, heads=2, blocks=1, init_std=0.5))
    model = task.build(TINY, None).eval()
    some = Squares(5, lengths=[6, 9, 11, 7, 8], public=False)

    def attempt(passes: int, parts: dict[str, Any], pieces: dict[str, list[Any]]) -> int:
        """Frames that were tracked."""
        made = tracker(Dies(model, passes))
        batches = [
            {"item": f"{index}", "images": Tracked(some, index), "sequences": 5, "begun": pieces.get(f"{index}", [])}
            for index in range(5)
            if f"{index}" not in parts
        ]
        with contextlib.suppress(Killed):
            for item, part in measured(made, batches, 3, some.protocol, ()):
                if isinstance(part, Piece):
                    pieces.setdefault(item, []).append(json.loads(json.dumps(part.value)))
                else:
                    parts[item] = part["boxes"]
                    assert len(part["seconds"]) == len(part["boxes"])
        return made.frames

    whole: dict[str, Any] = {}
    frames = attempt(-1, whole, {})
    assert frames == 41
    for passes in range(1, 18):
        parts, pieces = dict[str, Any](), dict[str, list[Any]]()
        tracked = attempt(passes, parts, pieces)
        tracked += attempt(2, parts, pieces)  # killed again at once
        tracked += attempt(-1, parts, pieces)
        assert parts == whole
        assert tracked <= frames + 2 * (6 + 3)


def test_a_piece_after_a_gap_is_not_taken() -> None:
    video = Tracked(Squares(1), 0)
    pieces = [
        {"from": first, "boxes": [[0, 0, 4, 4]] * 3, "last": None, "seconds": [0.1] * 3} for first in (0, 6, 3, 9)
    ]
    assert len(continued(video, pieces).boxes) == 6
    assert continued(video, pieces[1:]).boxes == []


class Answers(SeesBright):
    """Gives one answer for every frame."""

    def __init__(self, scores: Tensor, box: tuple[float, ...]) -> None:
        super().__init__()
        self._scores, self._box = scores, box

    def forward(
        self, templates: Tensor | None = None, searches: Tensor | None = None, tokens: Tensor | None = None
    ) -> Any:
        if searches is None:
            return super().forward(templates)
        boxes = torch.zeros(len(searches), 8, 8, 4)
        boxes[:] = torch.tensor(self._box)
        boxes[..., 2] *= self._scores  # the token that is chosen decides the width
        return self._scores.expand(len(searches), 8, 8), boxes


@pytest.mark.parametrize(("penalty", "chosen"), [(0.0, 0.9), (0.49, 0.6)])
def test_the_window_prefers_the_middle(penalty: float, chosen: float) -> None:
    scores = torch.full((8, 8), 0.1)
    scores[0, 0], scores[4, 3] = 0.9, 0.6
    some = Squares(1, length=2)
    (boxes,) = tracks(tracker(Answers(scores, (0.5, 0.5, 0.5, 0.25)), window_penalty=penalty), some, 1).values()
    side = 4 * 16  # of the search region of a square of 16 pixels
    assert boxes[1, 2] - boxes[1, 0] == pytest.approx(0.5 * chosen * side, rel=1e-5)


@pytest.mark.parametrize("reported", ["predicted", "clipped"])
def test_a_box_is_followed_as_far_as_it_is_in_the_image(reported: str) -> None:
    """And one outside not at all; reported is the model's own box, as in SwinTrack's code, or the part in the image."""
    scores, plain = torch.full((8, 8), 1.0), Squares(1, length=4)
    (wide,) = tracks(tracker(Answers(scores, (0.5, 0.5, 20.0, 20.0)), reported=reported), plain, 1).values()
    first = Tracked(plain, 0).first_box
    middle = (first[:2] + first[2:]) / 2
    around = np.concatenate([middle - 10 * 4 * 16, middle + 10 * 4 * 16])
    np.testing.assert_allclose(wide[1], around if reported == "predicted" else [0, 0, 96, 96], atol=1e-3)
    whole = np.array([48 - 10 * 4 * 96, 48 - 10 * 4 * 96, 48 + 10 * 4 * 96, 48 + 10 * 4 * 96])  # around the image
    np.testing.assert_allclose(wide[2], whole if reported == "predicted" else [0, 0, 96, 96], atol=1e-2)
    (gone,) = tracks(tracker(Answers(scores, (50.0, 50.0, 0.1, 0.1)), reported=reported), plain, 1).values()
    assert (gone[1:] == gone[1]).all()  # the search region stays where it was
    assert (gone[1] == gone[0]).all() == (reported == "clipped")


def test_a_small_box_is_searched_around_as_if_it_were_ten_pixels() -> None:
    model = Answers(torch.full((8, 8), 1.0), (0.5, 0.5, 0.02, 0.02))
    some = Squares(1, length=3)
    (boxes,) = tracks(tracker(model), some, 1).values()
    sides = (boxes[:, 2:] - boxes[:, :2])[:, 0]
    assert sides[1] == pytest.approx(0.02 * 4 * 16, rel=1e-5)
    assert sides[2] == pytest.approx(0.02 * 4 * 10, rel=1e-5)


def test_hann_window_is_one_in_the_middle_and_zero_at_the_edge() -> None:
    window = hann_window((5, 7))
    assert window.shape == (5, 7)
    assert window[2, 3] == 1
    assert window[0].abs().max() == window[:, -1].abs().max() < 1e-6


def test_times_are_shared_out() -> None:
    videos = [Tracked(Squares(3), index) for index in range(3)]
    made = tracker()
    seconds = [each for _, _, each in made.track(videos, 2)]
    assert [len(each) for each in seconds] == [20, 20, 20]
    assert sum(each.sum() for each in seconds) == pytest.approx(made.seconds)
    assert made.frames == 60


def test_baselines() -> None:
    video = Tracked(Squares(1, texture=True), 0)
    assert (unmoved(video) == video.first_box).all()
    np.testing.assert_allclose(matched(video), video.boxes, atol=1)  # a pattern that never changes is found
    plain = Tracked(Squares(1, square=60), 0)  # nothing to find
    assert matched(plain).shape == plain.boxes.shape


class Compares(SeesBright):
    """Finds a bright object when its template shows one, and else the corner of the search region."""

    def forward(
        self, templates: Tensor | None = None, searches: Tensor | None = None, tokens: Tensor | None = None
    ) -> Any:
        if searches is None:
            assert templates is not None
            return templates.amax((1, 2, 3))[:, None, None]
        assert tokens is not None
        scores, boxes = super().forward(searches=searches)
        boxes[tokens[:, 0, 0] < 1.5] = torch.tensor([0.1, 0.1, 0.2, 0.2])
        return scores, boxes


def test_another_objects_template_shows_whether_a_tracker_compares() -> None:
    bright, dark = Tracked(Squares(1, square=255), 0), Tracked(Squares(1, square=60), 0)
    for model, compares in ((SeesBright(), False), (Compares(), True)):
        made = tracker(model)
        ((_, own, _),) = made.track([bright], 1)
        assert overlap(own, bright.boxes).min() > 0.85
        np.testing.assert_array_equal(misled(made, bright, bright), own)
        assert made.frames == len(bright)  # what was tracked for comparison does not count
        other = misled(made, bright, dark)
        np.testing.assert_array_equal(other[0], bright.first_box)
        assert (overlap(other, bright.boxes)[1:].mean() < 0.2) == compares
        assert np.array_equal(other, own) != compares


def test_the_other_sequence_is_half_of_the_set_further_on() -> None:
    for count, others in ((2, [1, 0]), (5, [2, 3, 4, 0, 1])):
        some = Squares(count)
        assert [Tracked(some, index).far_one().name for index in range(count)] == [
            f"square {index}" for index in others
        ]
    with pytest.raises(
        DataError, match=r"squares has one sequence of train, .* task\.other_template .* set it to false"
    ):
        Tracked(Squares(1), 0).far_one()


def test_a_template_of_a_pixel_or_two_is_not_looked_for() -> None:
    class Thin(Tracked):
        @property
        def first_box(self) -> Floats:
            return self.boxes[0] + [0, 0, -14.5, 0]

    video = Thin(Squares(1, texture=True), 0)
    assert (matched(video) == video.first_box).all()


def test_a_box_is_measured_from_the_region_or_from_its_token() -> None:
    def untrained(box_from: str) -> Tensor:
        options = FusionOptions(width=16, heads=2, blocks=1, init_std=1e-9, box_from=box_from)
        model = Tracking(dataset="scene-tracks", stride=8, fusion=options).build(TINY, None).eval()
        with torch.no_grad():
            return model(templates=torch.zeros(1, 3, 32, 32), searches=torch.zeros(1, 3, 64, 64))[1][0]

    torch.testing.assert_close(untrained("region"), torch.full((8, 8, 4), 0.5))
    boxes = untrained("token")
    for row, column in ((0, 0), (3, 5), (7, 7)):
        middle = torch.tensor([(column + 0.5) / 8, (row + 0.5) / 8, 0.5, 0.5])
        torch.testing.assert_close(boxes[row, column], middle)


def test_model_takes_template_and_search_region_with_one_backbone() -> None:
    torch.manual_seed(0)
    options = FusionOptions(width=16, heads=2, blocks=1)
    model = Tracking(dataset="scene-tracks", stride=8, fusion=options).build(TINY, None).eval()
    assert isinstance(model, TrackingModel)
    templates, searches = torch.randn(2, 3, 32, 32), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        scores, boxes = model(templates=templates, searches=searches)
        tokens = model(templates=templates)
        again = model(tokens=tokens, searches=searches)
    assert (scores.shape, boxes.shape, tokens.shape) == ((2, 8, 8), (2, 8, 8, 4), (2, 16, 16))
    torch.testing.assert_close(again, (scores, boxes))
