"""Changes pixels: augmentation of batches on the device or of single images, mixing, and crops for evaluation.

Sizes are (height, width) in pixels.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tasks.datasets.augment import MEAN_STD, Augment, Channels, Normalize

Size = tuple[int, int]
"""(height, width)"""
Normalizing = Normalize | tuple[Channels, Channels]
"""Mean and standard deviation, by name or as numbers."""


def mean_std(normalize: Normalizing) -> tuple[Channels, Channels]:
    """Mean and standard deviation of pixels from 0 to 1."""
    return normalize if isinstance(normalize, tuple) else MEAN_STD[normalize]


def derived_seed(*parts: int | str) -> int:
    """A 63-bit seed that depends on every part; streams of different parts are independent."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


@contextmanager
def states_restored() -> Iterator[None]:
    """Restores the states of the three global generators that timm's transforms draw from."""
    python, numpy, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(torch_state)


def seed_all(seed: int) -> None:
    """Seeds these three. Within `states_restored`, which takes twenty times as long."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds the three, and restores their states afterwards."""
    with states_restored():
        seed_all(seed)
        yield


def on_device(values: Tensor, device: torch.device | str) -> Tensor:
    """The values on the device. The host does not wait: a plain copy to a GPU would wait for all work before it, so
    that no batch could be made while the GPU computes."""
    return values.to(device, non_blocking=True)


def normalized(images: Tensor, normalize: Normalizing) -> Tensor:
    """(n, 1 or 3, h, w) in 0..255, uint8 or float -> float (n, 3, h, w) with mean 0 and deviation 1 per channel."""
    mean, std = (on_device(torch.tensor(v).view(1, 3, 1, 1) * 255, images.device) for v in mean_std(normalize))
    return (images.expand(-1, 3, -1, -1) - mean).div_(std)  # one new tensor, not two


def normalized_within(images: Tensor, sizes: Sequence[tuple[int, int]], normalize: Normalizing) -> Tensor:
    """Likewise of images in the upper left corners of squares; `sizes`: height and width of each. What lies beyond them
    becomes 0, that is the mean colour."""
    out = normalized(images, normalize)
    for image, (height, width) in zip(out, sizes, strict=True):
        image[:, height:].zero_()
        image[:, :, width:].zero_()
    return out


def centre(images: Tensor, size: Size, augment: Augment) -> Tensor:
    """uint8 (n, c, h, w) -> uint8 (n, c, *size): the central crop of the images, made just as large as to cover
    size / eval_crop."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.functional import center_crop, resize

    height, width = images.shape[-2:]
    least = [augment.evaluation_side(side) for side in size]
    if least[0] * width >= least[1] * height:  # the height decides
        target = [least[0], int(least[0] * width / height)]
    else:
        target = [int(least[1] * height / width), least[1]]
    resized = resize(images, target, InterpolationMode(augment.interpolation), antialias=True)
    out: Tensor = center_crop(resized, list(size))
    return out


@dataclass(frozen=True)
class Draws:
    """The random numbers of one global batch, drawn on the CPU so that they are the same on every device.

    Every rank draws all of them and takes its share: a trial sees the same images however many workers it has.
    """

    crop: Tensor
    """(n, 5) uniform: area, ratio, x, y, flip."""
    erase: Tensor
    """(n, 1 + 4 * count) uniform: whether to erase; then area, ratio, x, y of each rectangle."""
    noise: Tensor | None
    """(n, 3, *size) or (n, 3, 1, 1) normal; None where nothing is filled with noise."""

    @staticmethod
    def of(seed: int, images: int, size: Size, augment: Augment) -> Draws:
        generator = torch.Generator().manual_seed(seed)
        crop = torch.rand(images, 5, generator=generator)
        erase = torch.rand(images, 1 + 4 * augment.erasing_count, generator=generator)
        area = {"pixel": size, "rand": (1, 1)}.get(augment.erasing_mode)
        noise = torch.randn(images, 3, *area, generator=generator) if area and augment.erasing > 0 else None
        return Draws(crop, erase, noise)

    def share(self, positions: Tensor, device: str) -> Draws:
        """The rows of these positions, on the device."""
        noise = None if self.noise is None else on_device(self.noise[positions], device)
        return Draws(on_device(self.crop[positions], device), on_device(self.erase[positions], device), noise)


def augmented(images: Tensor, draws: Draws, size: Size, augment: Augment, normalize: Normalizing) -> Tensor:
    """uint8 (n, 1 or 3, h, w) -> float (n, 3, *size): random resized crop, flip, normalisation, erasing."""
    out = _cropped(images, draws.crop, size, augment)
    return _erased(normalized(out, normalize), draws, augment)


def _between(low: float, high: float, uniform: Tensor) -> Tensor:
    return low + (high - low) * uniform


def _cropped(images: Tensor, uniform: Tensor, size: Size, augment: Augment) -> Tensor:
    """Random resized crop and flip of a whole batch in one resampling.

    Differs from torchvision's RandomResizedCrop in two ways: a box wider or higher than the image is cut to it at once
    instead of being drawn again up to ten times, and a box larger than `size` is not smoothed first.
    """
    area = _between(*augment.crop_scale, uniform[:, 0])
    ratio = torch.exp(_between(math.log(augment.crop_ratio[0]), math.log(augment.crop_ratio[1]), uniform[:, 1]))
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    x, y = (1 - width) * (2 * uniform[:, 2] - 1), (1 - height) * (2 * uniform[:, 3] - 1)
    mirror = 1 - 2 * (uniform[:, 4] < augment.flip).to(width.dtype)
    zero = torch.zeros_like(width)
    theta = torch.stack([torch.stack([width * mirror, zero, x], 1), torch.stack([zero, height, y], 1)], 1)
    grid = functional.affine_grid(theta, [len(images), images.shape[1], *size], align_corners=False)
    pixels = functional.grid_sample(
        images.float(), grid, mode=augment.interpolation, padding_mode="border", align_corners=False
    )
    return pixels.clamp_(0, 255)


def _erased(images: Tensor, draws: Draws, augment: Augment) -> Tensor:
    """Random erasing of a whole batch, with timm's ranges: area 2..33 % of the image divided by the number of
    rectangles, aspect 0.3..3.3. A rectangle as large as the image is cut by one pixel instead of being drawn again."""
    if augment.erasing == 0:
        return images
    full_height, full_width = images.shape[-2:]
    rows, columns = (torch.arange(side, device=images.device) for side in (full_height, full_width))
    fill = torch.zeros(1, device=images.device) if draws.noise is None else draws.noise
    chosen = draws.erase[:, 0] < augment.erasing
    for i in range(augment.erasing_count):
        area, ratio, x, y = draws.erase[:, 1 + 4 * i : 5 + 4 * i].unbind(1)
        pixels = _between(0.02, 1 / 3, area) * full_height * full_width / augment.erasing_count
        aspect = torch.exp(_between(math.log(0.3), math.log(1 / 0.3), ratio))
        height = (pixels * aspect).sqrt().round().clamp(max=full_height - 1)
        width = (pixels / aspect).sqrt().round().clamp(max=full_width - 1)
        top, left = (y * (full_height - height + 1)).floor(), (x * (full_width - width + 1)).floor()
        in_rows = (rows >= top[:, None]) & (rows < (top + height)[:, None])
        in_columns = (columns >= left[:, None]) & (columns < (left + width)[:, None])
        mask = chosen[:, None, None] & in_rows[:, :, None] & in_columns[:, None, :]
        images = torch.where(mask[:, None], fill, images)
    return images


def single_image(size: Size, augment: Augment, normalize: Normalizing, training: bool) -> Callable[[Any], Tensor]:
    """timm's transform of one PIL image to float (3, *size); draws from the global generators (see `seeded`)."""
    from timm.data import create_transform

    mean, std = mean_std(normalize)
    if not training:
        transform = create_transform(
            size, is_training=False, interpolation=augment.interpolation, mean=mean, std=std, crop_pct=augment.eval_crop
        )
    else:
        transform = create_transform(
            size, is_training=True, scale=augment.crop_scale, ratio=augment.crop_ratio, hflip=augment.flip,
            color_jitter=augment.color_jitter or None,
            auto_augment=augment.policy,
            interpolation=augment.interpolation, mean=mean, std=std,
            re_prob=augment.erasing, re_mode=augment.erasing_mode, re_count=augment.erasing_count,
        )  # fmt: skip
        for operation in (op for step in transform.transforms for op in getattr(step, "ops", ())):
            if operation.name.startswith("Posterize"):
                operation.aug_fn = _posterize
    return transform  # type: ignore[no-any-return]


def from_memory(size: Size, augment: Augment, normalize: Normalizing) -> Callable[[Any], Tensor]:
    """The transform of one PIL image to float (3, *size) as an evaluation has it of a set that lies in memory."""

    def transform(image: Any) -> Tensor:
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None]
        return normalized(centre(pixels, size, augment), normalize)[0]

    return transform


def _posterize(image: Any, bits_to_keep: int, **_: Any) -> Any:
    """timm (1.0.31) asks for 0 bits at full strength, which Pillow refuses from version 13 on; older versions, such as
    those of the paper's time, gave a black image."""
    from PIL import Image
    from timm.data.auto_augment import posterize

    return posterize(image, bits_to_keep) if bits_to_keep > 0 else Image.new(image.mode, image.size)


@dataclass(frozen=True)
class MixSeeds:
    """Where the random numbers of mixing come from: the same for an image whatever the number of workers."""

    step: int
    """Seed of the global batch."""
    positions: Sequence[int]
    """Of the images within the global batch, one for each image of this rank's share."""

    def of(self, image: int) -> int:
        """The seed of what is drawn for one image of this share, or for the pair that it is the first of."""
        return derived_seed(self.step, self.positions[image])


def mixed(images: Tensor, labels: Tensor, classes: int, augment: Augment, seeds: MixSeeds) -> tuple[Tensor, Tensor]:
    """Mixup or cutmix of each image with its mirror in the batch -> images, soft labels (n, classes), smoothed.

    Strength and rectangle are drawn once for the whole batch, or (`mixup_mode` pair, elem) for each pair or image.
    Changes `images` in place. `images`: an even number.
    """
    from timm.data import Mixup

    mix = Mixup(
        mixup_alpha=augment.mixup, cutmix_alpha=augment.cutmix, prob=augment.mixup_prob,
        switch_prob=augment.switch_prob, mode="batch", label_smoothing=augment.label_smoothing, num_classes=classes,
    )  # fmt: skip
    if augment.mixup_mode == "batch":
        with seeded(seeds.step):
            images, targets = mix(images, labels)
        return images, targets
    targets = torch.empty(len(images), classes, device=images.device)
    for first in range(len(images) // 2):
        second = len(images) - 1 - first
        both = [first, second]
        pair, pair_labels = images[both], labels[both]
        with seeded(seeds.of(first)):
            images[both], targets[both] = mix(pair.clone(), pair_labels)
        if augment.mixup_mode == "elem":
            with seeded(seeds.of(second)):
                other, other_targets = mix(pair, pair_labels)
            images[second], targets[second] = other[1], other_targets[1]
    return images, targets
