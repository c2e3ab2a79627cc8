"""Checks a report against the recorded figures: rebuilds every number and every choice from SQL."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.records.recorded_spec import replicates, sources
from orchestrator.report.build import build
from orchestrator.report.earlier_forms import comparable, in_form_of, with_method_of
from orchestrator.report.figures import scaled
from orchestrator.report.json_values import to_json
from orchestrator.report.model import FORM, Report
from orchestrator.report.verify_claims import claim_differences
from orchestrator.report.wording import edge_text
from orchestrator.rules import selection
from orchestrator.rules.selection import barred_trials

if TYPE_CHECKING:
    from orchestrator.records.rows import ChoiceRow, PlacedRow
    from orchestrator.store.store import Store

ADDRESSES = frozenset({"run_id", "run_ids"})
"""Where the tracking server has a trial; may be filled in later, and is no result."""
WORDS = frozenset({"warnings", "reason", "edges"})
"""Texts, which another version may word otherwise."""

Figures = Mapping[str, Mapping[str, float]]
"""Trial key -> its recorded figures by name."""


def verify(store: Store, job_id: str, saved: Mapping[str, Any] | None = None) -> list[str]:
    """A line for each difference; none if all is well. `saved`: a report's JSON, to compare with one built now.

    Checks that the list of trials repeats the recorded figures, that every value in the table is a recorded figure,
    that every winner is the one that the recorded rule chooses from those figures (its value, its edges and the number
    of candidates too), that nothing was chosen from a group that is not complete, and that a chosen trial ended with
    what it last reported. Of each claim: that its values are recorded figures, that its differences and its verdict
    follow from them, and that the store has when it was first submitted. Of a report that an earlier version saved,
    only the numbers that both versions have are compared.
    """
    placed = store.trials.placed(job_id)
    figures = store.trials.figures(trial.key for trial in placed if trial.state == "done")
    lines = list(_repeated(placed, figures))
    spec = store.jobs.spec(job_id)
    members: dict[tuple[str, str], list[PlacedRow]] = {}
    for trial in placed:
        members.setdefault((trial.stage, trial.group), []).append(trial)
    winners = store.choices.of(job_id)
    barred = barred_trials(store.search_log.events(job_id))
    for winner in winners:
        lines += _rechosen(winner, spec, without(members, barred), figures)
    lines += _undecided(spec, members, {(winner.stage, winner.group) for winner in winners})
    lines += _last_reports(store, [winner.key for winner in winners], figures, placed)
    report = build(store, job_id)
    lines += _table(report, figures)
    lines += claim_differences(report, spec, figures)
    if saved is not None:
        earlier = saved.get("form") != FORM
        fresh = in_form_of(saved, to_json(report))
        before = with_method_of({**comparable(saved), "form": FORM}, fresh)
        lines += differences(before, fresh, "report", shared_only=earlier)
    return lines


def _table(report: Report, figures: Figures) -> Iterable[str]:
    """Every value of the table is a recorded figure of the trial that it is said to be of."""
    for cell in report.cells:
        recorded = [figures[key].get(cell.figure.name) for key in cell.keys if key in figures]
        values = [value for number in recorded if (value := scaled(number, cell.figure)) is not None]
        if values != list(cell.values):
            what = f"{cell.row} on {cell.column}, {cell.figure.name}"
            yield f"{what}: shown from {list(cell.values)}, its trials have {values}"


def _repeated(placed: Sequence[PlacedRow], figures: Mapping[str, Mapping[str, float]]) -> Iterable[str]:
    for trial in placed:
        if trial.state == "done":
            # without any figure (a submission) the list has nan
            raw = figures.get(trial.key, {trial.metric: math.nan}).get(trial.metric)
            if not _same(raw, trial.value):
                yield f"{trial.name} ({trial.key[:12]}): listed with {trial.metric} {trial.value}, its figure is {raw}"


Members = Mapping[tuple[str, str], Sequence["PlacedRow"]]


def without(members: Members, barred: set[tuple[str, str, str]]) -> Members:
    """The trials that may win."""
    return {
        place: [trial for trial in trials if (*place, trial.key) not in barred] for place, trials in members.items()
    }


def _rechosen(
    winner: ChoiceRow,
    spec: Mapping[str, Any],
    members: Mapping[tuple[str, str], Sequence[PlacedRow]],
    figures: Mapping[str, Mapping[str, float]],
) -> Iterable[str]:
    """Chooses the winner of a group again from the recorded figures."""
    what = f"{winner.stage} of {winner.group}"
    trials = [trial for source in winner.sources for trial in members.get((source, winner.group), [])]
    open_ = [trial for trial in trials if trial.state not in ("done", "diverged")]
    if open_:
        yield f"{what}: chosen although {len(open_)} of {len(trials)} candidates have no result"
    stages = {stage["name"]: stage for stage in spec["stages"]}
    ties = stages[winner.sources[0]]["ties"]
    modes = {trial.mode for trial in trials}
    unique = {each.key: each for each in _candidates(stages, trials, figures)}
    best = selection.best(unique.values(), winner.metric, modes.pop(), ties) if len(modes) == 1 else None
    if best is None:
        yield f"{what}: recorded winner {winner.key[:12]}, but its candidates have no best {winner.metric}"
        return
    if best.key != winner.key:
        yield (
            f"{what}: recorded winner {winner.key[:12]} ({winner.metric} {winner.value}), the figures choose "
            f"{best.key[:12]} ({best.figures.get(winner.metric)})"
        )
    recorded = unique.get(winner.key)
    if recorded is None:
        yield f"{what}: recorded winner {winner.key[:12]} is none of its {len(trials)} candidates"
        return
    if not _same(recorded.figures.get(winner.metric), winner.value):
        value = recorded.figures.get(winner.metric)
        yield f"{what}: recorded with {winner.metric} {winner.value}, its figure is {value}"
    for name, values in selection.seeds_of(recorded, winner.metric).items():
        if list(winner.rule.get(name) or []) != values:
            yield f"{what}: recorded with {name} {winner.rule.get(name)}, its trials have {values}"
    if winner.candidates not in (len(trials), len(unique)):
        yield f"{what}: recorded with {winner.candidates} candidates, it has {len(unique)}"
    ranges, choices = _ranges(stages, winner)
    edges = selection.edges(recorded.settings, _axes(stages, winner, members), ranges)
    # Compared as text: edges recorded by earlier versions have six digits. Those had edges of seeds and choices too.
    had = [edge for edge in winner.edges if edge.path not in (selection.SEED, *choices)]
    before, now = sorted(map(edge_text, had)), sorted(map(edge_text, edges))
    if before != now:
        yield f"{what}: recorded edges {'; '.join(before) or 'none'}, the grid says {'; '.join(now) or 'none'}"


def _candidates(
    stages: Mapping[str, Mapping[str, Any]], trials: Iterable[PlacedRow], figures: Figures
) -> list[selection.Candidate]:
    """The trials that were compared; of a stage with replicates, its settings."""
    replicated = [name for name, stage in stages.items() if replicates(stage)]
    return selection.compared(
        (
            (trial.stage, selection.Candidate(trial.key, figures.get(trial.key, {}), trial.settings, trial.seed))
            for trial in trials
        ),
        replicated,
    )


def _axes(
    stages: Mapping[str, Mapping[str, Any]],
    winner: ChoiceRow,
    members: Mapping[tuple[str, str], Sequence[PlacedRow]],
) -> dict[str, list[Any]]:
    """The values on each axis of the grid that a decision goes back to."""
    grids = [name for source in winner.sources for name in sources(stages, source) if not stages[name].get("from")]
    paths = [path for name in grids for axes in stages[name]["sweep"].get("grid") or [] for path in axes]
    rows = [trial.settings for name in dict.fromkeys(grids) for trial in members.get((name, winner.group), [])]
    return selection.axis_values(rows, dict.fromkeys(paths))


def _ranges(
    stages: Mapping[str, Mapping[str, Any]], winner: ChoiceRow
) -> tuple[dict[str, selection.Range], dict[str, list[Any]]]:
    """The ranges of the searches that a decision goes back to."""
    names = dict.fromkeys(name for source in winner.sources for name in sources(stages, source))
    return selection.search_ranges(
        {path: tried for name in names for path, tried in stages[name]["sweep"].get("search", {}).items()}
    )


def _undecided(
    spec: Mapping[str, Any],
    members: Mapping[tuple[str, str], Sequence[PlacedRow]],
    decided: set[tuple[str, str]],
) -> Iterable[str]:
    """A stage that takes winners has trials only where a decision is recorded."""
    consumers = [stage["name"] for stage in spec["stages"] if stage.get("from")]
    for stage, group in members:
        if stage in consumers and (stage, group) not in decided:
            yield f"{stage} of {group}: has trials, but no decision is recorded"


def _last_reports(
    store: Store,
    keys: Iterable[str],
    figures: Mapping[str, Mapping[str, float]],
    placed: Iterable[PlacedRow],
) -> Iterable[str]:
    """A chosen trial was evaluated after its last epoch: that report and its figure are one number."""
    by_key = {trial.key: trial for trial in placed}
    for key in dict.fromkeys(keys):
        trial = by_key.get(key)
        reports = store.trials.reports(key) if trial is not None else []
        if trial is None or not reports or reports[-1].epoch != trial.epochs:
            continue
        reported, figure = reports[-1].values.get(trial.metric), figures.get(key, {}).get(trial.metric)
        if reported is not None and not _same(reported, figure):
            yield f"{trial.name} ({key[:12]}): last reported {trial.metric} {reported}, its figure is {figure}"


def differences(saved: Any, fresh: Any, where: str, shared_only: bool = False) -> list[str]:
    """Paths at which two JSON values differ, a line each. `shared_only`: fields that one of them lacks, and texts, do
    not count."""
    if isinstance(saved, Mapping) and isinstance(fresh, Mapping):
        ignored = ADDRESSES | WORDS if shared_only else ADDRESSES
        lines = []
        for name in dict.fromkeys([*saved, *fresh]):
            if name in ignored:
                continue
            if name in saved and name in fresh:
                lines += differences(saved[name], fresh[name], f"{where}.{name}", shared_only)
            elif not shared_only:
                lines.append(f"{where}.{name}: {'only' if name in saved else 'not'} in the saved report")
        return lines
    if isinstance(saved, list) and isinstance(fresh, list):
        if len(saved) != len(fresh):
            return [f"{where}: {len(saved)} in the saved report, {len(fresh)} now"]
        pairs = zip(saved, fresh, strict=True)
        return [line for i, (a, b) in enumerate(pairs) for line in differences(a, b, f"{where}[{i}]", shared_only)]
    return [] if saved == fresh else [f"{where}: {saved!r} in the saved report, {fresh!r} now"]


def _same(a: float | None, b: float | None) -> bool:
    if a is None or b is None:
        return a is b
    return a == b or (math.isnan(a) and math.isnan(b))
