"""Image classification: fine-tuning or from scratch, chosen on val, reported on test."""

from __future__ import annotations

from tasks.base import Task


class Classify(Task):
    """Placeholder of the contract; see the issue."""
