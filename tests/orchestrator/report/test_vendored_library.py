"""The plotting library on the page is the released one, with its licence beside it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

import orchestrator.report
from orchestrator.report.formats import FORMATS, Links
from orchestrator.report.model import Report

FOLDER = Path(orchestrator.report.__file__).parent / "templates" / "uplot"
RELEASED = {  # of the npm package uplot 1.6.32 and of the tag 1.6.32 of its repository
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}


@pytest.mark.parametrize("name", RELEASED)
def test_it_is_the_released_file(name: str) -> None:
    assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == RELEASED[name]


def test_it_says_its_version_and_licence(whole: Report) -> None:
    script = (FOLDER / "uPlot.iife.min.js").read_text(encoding="utf-8")
    assert script.startswith("/*! https://github.com/leeoniya/uPlot (v1.6.32) */")
    assert (FOLDER / "LICENSE").read_text(encoding="utf-8").startswith("The MIT License (MIT)")
    page = FORMATS["html"].render(whole, Links())
    assert script.rstrip("\n") in page, "whole, with the comment that names it"
    assert (FOLDER / "LICENSE").read_text(encoding="utf-8").strip() in page, "its licence asks for that"
