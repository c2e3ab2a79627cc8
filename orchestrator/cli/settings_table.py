"""Prints the settings of studies as the paper's Table 7 does: from the specs, a column for each row of their tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.options import echo, output, show

if TYPE_CHECKING:
    from workers.trial import TrialSpec


@dataclass(frozen=True)
class SettingsColumn:
    """The settings of one row of a study's table."""

    study: str
    """Job name and profile."""
    row: str
    titles: Mapping[str, str]
    """Path -> title, in the order of the rows."""
    values: Mapping[str, str]
    """Path -> value as text; of a searched field the values that are tried: "1e-4 to 1e-3 (5 values)"."""


def settings_of(spec: Path, profile: str | None, overrides: Sequence[str] = ()) -> list[SettingsColumn]:
    """A column for each row of the study's table. Raises SpecError for a spec that cannot be read."""
    from orchestrator import spec as specs
    from orchestrator.plan.expansion import expand
    from orchestrator.records.recorded_spec import label, lookup, sources

    job = specs.load(spec, profile, overrides)
    stages = {stage.name: stage.model_dump(mode="json", by_alias=True) for stage in job.stages}
    chain = sources(stages, job.report.stage or job.stages[-1].name)
    trials: dict[str, list[TrialSpec]] = {}
    for stage in job.stages:
        if stage.name in chain and not stage.from_:
            for draft in expand(job, stage, None, may_test=True):
                row = label(lookup(draft.spec.model_dump(mode="json"), job.report.rows))
                trials.setdefault(row, []).append(draft.spec)
    study = f"{job.name} ({job.profile})" if job.profile else job.name
    return [_column(study, row, members) for row, members in trials.items()]


def _column(study: str, row: str, trials: Sequence[TrialSpec]) -> SettingsColumn:
    from orchestrator.records.recorded_spec import lookup
    from orchestrator.report.training_settings import FIELDS, tried, with_rise

    titles = dict(FIELDS)
    for trial in trials:
        titles |= {f"task.{path}": title for path, title in trial.task.setting_titles.items()}
    plain = [trial.model_dump(mode="json") for trial in trials]
    dumped = [{**fields, "optim": with_rise(fields["optim"])} for fields in plain]
    values = {path: tried([lookup(fields, path) for fields in dumped]) for path in titles}
    return SettingsColumn(study, row, titles, values)


@click.command("settings")
@click.argument("specs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--profile", default=None, help="Profile of all specs (none: each spec's own).")
@output
def settings(specs: tuple[Path, ...], profile: str | None, form: str) -> None:
    """Print what each row of the studies' tables is trained with, as the paper's Table 7 does; from the specs alone."""
    columns = [column for spec in specs for column in settings_of(spec, profile)]
    if form == "json":
        show([{name: value for name, value in asdict(column).items() if name != "titles"} for column in columns])
        return
    from orchestrator.report.formatting import WIDTH, aligned

    titles = {path: title for column in columns for path, title in column.titles.items()}
    header = ["", *(column.study for column in columns)]
    body = [["", *(column.row for column in columns)]]
    body += [[title, *(column.values.get(path, "–") for column in columns)] for path, title in titles.items()]
    echo("\n".join(aligned(header, body, WIDTH)))
