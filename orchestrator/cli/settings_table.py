"""The only place that prints the settings of studies as the paper's Table 7 does: from the specs, one column a row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from orchestrator.cli.options import output, show

FIELDS: Mapping[str, str] = {
    "backbone.model": "Backbone",
    "backbone.image_size": "Input size",
    "backbone.args.window_size": "Window size",
    "backbone.args.patch_size": "Patch size",
    "optim.epochs": "Training epochs",
    "optim.warmup_epochs": "Warm-up epochs",
    "optim.layer_decay": "Layer decay",
    "optim.layer_decay_scheme": "Layer decay scheme",
    "optim.batch": "Batch size",
    "optim.lr": "Base learning rate",
    "optim.lr_convention": "Learning rate is",
    "optim.weight_decay": "Weight decay",
    "optim.eps": "Adam epsilon",
    "optim.betas": "Adam beta",
    "optim.schedule": "Learning rate scheduler",
    "optim.min_lr": "Lowest learning rate",
    "optim.clip": "Gradient clipping",
    "backbone.drop_path": "Stochastic depth",
    "task.augment.label_smoothing": "Label smoothing",
    "task.augment.crop_scale": "Random crop scale",
    "task.augment.crop_ratio": "Random resize ratio",
    "task.augment.flip": "Random horizontal flip",
    "task.augment.color_jitter": "Color jitter",
    "task.augment.rand_augment": "Rand augment",
    "task.augment.erasing": "Random erasing prob.",
    "task.augment.mixup": "Mixup alpha",
    "task.augment.cutmix": "Cutmix alpha",
}
"""Path -> name: the rows of Table 7 (appendix E) and what else must be known to repeat them. Its "Mixup prob. 0.8" and
"Cutmix prob. 1.0" are the two alphas, as in the public code."""


@dataclass(frozen=True)
class SettingsColumn:
    """What one row of a study's table is trained with."""

    study: str
    """Job name and profile."""
    row: str
    values: Mapping[str, str]
    """Path of `FIELDS` -> text; of a field that is searched, what is tried: "1e-4 to 1e-3 (5 values)"."""


def settings_of(spec: Path, profile: str | None, overrides: Sequence[str] = ()) -> list[SettingsColumn]:
    """One for each row of the study's table. Raises SpecError for a spec that cannot be read."""
    from orchestrator import spec as specs
    from orchestrator.plan.expansion import expand
    from orchestrator.records.recorded_spec import label, lookup, sources

    job = specs.load(spec, profile, overrides)
    stages = {stage.name: stage.model_dump(mode="json", by_alias=True) for stage in job.stages}
    chain = sources(stages, job.report.stage or job.stages[-1].name)
    found: dict[str, list[dict[str, Any]]] = {}
    for stage in job.stages:
        if stage.name in chain and not stage.from_:
            for draft in expand(job, stage):
                values = draft.spec.model_dump(mode="json")
                found.setdefault(label(lookup(values, job.report.rows)), []).append(values)
    study = f"{job.name} ({job.profile})" if job.profile else job.name
    return [
        SettingsColumn(study, row, {path: _told([lookup(trial, path) for trial in trials]) for path in FIELDS})
        for row, trials in found.items()
    ]


def _told(values: Iterable[Any]) -> str:
    once = list(dict.fromkeys(_text(value) for value in values))
    if len(once) < 4:
        return ", ".join(once)
    return f"{once[0]} to {once[-1]} ({len(once)} values)"


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, list | tuple):
        return f"({', '.join(map(_text, value))})"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@click.command("settings")
@click.argument("specs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--profile", default=None, help="Of all specs (none: each spec's own).")
@output
def settings(specs: tuple[Path, ...], profile: str | None, form: str) -> None:
    """What each row of the studies' tables is trained with, as Table 7 prints it; from the specs alone."""
    from dataclasses import asdict

    columns = [column for spec in specs for column in settings_of(spec, profile)]
    if form == "json":
        show([asdict(column) for column in columns])
        return
    from orchestrator.report.formatting import aligned

    header = ["", *(column.study for column in columns)]
    body = [["", *(column.row for column in columns)]]
    body += [[name, *(column.values[path] for column in columns)] for path, name in FIELDS.items()]
    click.echo("\n".join(aligned(header, body, 110)))
