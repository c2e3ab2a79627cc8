"""Articulated figures with COCO's 17 joints: drawn at random, mirrored, and painted part by part with exact masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tasks.datasets.scenes.shapes import cover
from tasks.datasets.scenes.textures import Floats, Pixels, Textures, blended, shades, tinted

JOINTS = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
"""COCO's, in its order."""
FLIPPED = (0, *(i + (1 if i % 2 else -1) for i in range(1, 17)))
"""For each joint the one that takes its place in a mirrored image."""
HEAD = 0.105
"""Radius of the head, as a part of a standing figure's height; large, so that the face is several pixels wide."""
THIN = {"arm": 0.052, "forearm": 0.045, "thigh": 0.07, "shin": 0.056}
"""Half the width of limbs, as a part of the height."""


@dataclass(frozen=True)
class Figure:
    """A figure before it is painted. Positions are in pixels; 0 is the centre of the first pixel."""

    joints: Floats
    """(17, 2)"""
    head: Floats
    """(2,): its centre."""
    height: float
    """Of the figure when it stands upright, in pixels."""
    front: bool
    """False: it is seen from behind, so that its left is to the left, and the face is hidden."""
    arms_in_front: tuple[bool, bool]
    """Left and right: painted over the torso, or under it."""
    left_leg_in_front: bool

    def mirrored(self, width: int) -> Figure:
        """The figure in an image of this width mirrored left to right; its left side is then its right one."""
        flip = np.array([-1.0, 1.0])
        shift = np.array([width - 1.0, 0.0])
        return replace(
            self,
            joints=self.joints[list(FLIPPED)] * flip + shift,
            head=self.head * flip + shift,
            arms_in_front=self.arms_in_front[::-1],
            left_leg_in_front=not self.left_leg_in_front,
        )

    def named(self, joint: str) -> Floats:
        position: Floats = self.joints[JOINTS.index(joint)]
        return position


@dataclass(frozen=True)
class Look:
    """What a figure is filled with: a picture of a photograph's texture for each of five parts, all of the size of the
    image. The two sides differ, in another way for each figure, so that colours say what belongs together and only the
    figure's pose and face say which side is left: a mirrored image is as likely as the image."""

    torso: Pixels
    left: Pixels
    right: Pixels
    skin: Pixels
    hair: Pixels

    def of(self, fill: str | tuple[int, int, int], shape: tuple[int, ...]) -> Pixels:
        """The picture that a part is filled with. `shape`: of the image."""
        if isinstance(fill, str):
            pixels: Pixels = getattr(self, fill)
            return pixels
        return np.broadcast_to(np.array(fill, np.uint8), shape)


@dataclass(frozen=True)
class Part:
    """A piece of a figure: its outline, what it is filled with, and the joints that it shows where nothing lies over
    it."""

    outline: Floats
    fill: str | tuple[int, int, int]
    """A field of Look, or a colour."""
    joints: tuple[str, ...] = ()


def drawn_figure(random: np.random.Generator, height: float, middle: tuple[float, float]) -> Figure:
    """A figure of random pose. `middle`: where the middle of its torso lies, in pixels."""
    front = random.random() < 0.9
    side = 1.0 if front else -1.0
    turn = random.uniform(0.55, 1.0)
    lean = float(np.clip(random.normal(0, 0.15), -0.5, 0.5))
    spine = _direction(np.pi + lean)
    across = np.array([spine[1], -spine[0]]) * -1.0
    joints = dict[str, Floats]()
    neck, hips = spine * 0.155, spine * -0.155
    for name, sign in (("left", side), ("right", -side)):
        shoulder = neck + across * (sign * 0.115 * turn)
        hip = hips + across * (sign * 0.07 * turn)
        joints |= {f"{name}_shoulder": shoulder, f"{name}_hip": hip}
        upper = sign * random.uniform(-0.1, 2.2) + lean
        lower = upper + sign * random.uniform(-0.4, 1.2)
        joints[f"{name}_elbow"] = shoulder + _direction(upper) * (0.165 * random.uniform(0.7, 1))
        joints[f"{name}_wrist"] = joints[f"{name}_elbow"] + _direction(lower) * (0.15 * random.uniform(0.7, 1))
        thigh = sign * random.uniform(-0.1, 0.8) + 0.5 * lean
        shin = thigh - sign * random.uniform(-0.2, 0.6)
        joints[f"{name}_knee"] = hip + _direction(thigh) * (0.22 * random.uniform(0.7, 1))
        joints[f"{name}_ankle"] = joints[f"{name}_knee"] + _direction(shin) * (0.21 * random.uniform(0.75, 1))
    tilt = lean + float(np.clip(random.normal(0, 0.2), -0.5, 0.5))
    up = _direction(np.pi + tilt)
    aside = np.array([-up[1], up[0]])
    head = neck + up * (HEAD + 0.035)
    looks = random.uniform(-0.3, 0.3)
    joints["nose"] = head + aside * (HEAD * looks) - up * (0.15 * HEAD)
    for name, sign in (("left", side), ("right", -side)):
        joints[f"{name}_eye"] = head + aside * (HEAD * (0.42 * sign + looks)) + up * (0.2 * HEAD)
        joints[f"{name}_ear"] = head + aside * (HEAD * 0.98 * sign) + up * (0.05 * HEAD)
    place = np.array(middle)
    arms = random.random(2) < (0.75 if front else 0.4)
    return Figure(
        joints=np.stack([joints[name] for name in JOINTS]) * height + place,
        head=head * height + place,
        height=height,
        front=front,
        arms_in_front=(bool(arms[0]), bool(arms[1])),
        left_leg_in_front=bool(random.random() < 0.5),
    )


def _direction(angle: float) -> Floats:
    """0 points down, a quarter turn to the right of the image."""
    return np.array([np.sin(angle), np.cos(angle)])


def drawn_look(random: np.random.Generator, textures: Textures, width: int, height: int) -> Look:
    """Random colours on the texture of a random photograph; torso and both sides have clearly different ones."""
    lighter = shades(textures.view(random, width, height, (0.5, 2)))

    def filled(colour: Floats, strength: float) -> Pixels:
        return tinted(lighter, colour, strength)

    hue, step = random.uniform(0, 1), random.uniform(0.27, 0.4)
    bright = random.permutation([0.45, 0.7, 0.95])
    torso, left, right = (_colour(hue + i * step, random.uniform(0.4, 0.9), bright[i]) for i in range(3))
    skin = np.array([235.0, 195, 165]) * random.uniform(0.5, 1.05)
    hair = np.array([70.0, 50, 40]) * random.uniform(0.3, 1.6)
    return Look(filled(torso, 0.6), filled(left, 0.6), filled(right, 0.6), filled(skin, 0.15), filled(hair, 0.3))


def _colour(hue: float, saturation: float, value: float) -> Floats:
    import colorsys

    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value)) * 255


def parts(figure: Figure) -> Iterator[Part]:
    """The figure's pieces, the lowest first."""
    sides = ("left", "right")
    arms = dict(zip(sides, figure.arms_in_front, strict=True))
    for side in sides:
        if not arms[side]:
            yield from _arm(figure, side)
    for side in sides if not figure.left_leg_in_front else sides[::-1]:
        yield from _limb(figure, side, ("hip", "knee", "ankle"), ("thigh", "shin"))
    yield _torso(figure)
    yield from _head(figure)
    for side in sides:
        if arms[side]:
            yield from _arm(figure, side)


def _arm(figure: Figure, side: str) -> Iterator[Part]:
    return _limb(figure, side, ("shoulder", "elbow", "wrist"), ("arm", "forearm"))


def _limb(figure: Figure, side: str, joints: tuple[str, str, str], widths: tuple[str, str]) -> Iterator[Part]:
    first, second, third = (f"{side}_{joint}" for joint in joints)
    upper, lower = (THIN[width] * figure.height for width in widths)
    yield Part(_capsule(figure.named(second), figure.named(third), lower), side, (second, third))
    yield Part(_capsule(figure.named(first), figure.named(second), upper), side, (first, second))


def _torso(figure: Figure) -> Part:
    """Shoulders and hips with a margin, and the neck."""
    names = ("left_shoulder", "right_shoulder", "right_hip", "left_hip")
    corners = np.stack([figure.named(name) for name in names])
    middle = corners.mean(axis=0)
    away = corners - middle
    length = np.linalg.norm(away, axis=1, keepdims=True)
    wide = middle + away * (1 + 0.035 * figure.height / length)
    neck = figure.head * 0.6 + (corners[0] + corners[1]) * 0.2
    aside = (corners[0] - corners[1]) * 0.15
    outline = np.concatenate([wide[:1], [neck + aside, neck - aside], wide[1:]])
    return Part(outline, "torso", names)


def _head(figure: Figure) -> Iterator[Part]:
    radius = HEAD * figure.height
    ears = [f"{side}_ear" for side in ("left", "right")]
    yield from (Part(_disc(figure.named(ear), 0.25 * radius), "skin", (ear,)) for ear in ears)
    if not figure.front:
        yield Part(_disc(figure.head, radius), "hair")
        return
    up = (figure.named("left_ear") + figure.named("right_ear")) / 2 - figure.head
    yield Part(_disc(figure.head + up * 4, radius), "hair")
    yield Part(_disc(figure.head - up, 0.94 * radius), "skin")
    for eye in ("left_eye", "right_eye"):
        yield Part(_disc(figure.named(eye), 0.22 * radius), (20, 20, 30), (eye,))
    yield Part(_disc(figure.named("nose"), 0.18 * radius), (200, 70, 60), ("nose",))


_ANGLES = np.linspace(0, 2 * np.pi, 24, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=-1)
_HALF_TURN = np.linspace(np.pi / 2, 3 * np.pi / 2, 9)


def _disc(centre: Floats, radius: float) -> Floats:
    disc: Floats = centre + radius * _CIRCLE
    return disc


def _capsule(start: Floats, end: Floats, radius: float) -> Floats:
    """A bar with round ends."""
    along = np.arctan2(*(end - start)[::-1])
    half = _HALF_TURN + along
    cap = radius * np.stack([np.cos(half), np.sin(half)], axis=-1)
    return np.concatenate([start + cap, end - cap])


@dataclass(frozen=True)
class Patch:
    """A piece as it lies in an image: the pixels around it, and how much of each it covers, 0..255."""

    window: tuple[slice, slice]
    cover: Pixels


def placed(outline: Floats, width: int, height: int) -> Patch | None:
    """The piece in an image of this size. None: it lies outside."""
    low = np.clip(np.floor(outline.min(axis=0)) - 1, 0, [width, height]).astype(int)
    high = np.clip(np.ceil(outline.max(axis=0)) + 2, 0, [width, height]).astype(int)
    if (high <= low).any():
        return None
    window = np.s_[low[1] : high[1], low[0] : high[0]]
    return Patch(window, cover([outline], *(high - low).tolist(), *low.tolist()))


def placed_parts(figure: Figure, width: int, height: int) -> list[tuple[Part, Patch]]:
    """The pieces of a figure that lie in an image of this size, the lowest first."""
    found = ((part, placed(part.outline, width, height)) for part in parts(figure))
    return [(part, patch) for part, patch in found if patch is not None]


class Canvas:
    """An image under work, with the figure and the piece that each pixel shows."""

    def __init__(self, pixels: Pixels) -> None:
        """`pixels`: the background (height, width, 3)."""
        self.pixels = pixels.copy()
        self.owner: NDArray[np.int32] = np.zeros(pixels.shape[:2], np.int32)
        """Number of the figure that a pixel shows, from 1; 0: background; -1: a thing in the way."""
        self._piece: NDArray[np.int32] = np.zeros(pixels.shape[:2], np.int32)
        self._shows: list[tuple[str, ...]] = [()]

    def paint(self, patch: Patch, fill: Pixels | None, owner: int, joints: tuple[str, ...] = ()) -> None:
        """Paints a piece over all that is there. `fill`: of the size of the image; None: only says whose pixels these
        are."""
        window = patch.window
        if fill is not None:
            self.pixels[window] = blended(self.pixels[window], fill[window], patch.cover)
        mask = patch.cover > 127
        self.owner[window][mask] = owner
        self._piece[window][mask] = len(self._shows)
        self._shows.append(joints)

    def paint_figure(self, pieces: Sequence[tuple[Part, Patch]], look: Look | None, owner: int) -> None:
        """Paints a figure's pieces over all that is there. `look`: None: only says whose pixels these are."""
        for part, patch in pieces:
            fill = None if look is None else look.of(part.fill, self.pixels.shape)
            self.paint(patch, fill, owner, part.joints)

    def visibility(self, figure: Figure, owner: int) -> NDArray[np.int64]:
        """COCO's flag of each joint: 2 where the pixel at it shows a piece of the figure that ends there, 1 where
        something lies over it, 0 outside of the image."""
        height, width = self.owner.shape
        flags = np.zeros(len(JOINTS), np.int64)
        for number, (joint, (x, y)) in enumerate(zip(JOINTS, figure.joints.tolist(), strict=True)):
            column, row = int(np.floor(x + 0.5)), int(np.floor(y + 0.5))
            if 0 <= column < width and 0 <= row < height:
                shown = self.owner[row, column] == owner and joint in self._shows[self._piece[row, column]]
                flags[number] = 2 if shown else 1
        return flags
