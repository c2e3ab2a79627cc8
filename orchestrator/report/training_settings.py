"""The settings that the rows of a table were trained with, as the paper's Table 7 lists them, from recorded trials."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.records.recorded_spec import label, lookup, setting_at
from orchestrator.report.model import SettingRow
from orchestrator.report.wording import field_title

if TYPE_CHECKING:
    from orchestrator.records.rows import PlacedRow
    from orchestrator.report.job_results import JobResults

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
    "optim.up_epochs": "Rises for (epochs)",
    "optim.up_iterations": "Rises for (steps)",
    "optim.up_power": "Power of rise and fall",
    "optim.lr_lag": "Learning rate lags by (steps)",
    "optim.min_lr": "Lowest learning rate",
    "optim.clip": "Gradient clipping",
    "backbone.drop_path": "Stochastic depth",
}
"""Path -> title: the rows of Table 7 (appendix E) that every task has, and what else must be known to repeat them. Rows
of a task's own fields come from `Task.setting_titles` where the task can be asked (the command `settings`), and bear
the names of the fields in a report, which knows recorded trials alone."""

RECORDED = frozenset({"kind", "name", "manifests", "sizes"})
"""Of a task: what names it, and what was read off its data. These are no settings."""

NONE = "–"
"""A field that is not set."""


def training_settings(results: JobResults) -> tuple[SettingRow, ...]:
    """The settings of the trials that the rows of the table go back to, those before any choice; none while there are
    no trials. Fields that no row sets are left out."""
    trials: dict[str, list[PlacedRow]] = {row: [] for row in results.rows}
    first = [stage for stage in results.chain if not results.stages[stage].get("from")]
    for (stage, _), members in results.members.items():
        for placed in members if stage in first else ():
            trials.setdefault(results.place_of(placed)[0], []).append(placed)
    fields = {row: list(_recorded(results, members)) for row, members in trials.items()}
    titles = dict(FIELDS)
    for spec in (spec for members in fields.values() for _, spec in members[:1]):
        titles |= {f"task.{path}": field_title(path).capitalize() for path in _leaves(spec.get("task", {}))}
    shown = {path: title for path, title in titles.items() if path not in (results.row_path, results.column_path)}
    rows = (
        SettingRow(path, title, tuple(_told(results, fields.get(row, ()), path) for row in results.rows))
        for path, title in shown.items()
    )
    return tuple(row for row in rows if any(value not in ("", NONE) for value in row.values))


def _recorded(
    results: JobResults, trials: Iterable[PlacedRow]
) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """What each trial varies, and the recorded spec of one that is like it in all else: the first of its stage and
    group with the same whole mappings among its settings, whose fields are not listed one by one."""
    specs: dict[tuple[str, str, str], Mapping[str, Any]] = {}
    for trial in trials:
        varied = {**trial.group_values, **trial.settings}
        mappings = repr({path: value for path, value in varied.items() if isinstance(value, Mapping)})
        alike = (trial.stage, trial.group, mappings)
        if alike not in specs:
            spec = results.store.trials.get(trial.key).spec
            specs[alike] = {**spec, "optim": with_rise(spec.get("optim", {}))}
        yield {path: value for path, value in varied.items() if not isinstance(value, Mapping)}, specs[alike]


def _told(results: JobResults, trials: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]], path: str) -> str:
    """The values of a field, and what the table's own stage has in their place: train; final: trainval"""
    before = tried(_values(trials, path))
    after = setting_at(results.stages[results.stage].get("override") or {}, path)
    if after is None or setting_text(after) == before or not results.stages[results.stage].get("from"):
        return before
    return f"{before}; {results.stage}: {setting_text(after)}"


def _values(trials: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]], path: str) -> list[Any]:
    return [setting_at(varied, path, lookup(spec, path)) for varied, spec in trials]


def _leaves(values: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Dotted paths of the fields of a task."""
    for name, value in values.items():
        if isinstance(value, Mapping) and "kind" not in value:
            yield from _leaves(value, f"{above}{name}.") if name not in RECORDED else ()
        elif not isinstance(value, Mapping) and name not in RECORDED:
            yield f"{above}{name}"


def with_rise(optim: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `optim` with the length of an up_down schedule's rise where a default decides it (half of the
    training, rounded down: `workers.optim_spec.OptimSpec.up_length`); under another schedule there is none."""
    fields = dict(optim)
    if fields.get("schedule") != "up_down":
        return {**fields, "up_epochs": None, "up_iterations": None, "up_power": None}
    if fields.get("iterations") is not None:
        return {**fields, "up_iterations": fields.get("up_iterations") or fields["iterations"] // 2}
    half = fields["epochs"] // 2 if fields.get("up_epochs") is None else fields["up_epochs"]
    return {**fields, "up_epochs": half}


def tried(values: Iterable[Any]) -> str:
    """The values of a field: each of up to three, else the ends and how many: 0.000125 to 0.0025 (5 values)"""
    different = {setting_text(value): value for value in values}
    once: Sequence[str] = list(different)
    if len(once) < 4:
        return ", ".join(once)
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in different.values()):
        once = sorted(once, key=lambda text: different[text])
    return f"{once[0]} to {once[-1]} ({len(once)} values)"


def setting_text(value: Any) -> str:
    """A setting as a table shows it; a list in brackets."""
    if value is None:
        return NONE
    if isinstance(value, list | tuple):
        return f"({', '.join(map(setting_text, value))})"
    if isinstance(value, Mapping):
        return label(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
