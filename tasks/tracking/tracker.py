"""Follows objects through sequences, several at once as one batch, each in the region around its last box."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from tasks.datasets.sequences.types import Pixels
from tasks.datasets.transforms import Normalizing, normalized, on_device
from tasks.tracking.crops import (
    SEARCH_FACTOR,
    TEMPLATE_FACTOR,
    Colour,
    Floats,
    Region,
    clipped,
    cut,
    has_area,
    mean_colour,
    region,
    with_least_size,
)
from tasks.tracking.model import TrackingModel, hann_window
from tasks.tracking.options import Inference


class Video(Protocol):
    """A sequence to track."""

    @property
    def first_box(self) -> Floats:
        """(4,) left, top, right, bottom of the object in frame 0, in pixels."""

    def __len__(self) -> int:
        """Frames."""

    def frames(self, known: int = 1) -> Iterator[Pixels]:
        """The first one, then all but the first `known`. Raises DataError for one that cannot be read."""


@dataclass
class Track:
    """What is found of the object in a video so far; with the first frame, all that the frames to come need."""

    video: Video
    boxes: list[Floats] = field(default_factory=list)
    """Of the frames so far (left, top, right, bottom), the first being the given one."""
    last: Floats | None = None
    """The last box that reaches into its frame, clipped to it: what the next search region is around. None: the given
    one."""
    seconds: list[float] = field(default_factory=list)
    """That each took: its share of the time for a batch."""
    looked_for: Video | None = None
    """The video whose first box gives the template, of another object; None: this one."""

    @property
    def ended(self) -> bool:
        return len(self.boxes) == len(self.video)


@dataclass
class _Target:
    """The state of a tracked object."""

    track: Track
    frames: Iterator[Pixels]
    """Those that are still to come."""
    template: Tensor
    """(tokens, width)"""
    colour: Colour
    """Of what lies beyond a frame: the mean of the first one."""
    given: int
    """Frames whose boxes `follow` has given."""


class Tracker:
    """A model with the rules of inference of SwinTrack's public code."""

    def __init__(self, model: TrackingModel, how: Inference, normalize: Normalizing) -> None:
        self._model, self._how, self._normalize = model, how, normalize
        self._device = next(model.parameters()).device
        self._window = hann_window(model.grid).to(self._device)
        self.frames, self.seconds = 0, 0.0
        """Frames so far, the first of each video included, and how long they took, with reading them."""

    @torch.no_grad()
    def track(self, videos: Iterable[Video], at_once: int) -> Iterator[tuple[Video, Floats, Floats]]:
        """Yields each video, as soon as it ends, with its boxes (frames, 4), left, top, right, bottom, and the seconds
        (frames,) that each frame took, as a share of its batch's.

        So many videos are tracked at a time. Every batch has `at_once` rows, repeating one where there are fewer
        videos, so that the boxes of a video do not depend on what is tracked beside it.
        """
        for track in self.follow(map(Track, videos), at_once):
            if track.ended:
                yield track.video, np.stack(track.boxes), np.array(track.seconds)

    @torch.no_grad()
    def follow(self, tracks: Iterable[Track], at_once: int) -> Iterator[Track]:
        """`track` for videos of which some frames may be known. Yields each of the tracks when it ends, and those under
        way before more of their boxes have not been given than the shortest has frames."""
        queue, targets = iter(tracks), list[_Target]()
        while True:
            new = list(itertools.islice(queue, at_once - len(targets)))
            if new:
                with self._timed(begun := list[_Target]()):
                    begun += self._begun(new, at_once)
                targets += begun
            if not targets:
                return
            running = [target for target in targets if not target.track.ended]
            if running:
                yield from _due(running)
                with self._timed(running):
                    self._step(running, at_once)
            for target in targets:
                if target.track.ended:
                    yield target.track
            targets = [target for target in targets if not target.track.ended]

    @contextmanager
    def _timed(self, targets: list[_Target]) -> Iterator[None]:
        """Shares the time of a batch out to its targets; that for the first frame counts once."""
        began = time.monotonic()
        yield
        seconds = time.monotonic() - began
        self.frames += len(targets)
        self.seconds += seconds
        for target in targets:
            if len(target.track.seconds) < len(target.track.boxes):
                target.track.seconds.append(seconds / len(targets))

    def _begun(self, tracks: Sequence[Track], rows: int) -> list[_Target]:
        """The targets of the tracks, in their first frame or the last one that is known."""
        ahead = [track.video.frames(max(1, len(track.boxes))) for track in tracks]
        first = [next(frames) for frames in ahead]
        others = [track.looked_for for track in tracks]
        shown = [frame if other is None else next(other.frames()) for frame, other in zip(first, others, strict=True)]
        crops = [
            cut(frame, region((other or track.video).first_box, TEMPLATE_FACTOR), self._model.template_side)
            for frame, other, track in zip(shown, others, tracks, strict=True)
        ]
        tokens: Tensor = self._model(templates=self._batch(crops, rows))
        colours = [mean_colour(frame) for frame in first]
        for track in tracks:
            if not track.boxes:
                track.boxes.append(np.asarray(track.video.first_box, np.float64))
        return [
            _Target(track, frames, template, colour, len(track.boxes))
            for track, frames, template, colour in zip(tracks, ahead, tokens, colours, strict=False)
        ]

    def _step(self, targets: Sequence[_Target], rows: int) -> None:
        """Finds each target in its next frame."""
        frames = [next(target.frames) for target in targets]
        regions = [self._searched(target.track) for target in targets]
        crops = [
            cut(frame, part, self._model.search_side, target.colour)
            for frame, part, target in zip(frames, regions, targets, strict=True)
        ]
        tokens = torch.stack(_filled([target.template for target in targets], rows))
        scores, boxes = self._model(tokens=tokens, searches=self._batch(crops, rows))
        penalty = self._how.window_penalty
        best = (scores * (1 - penalty) + self._window * penalty).flatten(1).argmax(1)
        chosen = boxes.flatten(1, 2)[torch.arange(rows, device=best.device), best].double().cpu().numpy()
        for target, frame, part, (x, y, width, height) in zip(targets, frames, regions, chosen, strict=False):
            inside = np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
            self._found(target.track, part.outside(inside), frame)

    def _searched(self, track: Track) -> Region:
        last = track.video.first_box if track.last is None else track.last
        return region(with_least_size(last, self._how.least_size), SEARCH_FACTOR)

    def _found(self, track: Track, box: Floats, frame: Pixels) -> None:
        """Adds the box of a frame to the track."""
        seen = clipped(box, frame.shape[1], frame.shape[0])
        if has_area(seen):
            track.last = seen
        elif track.last is None:
            track.last = track.video.first_box
        track.boxes.append(box if self._how.reported == "predicted" else track.last)

    def _batch(self, crops: Sequence[Any], rows: int) -> Tensor:
        """(rows, 3, s, s) normalised, on the device."""
        pixels = _filled([pil_to_tensor(crop) for crop in crops], rows)
        return normalized(on_device(torch.stack(pixels), self._device), self._normalize)


def _due(targets: Sequence[_Target]) -> Iterator[Track]:
    """The tracks with boxes that were not given, when those of one more step would make them too many."""
    waiting = sum(len(target.track.boxes) - target.given for target in targets)
    if waiting + len(targets) <= min(len(target.track.video) for target in targets):
        return
    for target in targets:
        if len(target.track.boxes) > target.given:
            target.given = len(target.track.boxes)
            yield target.track


def _filled(rows: list[Tensor], count: int) -> list[Tensor]:
    """So many rows: the last one is repeated."""
    return rows + rows[-1:] * (count - len(rows))
