"""Pictures of segmentation: nothing is cut off, whatever the number of classes and the length of their names."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from tasks.segmentation.pictures import _confusion


@pytest.mark.parametrize("classes", [1, 2, 3, 40])
def test_words_of_confusions_lie_inside_the_picture(classes: int) -> None:
    counts = np.zeros((classes, classes), np.int64)
    counts[:, 0] = 7  # all are taken for the first: one column
    figure = _confusion(counts, tuple(f"television receiver {number}" for number in range(classes)), 32)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    width, height = canvas.get_width_height()
    for words in figure.findobj(Text):
        assert isinstance(words, Text)
        if words.get_text():
            box = words.get_window_extent(canvas.get_renderer())
            assert 0 <= box.x0 <= box.x1 <= width, words.get_text()
            assert 0 <= box.y0 <= box.y1 <= height, words.get_text()
