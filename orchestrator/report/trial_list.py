"""Lists the trials of a job: as a table, as CSV, and as JSON; all of them, or those of a state or a group."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from orchestrator.errors import BadInput, NotFound
from orchestrator.records.recorded_spec import label, setting_at, sources
from orchestrator.report import figures
from orchestrator.report.figures import metric_of, scaled
from orchestrator.report.formatting import aligned, duration, moment, short, varied
from orchestrator.report.status import View, position

if TYPE_CHECKING:
    from orchestrator.records.rows import PlacedRow
    from orchestrator.store.store import Store

WIDE = 200
SORTABLE = ("stage", "value", "name", "state", "epoch", "seconds", "started", "ended", "seed", "host")
"""Columns to sort by, besides the settings by dotted path. `stage`: the order of the spec."""


def trials(
    store: Store, job_id: str, states: Sequence[str] = (), group: str | None = None, sort: str = "stage"
) -> View:
    """The trials of a job. `states`, `group`: these alone (see `members`). `sort`: one of SORTABLE or a setting by
    dotted path, with a minus before it for the other way round; `value` puts the best first.

    Raises NotFound for an unknown group, BadInput for an unknown column.
    """
    placed = store.trials.placed(job_id)
    chosen = placed if group is None else members(store, job_id, placed, group)
    chosen = [trial for trial in chosen if not states or str(trial.state) in states]
    ordered = _sorted(chosen, sort)
    rows = [_row(trial) for trial in ordered]
    return View(rows, _lines(ordered) if ordered else ["no such trials"])


def members(store: Store, job_id: str, placed: Sequence[PlacedRow], name: str) -> list[PlacedRow]:
    """The trials of a group by any of its names: grid/digits/MIM (MLflow), digits/MIM (the spec), or the row, the
    column or both of the table: MIM, digits, "MIM digits". Raises NotFound, with the names most like it."""
    spec = store.jobs.spec(job_id)
    stages = {stage["name"]: stage for stage in spec["stages"]}
    in_table = sources(stages, spec["report"].get("stage") or list(stages)[-1])
    groups: dict[str, None] = {}
    found = []
    known: dict[str, None] = {}
    for trial in placed:
        groups[f"{trial.stage}/{trial.group}"] = None
        own = {trial.stage, trial.group, f"{trial.stage}/{trial.group}"}
        if trial.stage in in_table:
            row, column = position(spec, trial.group_values, trial.settings)
            own |= {row, column, f"{row} {column}", f"{column} {row}", f"{row}/{column}", f"{column}/{row}"}
        known |= dict.fromkeys(own)
        if name in own:
            found.append(trial)
    if not found:
        near = get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        some = ", ".join(list(groups)[:6]) or "none yet"
        raise NotFound(f"job {job_id} has no group {name!r}{hint} (its groups: {some})")
    return found


def _sorted(trials: Sequence[PlacedRow], sort: str) -> list[PlacedRow]:
    backwards, field = sort.startswith("-"), sort.removeprefix("-")
    if field == "stage":
        return list(reversed(trials)) if backwards else list(trials)
    if field not in SORTABLE and not any(field in trial.settings or field in trial.group_values for trial in trials):
        paths = list(dict.fromkeys(path for trial in trials for path in (*trial.group_values, *trial.settings)))
        near = get_close_matches(field, [*SORTABLE, *paths], n=2, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join([*SORTABLE, *paths])}"
        raise BadInput(f"--sort {sort}: the trials have no such column; {hint}")
    valued = [(_sort_value(trial, field), trial) for trial in trials]
    known = [(value, trial) for value, trial in valued if value is not None]
    number = all(isinstance(value, int | float) for value, _ in known)
    known.sort(key=lambda pair: pair[0] if number else label(pair[0]), reverse=backwards)
    return [trial for _, trial in known] + [trial for value, trial in valued if value is None]


def _sort_value(trial: PlacedRow, field: str) -> Any:
    if field == "value":
        value = scaled(trial.value, metric_of(trial))
        return None if value is None else -value if trial.mode == "max" else value
    if field in SORTABLE:
        value = getattr(trial, field)
        return str(value) if field == "state" else value
    return setting_at(trial.settings, field, setting_at(trial.group_values, field))


def _row(trial: PlacedRow) -> dict[str, Any]:
    """As JSON and CSV have it: `value` in `unit`."""
    metric = metric_of(trial)
    return {
        "key": trial.key, "stage": trial.stage, "group": trial.group, "name": trial.name, "state": str(trial.state),
        "epoch": trial.epoch, "epochs": trial.epochs, "figure": metric.name, "split": trial.split,
        "value": scaled(trial.value, metric), "unit": metric.unit, "seed": trial.seed, "seconds": trial.seconds,
        "started": moment(trial.started) or None, "ended": moment(trial.ended) or None, "host": trial.host,
        "error_class": trial.error_class, "error": trial.error,
        "settings": {**trial.group_values, **trial.settings},
    }  # fmt: skip


def _lines(trials: Sequence[PlacedRow]) -> list[str]:
    """One line a trial: settings that differ among them, and the value in its unit."""
    differing = varied([trial.settings for trial in trials])
    shown = [path for path in differing if not any(path in trial.group_values for trial in trials)]
    header = ["trial", "stage/group", *(path.rpartition(".")[2] for path in shown), "state", "epoch", "value",
              "took", "host", ""]  # fmt: skip
    rows = [
        [trial.key[:8], f"{trial.stage}/{trial.group}",
         *(short(trial.settings[path]) if path in trial.settings else "–" for path in shown),
         str(trial.state), f"{trial.epoch}/{trial.epochs}", _value(trial),
         "–" if trial.seconds is None else duration(trial.seconds), trial.host or "–",
         f"{trial.error_class}: {(trial.error or '').splitlines()[0] if trial.error else ''}"[:60]
         if trial.error_class else ""]
        for trial in trials
    ]  # fmt: skip
    return aligned(header, rows, WIDE)


def _value(trial: PlacedRow) -> str:
    """test top-1 accuracy 89.2 %"""
    metric = metric_of(trial)
    value = scaled(trial.value, metric)
    return "–" if value is None else f"{trial.split} {metric.title} {figures.with_unit(value, metric)}"


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows with a column for each setting, named by its dotted path."""
    paths = list(dict.fromkeys(path for row in rows for path in row["settings"]))
    plain = [name for name in (rows[0] if rows else {}) if name != "settings"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*plain, *paths])
    for row in rows:
        settings = row["settings"]
        writer.writerow([*(row[name] for name in plain), *(_plain(settings.get(path)) for path in paths)])
    return text.getvalue()


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, str | int | float) else label(value)
