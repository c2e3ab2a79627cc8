"""What a tracker must beat: a box that never moves, normalised cross-correlation with the first frame, and itself with
another object's template."""

from __future__ import annotations

import copy

import numpy as np

from tasks.datasets.sequences.types import Pixels
from tasks.tracking.crops import SEARCH_FACTOR, Floats, clipped, has_area, region
from tasks.tracking.tracker import Track, Tracker, Video

LEAST_SIDE = 3
"""Pixels; a smaller template has no pattern to compare."""


def unmoved(video: Video) -> Floats:
    """(frames, 4): the first box in each frame."""
    return np.tile(video.first_box, (len(video), 1))


def matched(video: Video) -> Floats:
    """(frames, 4): where the grey pixels of the first box correlate best (skimage's match_template), within the region
    around the last place that the model would search too. The size stays. The box of a frame is the last one where
    the region is smaller than the template, or the template has fewer than three pixels along a side."""
    from skimage.feature import match_template

    frames = map(_grey, video.frames())
    first = next(frames)
    height, width = first.shape
    box = clipped(video.first_box, width, height).round().astype(int)
    template = first[box[1] : box[3], box[0] : box[2]]
    boxes = [np.asarray(video.first_box, np.float64)]
    for frame in frames:
        around = region(boxes[-1], SEARCH_FACTOR)
        left, top, right, bottom = (
            clipped(around.outside(np.array([0.0, 0, 1, 1])), frame.shape[1], frame.shape[0]).round().astype(int)
        )
        searched = frame[top:bottom, left:right]
        if min(template.shape) < LEAST_SIDE or any(np.less(searched.shape, template.shape)):
            boxes.append(boxes[-1])
            continue
        scores = match_template(searched, template)
        row, column = np.unravel_index(int(np.argmax(scores)), scores.shape)
        corner = np.array([left + column, top + row])
        moved = video.first_box + np.tile(corner - box[:2], 2)
        boxes.append(moved if has_area(clipped(moved, frame.shape[1], frame.shape[0])) else boxes[-1])
    return np.stack(boxes)


def misled(tracker: Tracker, video: Video, other: Video) -> Floats:
    """(frames, 4): where the tracker finds the object of `other` in `video`, from the first box of `video` on. One that
    compares with its template should do worse than with the right one. Tracked alone; the time is not counted."""
    (track,) = [each for each in copy.copy(tracker).follow([Track(video, looked_for=other)], 1) if each.ended]
    return np.stack(track.boxes)


def _grey(frame: Pixels) -> Floats:
    """(height, width)"""
    grey: Floats = frame.astype(np.float64) @ np.array([0.2989, 0.587, 0.114])
    return grey
