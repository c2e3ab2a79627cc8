"""Lists the data and weights that a job needs and that are missing."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tasks.backbones.spec import FromFile
from workers.trial import TrialSpec


def missing_data(specs: Iterable[TrialSpec], root: Path) -> str:
    """Everything that trials need and is not there, a paragraph each; empty when all is there."""
    seen: dict[str, str | None] = {}
    for spec in specs:
        task, init = spec.task, spec.backbone.init
        data = json.dumps([task.kind, task.model_dump(mode="json", include=set(task.data_fields))])
        if data not in seen:
            seen[data] = task.missing_data(root)
        if isinstance(init, FromFile) and f"{init.path} {init.sha256}" not in seen:  # its whole file is read
            seen[f"{init.path} {init.sha256}"] = init.missing(root)
    lines = [line for line in seen.values() if line]
    if lines:
        what = f"{len(lines)} data sets or weights are missing" if len(lines) > 1 else "missing data or weights"
        here = "" if root.is_dir() else ", a folder that does not exist"
        lines.insert(0, f"{what} (data root {root}{here}; another with --data-root or DATA_ROOT):")
        lines.append("Nothing was started.")
    return "\n\n".join(lines)
