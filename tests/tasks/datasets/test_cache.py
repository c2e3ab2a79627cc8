"""The node's cache of decoded images: exact, made once, whole or not there, and within its limit."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import pickle
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batches import same
from PIL import Image

from tasks.base import DataContext
from tasks.datasets.augment import Augment
from tasks.datasets.images import cache
from tasks.datasets.images.cache_folder import node_cache_folder
from tasks.datasets.images.decode import Unreadable
from tasks.datasets.images.source import Arrays, Files, Resized, Source
from tasks.datasets.labelled.loaders import ImageInput, LabelledImages, file_loaders, mixing
from tasks.datasets.labelled.parts import LabelledPart
from tasks.datasets.loaders import SampleLoaders
from tasks.errors import DataError

PROCESSES = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "IMAGES_PER_FILE", 4)
    monkeypatch.setattr(cache, "SAMPLE", 1)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a cache that is on."""
    monkeypatch.setenv("ORCHESTRATOR_CACHE", str(tmp_path / "node"))
    return tmp_path / "node" / f"orchestrator-cache-{os.getuid()}"


def draw(root: Path, count: int = 10, first: int = 0) -> list[Path]:
    """JPEGs of several sizes, the third grey."""
    paths = []
    for i in range(first, first + count):
        random = np.random.RandomState(i)
        shape = (30 + i % 3, 40 - i % 5) if i % 3 == 2 else (30 + i % 3, 40 - i % 5, 3)
        paths.append(root / f"{i:03d}.jpg")
        Image.fromarray(random.randint(0, 256, shape, dtype=np.uint8)).save(paths[-1], quality=95)
    return paths


def pixels(source: Source) -> list[bytes]:
    return [source.image(i).tobytes() + repr(source.image(i).size).encode() for i in range(len(source))]


def loaders(root: Path, augment: Augment, **other: Any) -> SampleLoaders:
    paths = sorted(root.glob("*.jpg"))
    labels = [i % 2 for i in range(len(paths))]
    context = replace(DataContext(root, input_size=(16, 16), device="cpu", seed=1, batch=4), **other)
    parts = LabelledPart(paths[2:], labels[2:]), LabelledPart(paths[:3], labels[:3])
    return file_loaders(
        LabelledImages("drawn", root, *parts), ImageInput(augment, "half"), context, mixing(2, augment, context)
    )


class Logged(Source):
    """Images that log who decoded them, slowly."""

    def __init__(self, inner: Source, log: Path, at: Callable[[int], None] = lambda index: time.sleep(0.005)) -> None:
        self.name, self._inner, self._log, self._at = inner.name, inner, log, at

    def __len__(self) -> int:
        return len(self._inner)

    def image(self, index: int) -> Image.Image:
        with self._log.open("a") as log:
            log.write(f"{index}\n")
        self._at(index)
        return self._inner.image(index)

    def where(self, index: int) -> str:
        return self._inner.where(index)

    def content(self) -> Any:
        return self._inner.content()

    def identity(self, first: int, last: int) -> bytes:
        return self._inner.identity(first, last)

    def decoded(self) -> Counter[int]:
        return Counter(int(line) for line in self._log.read_text().split())


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stored_size", [None, 24])
def test_batches_are_the_same_with_and_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, stored_size: int | None
) -> None:
    draw(tmp_path)
    augment = Augment(stored_size=stored_size)

    def seen() -> tuple[list[dict[str, torch.Tensor]], str]:
        made = loaders(tmp_path, augment, loader_workers=workers)
        return [*made.epoch(0), *made.epoch(1), *made.evaluation()], made.image_cache

    plain, words = seen()
    assert words == "training off (ORCHESTRATOR_CACHE); evaluation off (ORCHESTRATOR_CACHE)"
    monkeypatch.setenv("ORCHESTRATOR_CACHE", str(tmp_path))
    filled, words = seen()
    assert words.startswith("training 2 of 2 files, 0.00 GB; evaluation 1 of 1 files")
    opened: list[object] = []
    true_open = Image.open
    monkeypatch.setattr(Image, "open", lambda *a, **k: opened.append(a) or true_open(*a, **k))
    kept, _ = seen()
    assert opened == []
    for one, two, three in zip(plain, filled, kept, strict=True):
        assert same(one, two)
        assert same(one, three)


def test_several_processes_decode_each_image_once(tmp_path: Path, folder: Path) -> None:
    files = Files("drawn", tmp_path, draw(tmp_path, 30))
    source = Logged(files, tmp_path / "log")
    expected = pixels(files)

    def trial() -> None:
        behind, words = cache.cached(source)
        assert words.startswith("8 of 8 files")
        assert pixels(behind) == expected
        all_read.wait(100)  # those who wait must not wait for those who read

    all_read = PROCESSES.Barrier(3)
    processes = [PROCESSES.Process(target=trial) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    decoded = source.decoded()
    assert decoded.pop(0) <= 1 + 3  # also the sample that says how much room it takes
    assert set(decoded) == set(range(1, 30))
    assert set(decoded.values()) == {1}
    assert len(list(folder.glob("*.pixels"))) == 8
    assert list(folder.glob("*.part")) == []


def test_a_killed_builder_leaves_nothing_half_valid(tmp_path: Path, folder: Path) -> None:
    files = Files("drawn", tmp_path, draw(tmp_path))

    def die(index: int) -> None:
        if index == 6:
            os.kill(os.getpid(), signal.SIGKILL)

    victim = PROCESSES.Process(target=lambda: cache.cached(Logged(files, tmp_path / "log", die)))
    victim.start()
    victim.join()
    assert victim.exitcode == -signal.SIGKILL
    assert (len(list(folder.glob("*.pixels"))), len(list(folder.glob("*.part")))) == (1, 1)
    source = Logged(files, tmp_path / "second")
    behind, words = cache.cached(source)
    assert words.startswith("3 of 3 files")
    assert pixels(behind) == pixels(files)
    assert set(source.decoded()) == {0, *range(4, 10)}  # 0: the sample; what was whole is used
    assert list(folder.glob("*.part")) == []


def test_what_nobody_has_open_goes_first_when_room_is_short(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = {}
    for number, name in enumerate("abc"):
        (tmp_path / name).mkdir()
        sets[name] = Files(name, tmp_path, draw(tmp_path / name, 4, first=100 * number))
    size = sum(len(part) for part in pixels(sets["a"]))
    monkeypatch.setenv("ORCHESTRATOR_CACHE_GB", str(2.5 * size / 1e9))
    first = cache.cached(sets["a"])[0]
    of_first = set(folder.glob("*.pixels"))
    cache.cached(sets["b"])  # nobody keeps it
    cache.cached(sets["c"])
    left = set(folder.glob("*.pixels"))
    assert of_first < left
    assert len(left) == 2
    assert pixels(first) == pixels(sets["a"])
    third = cache.cached(sets["c"])[0]
    second, words = cache.cached(sets["b"])
    assert words == "0 of 1 files, 0.00 GB"  # both others are open
    assert pixels(second) == pixels(sets["b"])
    assert pixels(third) == pixels(sets["c"])
    monkeypatch.setenv("ORCHESTRATOR_CACHE_GB", str(0.5 * size / 1e9))
    assert cache.cached(sets["b"])[1].startswith("none: 0.0 GB decoded, more than")


def test_of_very_many_images_only_a_sample_is_looked_at(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unasked(Logged):
        def identity(self, first: int, last: int) -> bytes:
            raise AssertionError("a million files were looked at")

    source = Unasked(Files("drawn", tmp_path, draw(tmp_path)), tmp_path / "log")
    monkeypatch.setattr(cache, "MANY", 9)
    monkeypatch.setenv("ORCHESTRATOR_CACHE_GB", "1e-6")
    assert cache.cached(source) == (source, "none: 0.0 GB decoded, more than the 0.0 GB that fit")
    assert source.decoded() == {0: 1}


def test_an_unfinished_file_of_the_dead_makes_room(tmp_path: Path, folder: Path) -> None:
    place = node_cache_folder()
    assert not isinstance(place, str)
    (folder / "dead.part").write_bytes(b"x" * 1000)
    with replace(place, limit=1500).locked():
        assert replace(place, limit=1500).make_room(1000)
        assert not replace(place, limit=1500).make_room(1501)
    assert list(folder.glob("*.part")) == []


def test_a_damaged_file_is_not_believed(tmp_path: Path, folder: Path) -> None:
    files = Files("drawn", tmp_path, draw(tmp_path, 4))
    cache.cached(files)
    (made,) = folder.glob("*.pixels")
    made.write_bytes(made.read_bytes()[:-100])
    behind, words = cache.cached(files)
    assert words.startswith("0 of 1")
    assert pixels(behind) == pixels(files)
    assert cache.cached(files)[1].startswith("1 of 1")


@pytest.mark.parametrize("part", ["end", "count"])
def test_a_file_without_its_end_is_not_believed(part: str, tmp_path: Path, folder: Path) -> None:
    """Of the right length, with a table that fits."""
    files = Files("drawn", tmp_path, draw(tmp_path, 4))
    cache.cached(files)
    (made,) = folder.glob("*.pixels")
    content = bytearray(made.read_bytes())
    content[-1 if part == "end" else -1 - len(cache.VERSION)] ^= 0x80
    made.write_bytes(content)
    behind, words = cache.cached(files)
    assert words.startswith("0 of 1")
    assert not made.exists()
    assert pixels(behind) == pixels(files)


def test_images_of_which_none_can_be_read_take_no_room(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "SAMPLE", 64)
    paths = draw(tmp_path, 4)
    place = node_cache_folder()
    assert not isinstance(place, str)
    sizes = [width * height * 3 for width, height in (Image.open(path).size for path in paths)]
    assert cache._Builder(place, Files("drawn", tmp_path, paths)).bytes_per_image() == np.mean(sizes)
    paths[0].write_bytes(b"not a picture")
    assert cache._Builder(place, Files("drawn", tmp_path, paths)).bytes_per_image() == np.mean(sizes[1:])
    for path in paths:
        path.write_bytes(b"not a picture")
    assert cache._Builder(place, Files("drawn", tmp_path, paths)).bytes_per_image() == 0
    behind, words = cache.cached(Files("drawn", tmp_path, paths))
    assert words == "1 of 1 files, 0.00 GB"
    with pytest.raises(Unreadable, match="cannot read image"):
        behind.image(0)


def test_files_of_another_start_of_the_machine_are_not_believed(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash may leave a file its name without its content."""
    files = Files("drawn", tmp_path, draw(tmp_path, 4))
    cache.cached(files)
    source = Logged(files, tmp_path / "log")
    cache.cached(source)
    assert not (tmp_path / "log").exists()
    monkeypatch.setattr(cache, "boot", lambda: b"another")
    cache.cached(source)
    assert set(source.decoded()) == {0, 1, 2, 3}


def test_an_error_of_the_disk_comes_out(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = Files("drawn", tmp_path, draw(tmp_path, 4))
    true_rename = os.rename
    for number in (errno.EIO, errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT):

        def fails(*names: object, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "rename", fails)
        if number in (errno.ENOSPC, errno.EDQUOT):
            behind, words = cache.cached(files)
            assert words == "0 of 1 files, 0.00 GB"
            assert pixels(behind) == pixels(files)
        else:
            with pytest.raises(OSError, match=os.strerror(number)):
                cache.cached(files)
        assert list(folder.glob("*.part")) == []
    monkeypatch.setattr(os, "rename", true_rename)
    assert cache.cached(files)[1].startswith("1 of 1")


def test_a_file_that_is_being_removed_is_not_mapped(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process makes room while another waits for the lock; a third has begun the file anew."""
    cache.cached(Files("drawn", tmp_path, draw(tmp_path, 4)))
    (made,) = folder.glob("*.pixels")
    true_lock = fcntl.flock

    def after_the_other(file: Any, how: int) -> None:
        made.unlink()
        made.write_bytes(b"begun anew")
        true_lock(file, how)

    assert cache._Pixels.open(made)
    monkeypatch.setattr(fcntl, "flock", after_the_other)
    assert cache._Pixels.open(made) is None


@pytest.mark.parametrize("other", ["gave up", "finished"])
def test_a_part_that_another_process_took_away_is_not_written(
    other: str, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Files("drawn", tmp_path, draw(tmp_path, 4))
    expected = pixels(files)
    true_lock, calls = cache._locked, []

    def after_the_other(file: Any) -> bool:
        (part,) = folder.glob("*.part")
        calls.append(part)
        if len(calls) == 1 and other == "gave up":
            part.unlink()
        elif len(calls) == 1:
            with monkeypatch.context() as patch:
                patch.setattr(cache, "_locked", true_lock)
                part.unlink()
                cache.cached(files)
        return true_lock(file)

    monkeypatch.setattr(cache, "_locked", after_the_other)
    behind, words = cache.cached(files)
    assert words.startswith("1 of 1")
    assert pixels(behind) == expected
    assert len(calls) == (2 if other == "gave up" else 1)


def test_a_file_that_changed_is_read_again(tmp_path: Path, folder: Path) -> None:
    paths = draw(tmp_path, 4)
    old = pixels(cache.cached(Files("drawn", tmp_path, paths))[0])
    Image.new("RGB", (8, 8), (1, 2, 3)).save(paths[1])
    new = pixels(cache.cached(Files("drawn", tmp_path, paths))[0])
    assert new == pixels(Files("drawn", tmp_path, paths))
    assert [one == two for one, two in zip(old, new, strict=True)] == [True, False, True, True]


def test_an_unreadable_image_stays_the_files_matter(tmp_path: Path, folder: Path) -> None:
    paths = draw(tmp_path, 4)
    paths[2].write_bytes(b"not a picture")
    behind = cache.cached(Files("drawn", tmp_path, paths))[0]
    with pytest.raises(Unreadable, match=r"^drawn: cannot read image .*/002\.jpg \(.*\); get this file again$"):
        behind.image(2)
    assert behind.image(3).size == Image.open(paths[3]).size


def test_a_large_array_is_given_up_for_the_shared_copy(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.random.RandomState(0).randint(0, 256, (10, 8, 8, 3), dtype=np.uint8)
    assert cache.cached(Arrays("array", images))[1] == "none: small and in memory"
    monkeypatch.setattr(cache, "SMALL", images.nbytes)
    source = Arrays("array", images)
    behind, words = cache.cached(source)
    assert words.startswith("3 of 3 files")
    assert all((np.asarray(behind.image(i)) == images[i]).all() for i in range(10))
    again = pickle.loads(pickle.dumps(behind))  # as to a worker process that was not forked
    assert len(pickle.dumps(behind)) < images.nbytes
    assert pixels(again) == pixels(source)


def test_smaller_copies_are_made_once_and_hold_their_own_place(tmp_path: Path, folder: Path) -> None:
    files = Files("drawn", tmp_path, draw(tmp_path))
    small = Resized(files, 20, "bicubic")
    assert {min(small.image(i).size) for i in range(10)} == {20}
    assert pixels(cache.cached(small)[0]) == pixels(small)
    assert pixels(cache.cached(files)[0]) == pixels(files)
    assert [Resized(files, 500, "bicubic").image(i).size for i in range(10)] == [files.image(i).size for i in range(10)]


def test_a_size_below_what_evaluation_needs_is_refused(tmp_path: Path) -> None:
    draw(tmp_path)
    with pytest.raises(DataError, match=r"augment.stored_size 17 is less than the 18 pixels that evaluation"):
        loaders(tmp_path, Augment(stored_size=17))


def test_an_image_is_found_at_its_own_place_whatever_holds_its_pixels(tmp_path: Path, folder: Path) -> None:
    paths = draw(tmp_path, 4)
    files = Files("drawn", tmp_path, paths)
    behind, _ = cache.cached(files)
    for source in (files, behind, Resized(files, 8, "bilinear")):
        assert [source.where(index) for index in range(4)] == [str(path) for path in paths]
    assert behind is not files
