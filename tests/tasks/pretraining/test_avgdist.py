"""AvgDist of mask settings, and the command that prints it."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from tasks.pretraining.avgdist import avgdist, table


def output_of(*arguments: str) -> str:
    done = CliRunner().invoke(avgdist, arguments)
    assert done.exit_code == 0, done.output
    return done.output


def test_table_has_every_setting_and_says_where_there_is_none() -> None:
    lines = output_of("--image-size", "48", "--patches", "4,16", "--ratios", "0.5,0.9").splitlines()
    assert [line.split()[0] for line in lines[-3:]] == ["4", "0.5", "0.9"]
    fine, coarse = map(float, lines[-2].split()[1:])
    assert 1 < fine < coarse < 16
    assert lines[-1].split()[2] == "–"  # 9 of 9


def test_json_has_the_papers_default() -> None:
    found = json.loads(output_of("--patches", "32", "--ratios", "0.6", "-o", "json"))
    assert found["avg_dist"]["0.6"]["32"] == pytest.approx(15.37, abs=0.1)  # the facts' 200 masks
    assert found["image_size"] == 192


def test_a_table_of_numbers() -> None:
    distances = table(48, [0.5, 0.9], [4, 16])
    assert distances[0.9][16] is None  # 9 of 9
    assert (distances[0.5][4] or 0) < (distances[0.5][16] or 0)


def test_what_is_no_setting_is_named() -> None:
    for arguments, words in (
        (("--patches", "33"), "patch 33 does not divide the image of 192 pixels"),
        (("--patches", "8,x"), "give numbers with commas between them"),
        (("--ratios", "1.5"), "lies between 0 and 1"),
    ):
        done = CliRunner().invoke(avgdist, arguments)
        assert done.exit_code == 2
        assert words in done.output
