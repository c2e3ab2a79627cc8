"""Lists the data and weights that a job needs and that are missing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tasks.backbones.spec import FromFile, inits
from workers.trial import TrialSpec


def missing_data(specs: Iterable[TrialSpec], root: Path) -> str:
    """A paragraph on each data set or weights file that trials need and that is missing; empty if nothing is.

    Asks each different task once, and reads each weights file once. `root`: the data root.
    """
    answers: dict[str, str | None] = {}
    for spec in specs:
        task = spec.task.model_dump_json()
        if task not in answers:
            answers[task] = spec.task.missing_data(root)
        for _, init in inits(spec):
            if isinstance(init, FromFile) and (file := f"{init.path} {init.sha256}") not in answers:
                answers[file] = init.missing(root)
    paragraphs = list(dict.fromkeys(answer for answer in answers.values() if answer))  # several tasks, one data set
    if not paragraphs:
        return ""
    count = len(paragraphs)
    what = f"{count} data sets or weights are missing" if count > 1 else "missing data or weights"
    absent = "" if root.is_dir() else ", a folder that does not exist"
    head = f"{what} (data root {root}{absent}; another with --data-root or DATA_ROOT):"
    return "\n\n".join([head, *paragraphs, "Nothing was started."])
