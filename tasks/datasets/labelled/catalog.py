"""All data sets of labelled images."""

from __future__ import annotations

from tasks.datasets.labelled.bundled import SMALL
from tasks.datasets.labelled.imagenet import LARGE
from tasks.datasets.labelled.kornblith12 import K12

LABELLED = (*SMALL, *K12, *LARGE)
