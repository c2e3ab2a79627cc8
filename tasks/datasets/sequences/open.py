"""Opens a part of a data set of sequences, by its card or by a description: what samplers and trackers call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tasks.datasets.sequences.dataset import SequenceDataset
from tasks.datasets.sequences.described import SequencesDescription
from tasks.datasets.sequences.types import Part, SequenceSet


def open_sequences(
    dataset: SequenceDataset | SequencesDescription, root: Path, part: Part, folders: Sequence[Path] = ()
) -> SequenceSet:
    """The sequences of a part, with their lengths; boxes are read when a sequence is loaded.

    `root`: the data root; `folders`: where else what was read of files is remembered (DataContext.folders). Raises
    DataError naming file, value and remedy.
    """
    card = dataset.dataset() if isinstance(dataset, SequencesDescription) else dataset
    return card.open(root, part, folders)
