"""AvgDist of mask settings: the table, and the command `avgdist` that prints it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import click

RATIOS = "0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9"
PATCHES = "4,8,16,32,64"

N = TypeVar("N", int, float)


def table(image_size: int, ratios: Sequence[float], patches: Sequence[int]) -> dict[float, dict[int, float | None]]:
    """Mask ratio -> side of a mask patch -> AvgDist, all in pixels; None where a setting would hide everything.

    Raises ValueError for a patch that does not divide the image, and for a ratio that is not between 0 and 1.
    """
    wrong = next((patch for patch in patches if patch < 1 or image_size % patch), None)
    if wrong is not None:
        raise ValueError(f"patch {wrong} does not divide the image of {image_size} pixels")
    if not all(0 < ratio < 1 for ratio in ratios):
        raise ValueError(f"ratios {ratios}: the part that is hidden lies between 0 and 1")
    return {ratio: {patch: _distance(image_size, patch, ratio) for patch in patches} for ratio in ratios}


def _distance(image_size: int, patch: int, ratio: float) -> float | None:
    """In pixels; None where all would be hidden."""
    from tasks.pretraining.masking import Masking, expected_distance

    try:
        return expected_distance(Masking(image_size, patch, ratio))
    except ValueError:
        return None


def lines(image_size: int, distances: Mapping[float, Mapping[int, float | None]]) -> list[str]:
    """The table as text."""
    patches = next(iter(distances.values()))
    text = [f"AvgDist in pixels, images of {image_size}; mask ratio down, side of a mask patch across", ""]
    text.append("     " + "".join(f"{patch:>8}" for patch in patches))
    for ratio, row in distances.items():
        numbers = ("–" if value is None else f"{value:.2f}" for value in row.values())
        text.append(f"{ratio:<5g}" + "".join(f"{number:>8}" for number in numbers))
    return text


def _numbers(number: Callable[[str], N]) -> Callable[[click.Context, click.Parameter, str], list[N]]:
    """Reads numbers with commas between them."""

    def read(_: click.Context, parameter: click.Parameter, text: str) -> list[N]:
        try:
            return [number(part) for part in text.split(",")]
        except ValueError:
            raise click.BadParameter(f"{text!r}: give numbers with commas between them", param=parameter) from None

    return read


@click.command("avgdist")
@click.option("--image-size", type=click.IntRange(1), default=192, show_default=True, help="Side in pixels.")
@click.option("--ratios", default=RATIOS, show_default=True, callback=_numbers(float), help="Parts that are hidden.")
@click.option("--patches", default=PATCHES, show_default=True, callback=_numbers(int), help="Sides of mask patches.")
@click.option("-o", "--output", "form", type=click.Choice(["table", "json"]), default="table", help="How to print.")
def avgdist(image_size: int, ratios: list[float], patches: list[int], form: str) -> None:
    """AvgDist of mask settings: the mean distance, in pixels, of hidden pixels to the nearest visible one, over all
    masks that can be drawn.

    Section 3.1 of the paper: at 192 pixels, fine-tuning was best where it lies between 10 and 20. A setting that would
    hide everything has none.
    """
    try:
        distances = table(image_size, ratios, patches)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if form == "json":
        plain = {f"{ratio:g}": {str(patch): value for patch, value in row.items()} for ratio, row in distances.items()}
        click.echo(json.dumps({"image_size": image_size, "avg_dist": plain}, indent=1))
        return
    click.echo("\n".join(lines(image_size, distances)))
