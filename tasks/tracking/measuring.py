"""Measures a tracker on sequences: figures of each one, and pieces of those under way, as JSON values, so that an
evaluation can be resumed."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, cast

import numpy as np

from tasks.base import Batch, Piece
from tasks.datasets.sequences.types import Protocol
from tasks.tracking.baselines import matched, misled, unmoved
from tasks.tracking.crops import Floats, sized
from tasks.tracking.loaders import Tracked
from tasks.tracking.metrics import SequenceFigures
from tasks.tracking.tracker import Track, Tracker

log = logging.getLogger(__name__)
SAID_EVERY_S = 30.0
"""Seconds between lines about the progress in a worker's log."""


def measured(
    tracker: Tracker, batches: Iterable[Batch], at_once: int, protocol: Protocol, beside: Collection[str]
) -> Iterator[tuple[str, dict[str, Any] | Piece]]:
    """(item, part) of each sequence as it ends, see `part_of`; before that, where they are kept, its pieces, see
    `piece_of`. Tracks `at_once` of them, or as many as there are. `beside`: what is measured too, by name."""
    queue = iter(batches)
    first = next(queue, None)
    if first is None:
        return
    items, kept = dict[int, str](), dict[str, int]()  # kept: frames of each item

    def tracks() -> Iterator[Track]:
        for batch in itertools.chain([first], queue):
            track = continued(batch["images"], batch["begun"] or [])
            items[id(track)] = batch["item"]
            if batch["begun"] is not None:
                kept[batch["item"]] = len(track.boxes)
            yield track

    said, ended = time.monotonic(), 0
    for track in tracker.follow(tracks(), min(at_once, first["sequences"])):
        item = items[id(track)]
        if not track.ended:
            if item in kept:
                yield item, piece_of(track, kept[item])
                kept[item] = len(track.boxes)
            continue
        ended += 1
        if time.monotonic() - said > SAID_EVERY_S:
            said = time.monotonic()
            speed = tracker.frames / max(tracker.seconds, 1e-9)
            log.info("tracked %d of %d sequences, %.0f frames/s", ended, first["sequences"], speed)
        del items[id(track)]
        sequence, boxes = cast("Tracked", track.video), np.stack(track.boxes)
        yield item, part_of(sequence, boxes, np.array(track.seconds), protocol, beside, tracker)


def piece_of(track: Track, known: int) -> Piece:
    """What a track has found after its first `known` frames."""
    boxes = [box.tolist() for box in track.boxes[known:]]
    last = None if track.last is None else track.last.tolist()
    return Piece({"from": known, "boxes": boxes, "last": last, "seconds": track.seconds[known:]})


def continued(video: Tracked, pieces: Sequence[Any]) -> Track:
    """The track of a video as far as pieces without a gap go; `pieces`: values of `piece_of`."""
    track = Track(video)
    for piece in pieces:
        if piece["from"] == len(track.boxes):
            track.boxes += [np.array(box, np.float64) for box in piece["boxes"]]
            track.last = None if piece["last"] is None else np.array(piece["last"], np.float64)
            track.seconds += piece["seconds"]
    return track


def part_of(
    sequence: Tracked, boxes: Floats, seconds: Floats, protocol: Protocol, beside: Collection[str], tracker: Tracker
) -> dict[str, Any]:
    """`model`, and those of `beside` (`still`, `match`, `other`): fields of SequenceFigures. Where labels are not
    public in their place `name`, `boxes` (x, y, width, height in pixels of each frame) and `seconds` (of each)."""
    if not protocol.public_labels:
        return {"name": sequence.name, "boxes": sized(boxes).tolist(), "seconds": seconds.tolist()}
    tracks = {"model": boxes}
    if "still" in beside:
        tracks["still"] = unmoved(sequence)
    if "match" in beside:
        tracks["match"] = matched(sequence)
    if "other" in beside:
        tracks["other"] = misled(tracker, sequence, sequence.far_one())
    counted = sequence.annotated.counted
    size = sequence.size() if protocol.kind == "got10k" else None
    return {
        name: dataclasses.asdict(SequenceFigures.of(sequence.name, track, sequence.boxes, counted, size))
        for name, track in tracks.items()
    }
