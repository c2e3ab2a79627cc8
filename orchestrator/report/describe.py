"""Everything that is recorded of one job or one trial, as data and as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.records.recorded_spec import label
from orchestrator.records.trial_files import stored_file, trial_folder
from orchestrator.report import lineage
from orchestrator.report.formatting import aligned, duration, moment, short
from orchestrator.report.json_values import to_json
from orchestrator.report.provenance import processors
from orchestrator.report.status import View, status
from orchestrator.report.wording import edge_text, field_title

if TYPE_CHECKING:
    from orchestrator.records.rows import AttemptRow, ChoiceRow, PlacedRow, TrialRow
    from orchestrator.store.store import Store


def job(store: Store, job_id: str) -> View:
    """Everything about a job: its progress, its choices, its code and versions, its spec. NotFound: no such job."""
    view = status(store, job_id)
    row = store.jobs.get(job_id)
    placed = {(trial.stage, trial.group, trial.key): trial for trial in store.trials.placed(job_id)}
    text = store.jobs.text(job_id)
    drivers = [driver for driver in store.leases.drivers() if driver.job_id == job_id]
    winners = []
    for choice in store.choices.of(job_id):
        places = [(source, choice.group, choice.key) for source in choice.sources]
        winners.append((choice, next((placed[place] for place in places if place in placed), None)))
    content = {
        **view.content,
        "versions": row.versions,
        "winners": [
            {**to_json(choice), "settings": dict(trial.settings) if trial else {}} for choice, trial in winners
        ],
        "drivers": [to_json(driver) for driver in drivers],
        "tracked_runs": len(store.tracked_runs.of(job_id)),
        "spec": store.jobs.spec(job_id),
        "spec_text": text,
    }
    lines = [*view.lines, *_choice_lines(winners)]
    for driver in drivers:
        lines += ["", f"driven by {driver.id}: process {driver.pid} on {driver.host}, cluster {driver.cluster}"]
    lines += ["", _code(row.git_commit, row.git_dirty), _versions(row.versions)]
    lines += [f"{content['tracked_runs']} runs in MLflow", "", "Spec", *(f"  {line}" for line in text.splitlines())]
    return View(content, lines)


def _choice_lines(winners: Sequence[tuple[ChoiceRow, PlacedRow | None]]) -> list[str]:
    """A table of the choices, each with the trial that won."""
    if not winners:
        return []
    splits = dict.fromkeys(trial.split for _, trial in winners if trial)
    where = f"chosen at\non {' / '.join(splits)}" if splits else "chosen at"
    header = ["taken by", "group", where, "best\nof", "settings",
              "at grid edge", "trial"]  # fmt: skip
    rows = []
    for choice, trial in winners:
        numbers = [(path, value) for path, value in trial.settings.items() if isinstance(value, float)] if trial else []
        rows.append(
            [
                choice.stage,
                choice.group,
                f"{choice.metric} {short(choice.value)}",
                str(choice.candidates),
                ", ".join(f"{field_title(path)} {short(value)}" for path, value in numbers),
                "; ".join(map(edge_text, choice.edges)) or "–",
                choice.key[:8],
            ]
        )
    return ["", "Choices", *aligned(header, rows, 160)]


def _shown_elsewhere(trial: TrialRow) -> tuple[str, ...]:
    """Facts of a trial that have a line of their own."""
    processor = ("ran_on", "threads", "instruction_set") if processors(trial) else ()
    return ("versions", "host", "device", *processor)


def _code(commit: str | None, dirty: bool | None) -> str:
    return f"code {commit or 'unknown (no git)'}{' with uncommitted changes' if dirty else ''}"


def _versions(versions: Mapping[str, str]) -> str:
    return "versions " + (", ".join(f"{name} {version}" for name, version in versions.items()) or "unknown")


def trial(store: Store, key: str, storage: str | Path) -> View:
    """Everything about a trial. `storage`: where trials keep their files. NotFound: no such trial."""
    row = store.trials.get(key)
    if row.weights:
        row = replace(row, weights=(str(stored_file(storage, row.weights[0])), row.weights[1]))
    attempts = store.trials.attempts(key)
    reports = store.trials.reports(key)
    ancestors, offspring = lineage.lineage(store, row), lineage.offspring(store, key)
    pins = store.weights.pins()
    pinned = {target: pins[target] for target in (key, *(place[0] for place in row.placed)) if target in pins}
    folder = trial_folder(storage, key)
    files = _files(folder)
    content = {
        **to_json(row),
        "created": moment(row.created), "started": moment(row.started), "ended": moment(row.ended),
        "seconds": _seconds(row),
        "places": [dict(zip(("job", "stage", "group", "name"), place, strict=True)) for place in row.placed],
        "lineage": to_json(ancestors), "children": to_json(offspring), "pinned": pinned,
        "attempts": [{**to_json(a), "started": moment(a.started), "ended": moment(a.ended)} for a in attempts],
        "reports": len(reports), "last_report": to_json(reports[-1]) if reports else None,
        "folder": str(folder), "files": files,
    }  # fmt: skip
    content.pop("placed")
    names = [place[3] for place in row.placed]
    lines = [f"{names[0] if names else 'trial'}  {row.state}", f"key {key}"]
    lines += [f"in job {job}, stage {stage}, group {group}" for job, stage, group, _ in row.placed]
    if row.error:
        lines += ["", f"{row.error_class or row.state}: {row.error}"]
    lines += ["", *_figure_lines(row), *_progress_lines(row, content)]
    lines += [f"pinned{f': {why}' if why else ''}" for why in pinned.values()]
    lines += ["", "Where it comes from", *lineage.lines(key, ancestors)]
    follows = lineage.offspring_lines(offspring)
    lines += ["", "What follows from it", *(f"  {line}" for line in follows)] if follows else []
    lines += ["", "Attempts", *_attempt_lines(attempts)] if attempts else []
    if files:
        lines += ["", f"Files in {folder}", *(f"  {size:>14,}  {name}" for name, size in files.items())]
    facts = {name: value for name, value in row.facts.items() if name not in _shown_elsewhere(row)}
    lines += ["", "How it ran", *_pairs(facts)] if facts else []
    lines += [_code(row.git_commit, row.git_dirty), _versions(row.versions), "", "Spec", *_pairs(row.spec)]
    return View(content, lines)


def _seconds(trial: TrialRow) -> float | None:
    if trial.train_seconds is not None or trial.started is None or trial.ended is None:
        return trial.train_seconds
    return trial.ended - trial.started


def _files(folder: Path) -> dict[str, int]:
    """Path below the folder -> bytes; none when the folder is not on this machine. A file that a running trial
    removes between the listing and the look at it is left out."""
    sizes = {}
    for path in sorted(folder.rglob("*")):
        try:
            if path.is_file():
                sizes[str(path.relative_to(folder))] = path.stat().st_size
        except FileNotFoundError:
            continue
    return sizes


def _figure_lines(trial: TrialRow) -> list[str]:
    return [
        f"{'*' if name == trial.metric else ' '} {name} {value:.6g}" for name, value in sorted(trial.figures.items())
    ]


def _progress_lines(trial: TrialRow, content: Mapping[str, Any]) -> list[str]:
    lines = [f"epoch {trial.epoch} of {trial.epochs}, step {trial.step}, seed {trial.seed}"]
    if content["started"]:
        seconds = content["seconds"]
        lines.append(
            f"started {content['started']}" + (f", ended {content['ended']}" if content["ended"] else "")
            + (f", {duration(seconds)} of training" if seconds is not None else "")
        )  # fmt: skip
    if trial.host:
        lines.append(f"on {trial.host}, {'; then '.join(processors(trial)) or trial.device or 'device unknown'}")
    if trial.data_digest:
        lines.append(f"data {trial.data_digest}")
    if trial.weights:
        lines.append(f"weights {trial.weights[0]} (SHA-256 {trial.weights[1]})")
    return lines


def _attempt_lines(attempts: Iterable[AttemptRow]) -> list[str]:
    rows = [
        [str(a.token), moment(a.started), moment(a.ended) or "–", a.cause or "running", a.driver_id, a.host,
         (a.message or "").split("\n", 1)[0]]
        for a in attempts
    ]  # fmt: skip
    return aligned(["token", "started", "ended", "end", "driver", "driver's host", ""], rows, 200)


def _pairs(values: Mapping[str, Any], before: str = "") -> list[str]:
    """Nested mappings, also those in lists, as `path: value` lines."""
    lines: list[str] = []
    for name, value in values.items():
        if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            value = {str(number): item for number, item in enumerate(value)}
        if isinstance(value, Mapping) and value:
            lines += _pairs(value, f"{before}{name}.")
        else:
            lines.append(f"  {before}{name}: {label(value) if not isinstance(value, list) else value}")
    return lines
