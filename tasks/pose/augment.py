"""What the augmentation of pose draws for one person, to be carried out on whole batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.datasets.transforms import Size
from tasks.pose.boxes import Floats, covering, input_matrices, warped_points
from tasks.pose.joints import Skeleton
from tasks.pose.options import PoseAugment

HALF_BODY_PADDING = 1.5
"""Of the box around the joints of half a body (Simple Baseline's successors, PCT, mmpose)."""
_LEAST_OF_A_HALF = 3
"""Labelled joints that a half of the body needs to be chosen."""
_UNIFORM_DRAWS = 20
NEUTRAL = (1.0, 1.0, 1.0, 0.0)
"""Factors of brightness, contrast and saturation, and shift of hue, that change no colour."""


@dataclass(frozen=True)
class Person:
    """A person in an image, as annotated."""

    joints: Floats
    """(k, 2) pixels of the image; of any value where not labelled."""
    labelled: NDArray[np.bool_]
    """(k,): COCO's visibility above 0."""
    centre: Floats
    """(2,) of the box."""
    scale: Floats
    """(2,) of the box, see `boxes.centre_and_scale`."""


@dataclass(frozen=True)
class Drawn:
    """What is done to one sample."""

    centre: Floats
    """(2,) pixels of the image."""
    scale: Floats
    """(2,) pixels of the image."""
    rotation: float
    """Degrees."""
    mirrored: bool
    """The input is mirrored after the warp. That is the same as mirroring the image before it, with the other sense of
    rotation, and needs no width of the image."""
    colours: Floats
    """(4,): factors of brightness, contrast and saturation, and shift of hue; `NEUTRAL` without colour jitter."""
    colour_order: NDArray[np.int64]
    """(4,): indices into `colours`, in the order in which they are applied."""
    grid: NDArray[np.int64]
    """(4,) pixels: distance of the squares, their side, x and y of the first one; all 0 without grid dropout."""

    def matrix(self, size: Size) -> Floats:
        """(2, 3): from pixels of the image to pixels of the input."""
        return input_matrices(self.centre, self.scale, self.rotation, size, self.mirrored)

    def joints(self, person: Person, skeleton: Skeleton, matrix: Floats) -> tuple[Floats, NDArray[np.bool_]]:
        """(k, 2) pixels of the input, and (k,) which are labelled; left and right changed places if mirrored.

        `matrix`: of this for the size of the input.
        """
        places = warped_points(person.joints, matrix)
        order = skeleton.flip_order if self.mirrored else list(range(len(skeleton)))
        return places[order], person.labelled[order]


def draw(augment: PoseAugment, person: Person, skeleton: Skeleton, size: Size, generator: np.random.Generator) -> Drawn:
    """Draws the augmentation of one sample.

    `generator`: seeded by the caller for (seed, epoch, sample). All numbers are drawn first, whatever the options and
    the person, so that one option changes nothing in what another draws. Raises ValueError for a `grid_unit` larger
    than the input.
    """
    if augment.grid_dropout and augment.grid_unit[1] > min(size):
        raise ValueError(
            f"grid_unit {list(augment.grid_unit)} is larger than the input of {size[0]} x {size[1]} pixels: lower it"
        )
    uniform = generator.random(_UNIFORM_DRAWS)
    normal = generator.standard_normal(2)
    centre, scale = person.centre, person.scale
    if uniform[0] < augment.box_shift_prob:
        centre = centre + (2 * uniform[1:3] - 1) * augment.box_shift * scale
    if uniform[4] < augment.half_body:
        centre, scale = _half_body(augment, person, skeleton, size, bool(uniform[5] < augment.upper_half)) or (
            centre,
            scale,
        )
    scale = scale * min(max(1 + normal[0] * augment.scale, 1 - augment.scale), 1 + augment.scale)
    turned = uniform[6] < augment.rotation_prob
    rotation = float(min(max(normal[1] * augment.rotation, -augment.rotation_limit), augment.rotation_limit))
    return Drawn(
        centre=centre,
        scale=scale,
        rotation=rotation if turned else 0.0,
        mirrored=bool(uniform[3] < augment.flip),
        colours=_colours(augment, uniform[7:12]),
        colour_order=np.argsort(uniform[12:16]),
        grid=_grid(augment, uniform[16:20]),
    )


def _half_body(
    augment: PoseAugment, person: Person, skeleton: Skeleton, size: Size, upper_first: bool
) -> tuple[Floats, Floats] | None:
    """Centre and scale of half a body: the mean of its labelled joints, and 1.5 times the box around them.

    None for a person with too few labelled joints, or if all of the half lie in one place. A half of fewer than three
    labelled joints gives way to the other; without any of three the upper half is taken, if it has two.
    """
    least = skeleton.half_body_above if augment.half_body_above is None else augment.half_body_above
    if person.labelled.sum() <= least:
        return None
    upper, lower = (person.joints[person.labelled & half] for half in (skeleton.is_upper, ~skeleton.is_upper))
    chosen = next((h for h in ((upper, lower) if upper_first else (lower, upper)) if len(h) >= _LEAST_OF_A_HALF), upper)
    if len(chosen) < 2:
        return None
    sides = chosen.max(0) - chosen.min(0)
    if not sides.any():
        return None
    return chosen.mean(0), covering(sides, size) * HALF_BODY_PADDING


def _colours(augment: PoseAugment, uniform: Floats) -> Floats:
    """`uniform` (5,): whether; brightness, contrast, saturation, hue."""
    if uniform[0] >= augment.jitter_prob:
        return np.array(NEUTRAL)
    strength = np.array([augment.brightness, augment.contrast, augment.saturation, augment.hue])
    return np.asarray(NEUTRAL + (2 * uniform[1:] - 1) * strength)


def _grid(augment: PoseAugment, uniform: Floats) -> NDArray[np.int64]:
    """`uniform` (4,): whether; distance, x and y.

    As albumentations' GridDropout with random_offset, less its distances of one pixel more than asked for.
    """
    if uniform[0] >= augment.grid_dropout:
        return np.zeros(4, dtype=np.int64)
    low, high = augment.grid_unit
    unit = low + int(uniform[1] * (high - low + 1))
    hole = min(max(int(unit * augment.grid_hole), 1), unit - 1)
    x, y = (int(value * (unit - hole + 1)) for value in uniform[2:])
    return np.array([unit, hole, x, y], dtype=np.int64)
