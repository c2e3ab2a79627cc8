"""The files in specs/ that can be read here: those of segmentation need the library transformers, an extra."""

from __future__ import annotations

import importlib.util
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "specs"
NEEDS = {"segmentation": "transformers"}
"""Spec -> library without which it is refused."""
UNREADABLE = {spec for spec, library in NEEDS.items() if importlib.util.find_spec(library) is None}
SPECS = sorted(path for path in FOLDER.glob("*.yaml") if path.stem not in UNREADABLE)
