"""One file of the node's image cache: it is read whole or not at all."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.datasets.images import cache


@pytest.mark.parametrize("pixels_of", [(), ((2, 3),), ((1, 1), (4, 2))])
def test_a_file_that_is_a_byte_short_is_not_believed(pixels_of: tuple[tuple[int, int], ...]) -> None:
    """A whole one is, even of no image; of none of its beginnings the rows are read."""
    sizes = [3 * height * width for height, width in pixels_of]
    rows = [(sum(sizes[:row]), *size) for row, size in enumerate(pixels_of)]
    table = np.array(rows, dtype=np.int64).tobytes() + np.int64(len(rows)).tobytes()
    whole = np.frombuffer(bytes(range(sum(sizes))) + table + cache.VERSION, dtype=np.uint8)
    read = cache._Pixels(whole)
    assert read.bytes == len(whole)
    images = [read.image(row) for row in range(len(rows))]
    assert [image.shape for image in images if image is not None] == [(*size, 3) for size in pixels_of]
    assert b"".join(image.tobytes() for image in images if image is not None) == bytes(range(sum(sizes)))
    for short in range(1, len(whole) + 1):
        with pytest.raises(ValueError, match=r"^no end$"):
            cache._Pixels(whole[:-short])
    with pytest.raises(ValueError, match=r"^no end$"):
        cache._Pixels(whole[1 - len(cache.VERSION) - 8 :])
    for count in (-1, len(rows) + 2, 2**62):
        wrong = table[:-8] + np.int64(count).tobytes() + cache.VERSION
        with pytest.raises(ValueError, match=r"^no table$"):
            cache._Pixels(np.frombuffer(wrong, dtype=np.uint8))
