"""Augmentation of whole batches on the device, against what it promises and against timm and torchvision."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from tasks.datasets import transforms
from tasks.datasets.augment import Augment
from tasks.datasets.transforms import Draws, derived_seed

PLAIN = Augment.none()


def gradient(images: int = 4, size: int = 16) -> torch.Tensor:
    """(images, 1, size, size): brighter to the right and downwards."""
    line = torch.arange(size) * (255 // size)
    return ((line[None, :] + line[:, None]) // 2).to(torch.uint8).expand(images, 1, size, size)


def applied(images: torch.Tensor, size: int = 16, **options: object) -> torch.Tensor:
    augment = PLAIN.model_copy(update=options)
    return transforms.augmented(images, Draws.of(0, len(images), (size, size), augment), (size, size), augment, "half")


def test_without_augmentation_training_sees_what_evaluation_sees() -> None:
    images = gradient()
    expected = transforms.normalized(transforms.centre(images, (16, 16), PLAIN), "half")
    assert torch.allclose(applied(images), expected, atol=1e-5)
    assert torch.allclose(expected[0, 0] * 127.5 + 127.5, images[0, 0].float(), atol=1e-3)


def test_flip_mirrors_left_and_right() -> None:
    assert torch.allclose(applied(gradient(), flip=1.0), applied(gradient()).flip(-1), atol=1e-5)
    halves = applied(gradient(400), flip=0.5)
    mirrored = (halves[:, 0, :, 0] > halves[:, 0, :, -1]).all(1)
    assert 150 < mirrored.sum() < 250


def test_crops_stay_inside_and_have_the_area_asked_for() -> None:
    pixels = applied(gradient(500), crop_scale=(0.25, 0.25), interpolation="bilinear") * 127.5 + 127.5
    spread = pixels[:, 0, 8, -1] - pixels[:, 0, 8, 0]  # a crop of half the width spans half of the gradient
    whole = applied(gradient(), interpolation="bilinear") * 127.5 + 127.5
    assert torch.allclose(spread.median(), (whole[0, 0, 8, -1] - whole[0, 0, 8, 0]) / 2, atol=4)
    assert pixels.min() >= whole.min() - 1e-3
    assert pixels.max() <= whole.max() + 1e-3
    assert pixels[:, 0, 0, 0].std() > 10  # they are not all the same crop


@pytest.mark.parametrize("x", [0, 0.5, 1])
@pytest.mark.parametrize("y", [0, 0.5, 1])
def test_a_crop_lies_between_the_edges_as_its_draw_says(x: float, y: float) -> None:
    """A quarter of the image: to the pixel, since it is not resampled."""
    image = torch.stack([torch.arange(16).expand(16, 16), torch.arange(16)[:, None].expand(16, 16)])[None].float()
    augment = PLAIN.model_copy(
        update={"crop_scale": (0.25, 0.25), "crop_ratio": (1, 1), "flip": 0.0, "interpolation": "bilinear"}
    )
    cropped = transforms._cropped(image, torch.tensor([[0.5, 0.5, x, y, 0.5]]), (8, 8), augment)
    left, top = int(8 * x), int(8 * y)
    torch.testing.assert_close(cropped, image[:, :, top : top + 8, left : left + 8], atol=1e-4, rtol=0)


@pytest.mark.parametrize("count", [1, 3])
def test_the_draws_of_a_seed_never_change(count: int) -> None:
    """Else a repeated trial would see other images: five numbers an image for its crop, then those for its erasing."""
    generator = torch.Generator().manual_seed(7)
    augment = PLAIN.model_copy(update={"erasing": 0.25, "erasing_mode": "rand", "erasing_count": count})
    draws = Draws.of(7, 6, (16, 16), augment)
    assert torch.equal(draws.crop, torch.rand(6, 5, generator=generator))
    assert torch.equal(draws.erase, torch.rand(6, 1 + 4 * count, generator=generator))
    assert draws.noise is not None
    assert torch.equal(draws.noise, torch.randn(6, 3, 1, 1, generator=generator))


def test_erasing_covers_the_area_that_timm_covers() -> None:
    images = torch.full((2000, 1, 32, 32), 200, dtype=torch.uint8)
    ours = (applied(images, size=32, erasing=0.5, erasing_mode="const")[:, 0] == 0).float().mean((1, 2))
    from timm.data.random_erasing import RandomErasing

    erase = RandomErasing(0.5, mode="const", device="cpu")
    with transforms.seeded(0):
        theirs = (erase(torch.full((2000, 3, 32, 32), 0.5))[:, 0] != 0.5).float().mean((1, 2))
    assert abs((ours > 0).float().mean() - 0.5) < 0.04
    assert ours.max() < 0.40
    assert abs(ours[ours > 0].mean() - theirs[theirs > 0].mean()) < 0.02


@pytest.mark.parametrize("count", [2, 3, 5])
def test_several_rectangles_share_the_area_of_one(count: int) -> None:
    """timm divides the area by their number; so 2 to 33 % are erased, less what they overlap."""
    images = torch.full((1000, 1, 64, 64), 200, dtype=torch.uint8)

    def erased(**options: object) -> torch.Tensor:
        return (applied(images, size=64, erasing=1.0, erasing_mode="const", **options)[:, 0] == 0).float().mean((1, 2))

    one, several = erased(), erased(erasing_count=count)
    assert several.min() > 0.01
    assert several.max() < 0.35
    assert 0.75 * one.mean() < several.mean() < 1.02 * one.mean()


def test_erasing_reaches_every_row_and_column() -> None:
    images = torch.full((2000, 1, 16, 16), 200, dtype=torch.uint8)
    erased = (applied(images, erasing=1.0, erasing_mode="const")[:, 0] == 0).float().mean(0)
    assert erased.min() > 0
    for side in (erased, erased.flip(0), erased.flip(1), erased.T):
        assert abs(side[0].mean() - erased.flip(0)[0].mean()) < 0.04  # as often above as below, left as right


def test_a_rectangle_at_the_far_edge_is_whole() -> None:
    images, augment = torch.ones(1, 3, 64, 64), PLAIN.model_copy(update={"erasing": 1.0, "erasing_mode": "const"})
    areas = []
    for place in (0.0, 0.999999):
        draw = torch.tensor([[0.0, 0.4, 0.7, place, place]])
        erased = transforms._erased(images, transforms.Draws(torch.zeros(1, 5), draw, None), augment)[0, 0] == 0
        areas.append(int(erased.sum()))
        assert erased[0, 0] if place == 0 else erased[-1, -1]
    assert areas[0] == areas[1] > 0


@pytest.mark.parametrize("mode", ["const", "rand", "pixel"])
def test_single_images_are_erased_as_asked(mode: str) -> None:
    """timm's transform, which all data sets in files go through."""
    image = Image.new("RGB", (32, 32), (200, 200, 200))

    def erased(**options: object) -> torch.Tensor:
        augment = PLAIN.model_copy(update={"erasing_mode": mode, **options})
        transform = transforms.single_image((32, 32), augment, "half", training=True)
        with transforms.seeded(3):
            return transform(image)

    plain, out = erased(), erased(erasing=1.0)
    assert (plain == plain[0, 0, 0]).all()
    changed = (out != plain[0, 0, 0]).any(0)
    assert 0.01 < changed.float().mean() < 0.4
    values = out[:, changed].T.unique(dim=0)
    assert (len(values) == 1) == (mode != "pixel")
    assert bool((values == 0).all()) == (mode == "const")


def test_single_images_lose_up_to_so_many_rectangles_as_asked() -> None:
    """timm draws their number; each is filled with a colour of its own."""
    image = Image.new("RGB", (32, 32), (200, 200, 200))
    augment = PLAIN.model_copy(update={"erasing": 1.0, "erasing_mode": "rand", "erasing_count": 3})
    transform = transforms.single_image((32, 32), augment, "half", training=True)
    seen = set()
    for seed in range(60):
        with transforms.seeded(seed):
            seen.add(len(transform(image).flatten(1).T.unique(dim=0)) - 1)
    assert seen == {1, 2, 3}


def test_erasing_fills_with_what_is_asked_for() -> None:
    images = torch.full((50, 1, 16, 16), 200, dtype=torch.uint8)
    untouched = applied(images)[0, 0, 0, 0]
    for mode, distinct in (("const", 1), ("rand", 1), ("pixel", None)):
        out = applied(images, erasing=1.0, erasing_mode=mode)
        values = out[0, 0][~out[0, 0].isclose(untouched, atol=1e-4)].unique()
        assert len(values) == distinct if distinct else len(values) > 3
        if mode == "const":
            assert values.item() == 0


def test_evaluation_crops_the_centre_as_timm_does() -> None:
    pixels = np.random.RandomState(0).randint(0, 256, (40, 52, 3), dtype=np.uint8)
    augment = PLAIN.model_copy(update={"eval_crop": 224 / 256, "interpolation": "bilinear"})
    batch = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    ours = transforms.normalized(transforms.centre(batch, (28, 28), augment), "imagenet")[0]
    theirs = transforms.single_image((28, 28), augment, "imagenet", training=False)(Image.fromarray(pixels))
    assert ours.shape == theirs.shape == (3, 28, 28)
    assert (ours - theirs).abs().max() < 0.02  # Pillow rounds to whole grey levels: 1 / 255 / 0.225


@pytest.mark.parametrize(("height", "width"), [(24, 18), (18, 24), (30, 10)])
def test_inputs_need_not_be_square(height: int, width: int) -> None:
    """(height, width) throughout: crop, noise, erasing, evaluation, and timm's transform of single images."""
    size = height, width
    augment = Augment(erasing=1.0, eval_crop=1.0, rand_augment="none", color_jitter=0)
    images = torch.randint(0, 256, (6, 3, 40, 52), dtype=torch.uint8)
    batch = transforms.augmented(images, Draws.of(0, 6, size, augment), size, augment, "half")
    assert batch.shape == (6, 3, height, width)
    centred = transforms.centre(images, size, augment)
    assert centred.shape == (6, 3, height, width)
    scale = max(height / 40, width / 52)  # the image covers the input, and no more than it must
    expected = transforms.centre(images, (round(40 * scale), round(52 * scale)), augment)
    top, left = round((expected.shape[2] - height) / 2), round((expected.shape[3] - width) / 2)
    assert torch.equal(centred, expected[:, :, top : top + height, left : left + width])
    for training in (True, False):
        image = Image.fromarray(images[0].permute(1, 2, 0).numpy())
        assert transforms.single_image(size, augment, "half", training)(image).shape == (3, height, width)


def test_noise_is_drawn_for_the_whole_batch_whoever_uses_it() -> None:
    augment = PLAIN.model_copy(update={"erasing": 1.0})
    whole = Draws.of(3, 8, (16, 16), augment)
    part = whole.share(torch.tensor([1, 6]), "cpu")
    assert torch.equal(part.crop, whole.crop[[1, 6]])
    assert part.noise is not None
    assert whole.noise is not None
    assert torch.equal(part.noise, whole.noise[[1, 6]])


def test_seeded_puts_the_generators_back() -> None:
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    with transforms.seeded(9):
        random.random()
        np.random.rand()
        torch.rand(1)
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


def test_derived_seeds_differ_by_every_part() -> None:
    parts = itertools.product((0, 1), ("a", "b"), (0, 12), (3, 123))
    seeds = {derived_seed(*part) for part in parts}
    assert len(seeds) == 16
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derived_seed(1, 12) != derived_seed(11, 2)


def mixed_identity(size: int, seeds: transforms.MixSeeds, **options: object) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose channels say how much of which image they hold, and soft labels, after mixing."""
    labels = torch.arange(size)
    images = torch.nn.functional.one_hot(labels, size).float()[:, :, None, None].expand(size, size, 8, 8).clone()
    return transforms.mixed(images, labels, size, PLAIN.model_copy(update=options), seeds)


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_mixing_keeps_images_and_labels_together(mode: str) -> None:
    seeds = transforms.MixSeeds(2, range(4))
    for options in ({"mixup": 0.8}, {"cutmix": 1.0}):
        mixed, targets = mixed_identity(4, seeds, mixup_mode=mode, **options)
        assert torch.allclose(mixed.mean((2, 3)), targets, atol=1e-5)  # as much of the image as of the label
        assert not torch.equal(targets, torch.eye(4))
        smoothed = mixed_identity(4, seeds, mixup_mode=mode, label_smoothing=0.1, **options)[1]
        assert torch.allclose(smoothed, 0.9 * targets + 0.1 / 4, atol=1e-6)


@pytest.mark.parametrize(("mode", "strengths"), [("batch", 1), ("pair", 8), ("elem", 16)])
@pytest.mark.parametrize("options", [{"mixup": 0.8}, {"mixup": 0.8, "cutmix": 1.0}])
def test_strength_is_drawn_for_the_batch_each_pair_or_each_image(
    mode: str, strengths: int, options: dict[str, object]
) -> None:
    targets = mixed_identity(16, transforms.MixSeeds(2, range(16)), mixup_mode=mode, **options)[1]
    own = targets.diag()
    areas = 64 if "cutmix" in options else 10**6
    assert len({round(value * areas) for value in own.tolist()}) == pytest.approx(strengths, abs=strengths // 3)
    assert (torch.equal(own, own.flip(0)), torch.equal(own, own[0].expand(16))) == (mode != "elem", mode == "batch")
    assert torch.allclose(targets.sum(1), torch.ones(16))
    assert torch.allclose(targets.diag() + targets.fliplr().diag(), torch.ones(16))  # each with its mirror alone


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_every_share_of_a_batch_is_mixed_as_in_the_whole(mode: str) -> None:
    """Shares are a block and its mirror image (see loaders.share)."""
    options: dict[str, object] = {"mixup": 0.8, "cutmix": 1.0, "mixup_mode": mode}
    whole = mixed_identity(16, transforms.MixSeeds(2, range(16)), **options)[1].diag()
    for positions in ([0, 1, 14, 15], [2, 3, 4, 11, 12, 13], [7, 8]):
        own = mixed_identity(len(positions), transforms.MixSeeds(2, positions), **options)[1].diag()
        torch.testing.assert_close(own, whole[positions], rtol=0, atol=0)


@pytest.mark.parametrize("mode", ["pair", "elem"])
def test_strengths_of_pairs_and_images_are_distributed_as_timms(mode: str) -> None:
    from timm.data import Mixup

    options = {"mixup": 0.8, "cutmix": 1.0, "mixup_prob": 0.7, "switch_prob": 0.3}
    augment = PLAIN.model_copy(update={**options, "mixup_mode": mode})
    size, labels = 2000, torch.arange(2000) % 2  # a pair has both labels
    images = torch.zeros(size, 1, 8, 8)
    ours = transforms.mixed(images, labels, 2, augment, transforms.MixSeeds(1, range(size)))[1]
    mix = Mixup(0.8, 1.0, prob=0.7, switch_prob=0.3, mode=mode, label_smoothing=0, num_classes=2)
    with transforms.seeded(1):
        theirs = mix(images, labels)[1]
    for statistic in (lambda own: (own == 1).float().mean(), torch.mean, torch.std):
        values = [float(statistic(targets[torch.arange(size), labels])) for targets in (ours, theirs)]
        assert values[0] == pytest.approx(values[1], abs=0.04)


@pytest.mark.parametrize(
    "wrong",
    [{"crop_scale": (0.5, 0.1)}, {"crop_ratio": (0, 1)}, {"rand_augment": "rand-x9"}, {"rand_augment": "augmix-m3"},
     {"erasing": 1.5}, {"label_smoothing": 1.0}, {"mixup": -1}, {"eval_crop": 0}, {"hflip": 0.5}],
)  # fmt: skip
def test_impossible_options_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=rf"1 validation error for Augment\n{next(iter(wrong))}\b"):
        Augment.model_validate(wrong)


@pytest.mark.parametrize("text", ["none", "rand-m9-mstd0.5-inc1", "rand-n3-m7", "rand-m9-n2-p0.4-mmax10-tweights"])
def test_timm_takes_every_rand_augment_that_we_take(text: str) -> None:
    augment = Augment(rand_augment=text)
    transform = transforms.single_image((16, 16), augment, "half", training=True)
    assert transform(Image.new("RGB", (20, 20))).shape == (3, 16, 16)


def test_colour_jitter_is_ignored_beside_rand_augment() -> None:
    """As the field's description says of timm."""
    names = {
        jitter: [type(step).__name__ for step in transforms.single_image(
            (16, 16), Augment(color_jitter=0.4, rand_augment=jitter), "half", training=True).transforms]
        for jitter in ("none", "rand-m9-mstd0.5-inc1")
    }  # fmt: skip
    assert "ColorJitter" in names["none"]
    assert "ColorJitter" not in names["rand-m9-mstd0.5-inc1"]


def test_auto_augment_is_timms_original_policy() -> None:
    augment = Augment(auto_augment="original", rand_augment="none", color_jitter=0)
    assert augment.per_image
    assert not Augment(rand_augment="none", color_jitter=0).per_image
    transform = transforms.single_image((16, 16), augment, "half", training=True)
    (policies,) = [step.policy for step in transform.transforms if type(step).__name__ == "AutoAugment"]
    assert len(policies) == 25
    assert [operation.name for operation in policies[0]] == ["PosterizeOriginal", "Rotate"]
    image = Image.fromarray(np.arange(1200, dtype=np.uint8).reshape(20, 20, 3))
    with transforms.seeded(0):
        seen = [transform(image) for _ in range(60)]
    assert all(pixels.shape == (3, 16, 16) for pixels in seen)
    with transforms.seeded(0):
        assert torch.equal(transform(image), seen[0])


def test_auto_augment_is_one_or_the_other() -> None:
    with pytest.raises(ValidationError, match="auto_augment original takes the place of rand_augment: write rand_aug"):
        Augment(auto_augment="original")


def test_rand_augment_at_full_strength_runs_under_every_pillow() -> None:
    """Posterize down to 0 bits stopped it from Pillow 13 on; now it gives black, as it used to."""
    augment = PLAIN.model_copy(update={"rand_augment": "rand-m10-inc1-p1"})
    transform = transforms.single_image((8, 8), augment, "half", training=True)
    image = Image.new("RGB", (8, 8), (200, 100, 50))
    with transforms.seeded(0):
        seen = [transform(image) for _ in range(300)]
    assert any((pixels == -1).all() for pixels in seen)


def test_posterize_keeps_the_highest_bits() -> None:
    image = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    for bits in (1, 4, 8):
        kept = 256 - (1 << (8 - bits))
        assert np.array_equal(transforms._posterize(image, bits), np.asarray(image) & kept)
    black = transforms._posterize(Image.new("RGB", (3, 5), "white"), 0)
    assert (black.mode, black.size, black.getextrema()) == ("RGB", (3, 5), ((0, 0),) * 3)
