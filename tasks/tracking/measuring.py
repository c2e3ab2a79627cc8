"""Measures a tracker on sequences: figures of each one, as JSON values, so that an evaluation can be resumed."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import time
from collections.abc import Iterable, Iterator
from typing import Any, cast

from tasks.base import Batch
from tasks.datasets.sequences.types import Protocol
from tasks.tracking.baselines import matched, unmoved
from tasks.tracking.crops import Floats, sized
from tasks.tracking.loaders import Tracked
from tasks.tracking.metrics import SequenceFigures
from tasks.tracking.tracker import Tracker

log = logging.getLogger(__name__)
SAID_EVERY_S = 30.0
"""Seconds between lines about the progress in a worker's log."""


def measured(
    tracker: Tracker, batches: Iterable[Batch], at_once: int, protocol: Protocol, baselines: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(item, part) of each sequence as it ends; see `part_of`. Tracks `at_once` of them, or as many as there are."""
    queue = iter(batches)
    first = next(queue, None)
    if first is None:
        return
    items = dict[int, str]()

    def videos() -> Iterator[Tracked]:
        for batch in itertools.chain([first], queue):
            items[id(batch["images"])] = batch["item"]
            yield batch["images"]

    said, ended = time.monotonic(), 0
    for video, boxes, seconds in tracker.track(videos(), min(at_once, first["sequences"])):
        sequence, ended = cast("Tracked", video), ended + 1
        if time.monotonic() - said > SAID_EVERY_S:
            said = time.monotonic()
            speed = tracker.frames / max(tracker.seconds, 1e-9)
            log.info("tracked %d of %d sequences, %.0f frames/s", ended, first["sequences"], speed)
        yield items.pop(id(video)), part_of(sequence, boxes, seconds, protocol, baselines)


def part_of(sequence: Tracked, boxes: Floats, seconds: Floats, protocol: Protocol, baselines: bool) -> dict[str, Any]:
    """`model` (and `still`, `match`): fields of SequenceFigures. Where labels are not public in their place `name`,
    `boxes` (x, y, width, height in pixels of each frame) and `seconds` (of each frame)."""
    if not protocol.public_labels:
        return {"name": sequence.name, "boxes": sized(boxes).tolist(), "seconds": seconds.tolist()}
    tracks = {"model": boxes}
    if baselines:
        tracks |= {"still": unmoved(sequence), "match": matched(sequence)}
    counted = sequence.annotated.counted
    return {
        name: dataclasses.asdict(SequenceFigures.of(sequence.name, track, sequence.boxes, counted, protocol.kind))
        for name, track in tracks.items()
    }
