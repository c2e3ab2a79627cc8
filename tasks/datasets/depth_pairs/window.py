"""The part of a depth map that is evaluated: Garg's and Eigen's windows of KITTI, that of NYUv2, or all of it."""

from __future__ import annotations

from typing import Literal

Window = Literal["whole", "garg", "eigen", "nyu"]
"""The part of an image that is evaluated.

`garg`: KITTI in the paper's code. `eigen`: KITTI in older work. `nyu`: the part of an NYUv2 image that the Kinect's two
cameras share, rows 45 to 470 and columns 41 to 600 of 480 x 640. `whole`: all of it.
"""

_FRACTIONS = {
    "garg": ((0.40810811, 0.99189189), (0.03594771, 0.96405229)),
    "eigen": ((0.3324324, 0.91351351), (0.0359477, 0.96405229)),
}
"""First row and that after the last as shares of the height, columns of the width; as in the public code."""
_NYU = (480, 640), ((45, 471), (41, 601))
"""Size of the map, and first row and column and those after the last."""


def evaluated_part(window: Window, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of a map of this size that are evaluated. NYUv2's window shrinks and grows with the map."""
    if window == "whole":
        return slice(0, height), slice(0, width)
    if window == "nyu":
        (full_height, full_width), ((top, bottom), (left, right)) = _NYU
        rows = slice(top * height // full_height, bottom * height // full_height)
        return rows, slice(left * width // full_width, right * width // full_width)
    (top_share, bottom_share), (left_share, right_share) = _FRACTIONS[window]
    rows = slice(int(top_share * height), int(bottom_share * height))
    return rows, slice(int(left_share * width), int(right_share * width))
