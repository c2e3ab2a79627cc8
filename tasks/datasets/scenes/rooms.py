"""Rooms with boxes in them, in perspective, with the exact depth of every pixel; and one real stereo photograph."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.datasets.photographs import PhotoPart, of_part, open_photograph, packaged
from tasks.datasets.scenes.shares import Counts, share_of, write_in_processes
from tasks.datasets.scenes.textures import Floats, Pixels, Texture, Textures

NAME = "scene-rooms"
SIDE = 64
SEED = 121212
COUNTS: dict[PhotoPart, int] = {"train": 2000, "val": 200, "test": 200}
"""Images of each part, made of the photographs of the same part."""
FOCAL = 1.1 * SIDE
"""Pixels; the same for all images, so that size tells distance: a view of 49 degrees."""
PER_METRE = 120.0
"""Pixels of a photograph on a metre of a surface; the same for all, so that fine detail tells distance too."""
CONTRAST = 0.25
"""How much lighter a surface is, as a part, where the photograph is a standard deviation lighter than its mean."""
HAZE, HAZE_METRES = np.array([200.0, 210.0, 225.0]), 4.5
"""What is farther looks hazier (aerial perspective): the haze's colour, and the distance at which a part 1 / e of a
surface's own colour is left. A small model learns depth from this cue within minutes."""
FINE = 2
"""Rays a pixel across and down; their colours are averaged. Depth is that of the ray through the pixel's centre."""
MILLIMETRES = 1000

STEREO = "stereo_motorcycle"
BASELINE, STEREO_FOCAL, STEREO_OFFSET = 193.001, 994.978, 31.086
"""Of scikit-image's stereo_motorcycle (Middlebury 2014): millimetres, pixels, pixels; depth = BASELINE * STEREO_FOCAL /
(disparity + STEREO_OFFSET)."""


@dataclass(frozen=True)
class Plane:
    """Part of a plane: points p with normal . p = distance, within two ranges along its own axes. In metres, in the
    world: y up, z forward, the camera above the origin."""

    normal: Floats
    distance: float
    axes: Floats
    """(2, 3): directions on the plane, of length 1."""
    low: Floats
    high: Floats
    """(2,): where it ends along the axes."""


@dataclass(frozen=True)
class Camera:
    """Where the camera is and looks."""

    position: Floats
    """(3,), metres."""
    rotation: Floats
    """(3, 3): rows are the camera's right, down and forward in the world."""

    def rays(self, fine: float) -> Floats:
        """(SIDE * fine, SIDE * fine, 3): directions in the world, of length 1 along the camera's forward axis.
        `fine`: such that SIDE * fine is whole."""
        steps = (np.arange(SIDE * fine) + 0.5) / fine - SIDE / 2
        x, y = np.meshgrid(steps / FOCAL, steps / FOCAL)
        rays: Floats = np.stack([x, y, np.ones_like(x)], axis=-1) @ self.rotation
        return rays


@dataclass(frozen=True)
class Room:
    """An image with its depth."""

    pixels: Pixels
    """(SIDE, SIDE, 3)"""
    depth: Floats
    """(SIDE, SIDE): metres along the camera's forward axis."""


def room(part: PhotoPart, index: int) -> Room:
    """An image, the same on every call: it depends on its part and index alone. Raises DataError."""
    random = np.random.default_rng([SEED, list(COUNTS).index(part), index])
    textures = Textures(part, NAME)
    camera, planes = drawn_room(random)
    paints = [Paint(random, textures) for _ in planes]
    depth, _ = nearest(planes, camera.position, camera.rays(1))
    return Room(painted(camera, planes, paints, FINE, SIDE), depth)


def painted(camera: Camera, planes: list[Plane], paints: list[Paint], fine: int, side: int) -> Pixels:
    """(side, side, 3): what the camera sees. `fine`: SIDE * fine rays across and down, a multiple of `side`; `paints`:
    of each plane."""
    rays = camera.rays(fine)
    far, which = nearest(planes, camera.position, rays)
    colours = np.zeros((*far.shape, 3))
    for number, (plane, paint) in enumerate(zip(planes, paints, strict=True)):
        seen = which == number
        if seen.any():
            points = camera.position + far[seen][:, None] * rays[seen]
            colours[seen] = paint.of(plane, points, far[seen], fine)
    each = SIDE * fine // side
    mean = colours.reshape(side, each, side, each, 3).mean(axis=(1, 3))
    return np.asarray(np.rint(mean).astype(np.uint8))


def drawn_room(random: np.random.Generator) -> tuple[Camera, list[Plane]]:
    """A camera in a room with one to five boxes on its floor."""
    yaw, pitch, roll = random.uniform(-0.4, 0.4), random.uniform(0.05, 0.2), random.normal(0, 0.01)
    eye = np.array([0.0, random.uniform(1.4, 1.6), 0.0])
    left, right = random.uniform(1.2, 4), random.uniform(1.2, 4)
    front, behind = random.uniform(3, 8.5), 0.8
    low, high = np.array([-left, 0, -behind]), np.array([right, random.uniform(2.3, 3.2), front])
    planes = _block(low, high, 0.0, np.zeros(3))
    for _ in range(int(random.integers(1, 6))):
        size = np.array([random.uniform(0.3, 1.2), random.uniform(0.3, 1.8), random.uniform(0.3, 1.2)])
        reach = 0.5 * float(np.hypot(size[0], size[2]))
        z = random.uniform(1.3 + reach, max(1.4 + reach, front - reach))
        x = np.clip(z * np.tan(random.uniform(-0.5, 0.5) + yaw), -left + reach, right - reach)
        corner = np.array([float(x), 0.0, z])
        half = np.array([size[0] / 2, 0, size[2] / 2])
        turn = random.uniform(-np.pi / 4, np.pi / 4)
        planes += _block(-half, half + np.array([0, size[1], 0]), turn, corner, eye)
    return Camera(eye, _rotation(yaw, pitch, roll)), planes


def _rotation(yaw: float, pitch: float, roll: float) -> Floats:
    """The camera's right, down and forward; at zero it looks along z, and y is up. Positive pitch looks down."""
    forward = np.array([np.sin(yaw) * np.cos(pitch), -np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
    right = np.array([np.cos(yaw), 0.0, -np.sin(yaw)])
    down = np.cross(right, forward)
    cos, sin = np.cos(roll), np.sin(roll)
    return np.stack([cos * right + sin * down, cos * down - sin * right, forward])


def _block(low: Floats, high: Floats, turn: float, shift: Floats, eye: Floats | None = None) -> list[Plane]:
    """The sides of a block, turned about the vertical and then moved. `eye`: only those that can be seen from there;
    None: all six."""
    cos, sin = np.cos(turn), np.sin(turn)
    base = np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])
    planes = []
    for axis in range(3):
        others = [other for other in range(3) if other != axis]
        axes = base[others]
        offset = axes @ shift
        for end, outward in ((low, -1.0), (high, 1.0)):
            distance = float(end[axis] + base[axis] @ shift)
            if eye is None or outward * (base[axis] @ eye - distance) > 0:
                planes.append(Plane(base[axis], distance, axes, low[others] + offset, high[others] + offset))
    return planes


def nearest(planes: list[Plane], eye: Floats, rays: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """For each ray the distance, in lengths of the ray, of the first plane in its way, and which plane that is."""
    best = np.full(rays.shape[:-1], np.inf)
    which = np.full(rays.shape[:-1], -1)
    for number, plane in enumerate(planes):
        with np.errstate(divide="ignore", invalid="ignore"):
            far = (plane.distance - eye @ plane.normal) / (rays @ plane.normal)
            closer = (far > 1e-6) & (far < best)
            for axis, low, high in zip(plane.axes, plane.low.tolist(), plane.high.tolist(), strict=True):
                along = eye @ axis + far * (rays @ axis)
                closer &= (along >= low) & (along <= high)
        best[closer], which[closer] = far[closer], number
    return best, which


class Paint:
    """What a plane is painted with: a random colour, lighter and darker as a photograph is that repeats as in mirrors.

    Photographs differ in colour and contrast from part to part; a model that had learnt depth from those of train would
    know nothing of test.
    """

    def __init__(self, random: np.random.Generator, textures: Textures) -> None:
        self._texture: Texture = textures.drawn(random)
        self._start = np.array([random.uniform(0, side) for side in self._texture.size])
        self._mean, self._spread = _shade(self._texture)
        hue, saturation, value = random.uniform(0, 1), random.uniform(0.2, 0.6), random.uniform(0.32, 0.42)
        self._colour = np.array(colorsys.hsv_to_rgb(hue, saturation, value)) * 255

    def of(self, plane: Plane, points: Floats, far: Floats, fine: int) -> Pixels:
        """Colours (n, 3) of points on the plane that are `far` away, seen with SIDE * fine rays across."""
        places = points @ plane.axes.T * PER_METRE + self._start
        step = PER_METRE * float(np.median(far)) / FOCAL / fine * 1.5
        shade = _luma(self._texture.at(places[:, 0], places[:, 1], step))
        lighter = np.clip((shade - self._mean) / self._spread, -2, 2) * CONTRAST
        clear = np.exp(-far / HAZE_METRES)[:, None]
        colours = self._colour * (1 + lighter[:, None]) * clear + HAZE * (1 - clear)
        pixels: Pixels = np.clip(np.rint(colours), 0, 255).astype(np.uint8)
        return pixels


@cache
def _shade(texture: Texture) -> tuple[float, float]:
    """Mean and standard deviation, at least 1, of how light a photograph's pixels are."""
    shade = _luma(texture.levels[0])
    return float(shade.mean()), max(1.0, float(shade.std()))


def _luma(pixels: NDArray[Any]) -> Floats:
    """How light pixels (.., 3) are, 0 to 255 (ITU-R BT.601)."""
    light: Floats = pixels @ np.array([0.299, 0.587, 0.114])
    return light


def stereo() -> Room:
    """The real photograph: scikit-image's left image of the motorcycle at a height of SIDE pixels, each colour the mean
    of the photograph's pixels there, each depth that of the one at its centre; 0 where no disparity is known. Raises
    DataError."""
    from PIL import Image

    photo = next(photo for photo in of_part("test") if photo.file == "motorcycle_left.png")
    image = open_photograph(photo, NAME)
    path = packaged("skimage/data", "motorcycle_disp.npz", NAME)
    disparity = np.load(path)["arr_0"].astype(np.float64)
    width = round(SIDE * photo.width / photo.height)
    rows = ((np.arange(SIDE) + 0.5) * photo.height / SIDE).astype(int)
    columns = ((np.arange(width) + 0.5) * photo.width / width).astype(int)
    chosen = disparity[rows][:, columns]
    known = np.isfinite(chosen) & (chosen > 0)
    depth = np.where(known, BASELINE * STEREO_FOCAL / (np.where(known, chosen, 0) + STEREO_OFFSET), 0) / MILLIMETRES
    return Room(np.asarray(image.resize((width, SIDE), Image.Resampling.BOX)), depth)


def write(folder: Path) -> None:
    """Writes images, depth maps (16-bit PNG, millimetres, 0: unknown) and lists, in as many processes as there are
    cores. Raises OSError and DataError."""
    counts: dict[str, int] = dict([*COUNTS.items(), (STEREO, 1)])
    for part in counts:
        (folder / part).mkdir()
    write_in_processes(write_share, folder, NAME, counts)
    for part, count in counts.items():
        lines = (" ".join(_files(part, index)) for index in range(count))
        (folder / f"{part}.txt").write_text("\n".join(lines) + "\n")


def write_share(folder: Path, counts: Counts, share: int, shares: int) -> None:
    """Writes every image of this share and its depth map. Raises OSError and DataError."""
    from PIL import Image

    for part, index in share_of(counts, share, shares):
        made = stereo() if part == STEREO else room(part, index)
        image, depth = _files(part, index)
        Image.fromarray(made.pixels).save(folder / image, compress_level=3)
        Image.fromarray(np.rint(made.depth * MILLIMETRES).astype(np.uint16)).save(folder / depth, compress_level=3)


def _files(part: str, index: int) -> tuple[str, str]:
    """Image and depth map."""
    return f"{part}/{index + 1:05d}.png", f"{part}/{index + 1:05d}_depth.png"
