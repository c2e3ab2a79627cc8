"""What must hold of a store at every moment, whatever its drivers went through."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from k12_job import figures
from stepped_cluster import EPOCHS, diverges, values_of

from orchestrator.records.states import TrialState
from orchestrator.report.build import build
from orchestrator.report.json_values import to_json
from orchestrator.store import tables
from orchestrator.store.store import Store
from workers.trial import TrialSpec

Group = tuple[str, str, str]
"""(job, stage, group)"""


@functools.cache
def spec_of(text: str) -> TrialSpec:
    """A recorded trial; the same text is read once."""
    return TrialSpec.model_validate_json(text)


@dataclass
class Records:
    """The rows of a store at one moment, by the key of their trial where they have one."""

    trials: dict[str, Any] = field(default_factory=dict)
    attempts: dict[str, list[Any]] = field(default_factory=dict)
    figures: dict[str, dict[str, float]] = field(default_factory=dict)
    reports: dict[str, dict[int, dict[str, float]]] = field(default_factory=dict)
    groups: dict[Group, list[str]] = field(default_factory=dict)
    choices: dict[Group, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, store: Store) -> Records:
        return store._db.read(cls._read)

    @classmethod
    def _read(cls, connection: sa.Connection) -> Records:
        found = cls()
        keys: dict[int, str] = {}
        for row in connection.execute(sa.select(tables.trials)):
            keys[row.id] = row.key
            found.trials[row.key] = row
            found.attempts[row.key], found.figures[row.key], found.reports[row.key] = [], {}, {}
        for row in connection.execute(sa.select(tables.attempts).order_by(tables.attempts.c.token)):
            found.attempts[keys[row.trial_id]].append(row)
        for row in connection.execute(sa.select(tables.figures)):
            found.figures[keys[row.trial_id]][row.name] = row.value
        for row in connection.execute(sa.select(tables.reports)):
            found.reports[keys[row.trial_id]][row.epoch] = json.loads(row.values_json)
        for row in connection.execute(sa.select(tables.placed).order_by(tables.placed.c.position)):
            found.groups.setdefault((row.job_id, row.stage, row.grp), []).append(keys[row.trial_id])
        for row in connection.execute(sa.select(tables.winners)):
            found.choices[row.job_id, row.stage, row.grp] = row
        return found

    def has_result(self, key: str) -> bool:
        """True for a trial with figures or without any by its nature, even while it runs once more for its weights."""
        row = self.trials[key]
        return row.value is not None or row.state == TrialState.diverged


def check(now: Records, before: Records, sizes: dict[Group, int], storage: Path) -> None:
    """Asserts what holds at any moment, and between two moments. `sizes`: trials of each group in the undisturbed
    run. `storage`: folder of the trials' files."""
    for key, row in now.trials.items():
        _check_attempts(row, now.attempts[key])
        _check_results(row, now.figures[key], now.reports[key], storage)
        old = before.trials.get(key)
        if old is not None:
            assert row.token >= old.token
            assert row.value == old.value or old.value is None, f"the result of {key[:8]} has changed"
    for place, choice in now.choices.items():
        if place in before.choices:
            assert choice == before.choices[place], f"the choice {place} has changed"
        else:
            _check_choice(now, place, choice, sizes)
    assert before.choices.keys() <= now.choices.keys()
    for place, keys in now.groups.items():
        for key in keys:
            if spec_of(now.trials[key].spec_json).task.reads_test:
                assert place in now.choices, f"{place} reads test before a choice"


def _check_attempts(row: Any, attempts: list[Any]) -> None:
    """One attempt for each token, all ended but that of a running trial."""
    short = row.key[:8]
    assert [each.token for each in attempts] == list(range(1, row.token + 1)), f"the attempts of {short} have gaps"
    is_open = [each for each in attempts if each.ended is None]
    if row.state == TrialState.running:
        assert [each.token for each in is_open] == [row.token], f"{short} runs; open are {is_open}"
        assert is_open[0].driver_id == row.driver_id
    else:
        assert not is_open, f"{short} is {row.state} with an open attempt"
    for each in attempts:
        assert (each.ended is None) == (each.cause is None)
        assert each.ended is None or each.started <= each.ended
    if row.state == TrialState.done:
        assert "done" in [each.cause for each in attempts]


def _check_results(
    row: Any, recorded: dict[str, float], reports: dict[int, dict[str, float]], storage: Path
) -> None:  # fmt: skip
    """Figures and reports are those that this trial has by its nature; nobody wrote others."""
    spec, short = spec_of(row.spec_json), row.key[:8]
    if row.state == TrialState.done:
        assert row.value is not None
        assert not diverges(spec)
        assert set(reports) == set(range(1, EPOCHS + 1)), f"{short} is done with the reports {sorted(reports)}"
    if row.value is None:
        assert not recorded
    else:
        assert row.state in (TrialState.done, TrialState.running), f"{short} has figures and is {row.state}"
        assert recorded == figures(spec)
        assert row.value == recorded[row.metric]
    if row.state == TrialState.diverged:
        assert diverges(spec)
    for epoch, values in reports.items():
        assert values == values_of(spec, epoch)
    if row.state == TrialState.done and row.weights_path is not None:
        assert not Path(row.weights_path).is_absolute(), "a runs folder may be moved"
        path = storage / row.weights_path
        assert path.exists(), f"the store has weights of {short}, the storage has not"
        assert row.key.encode() in path.read_bytes()


def _check_choice(now: Records, place: Group, choice: Any, sizes: dict[Group, int]) -> None:
    """Every candidate that the undisturbed run has is there and has ended with a result."""
    job, _, group = place
    for source in json.loads(choice.sources_json):
        keys = now.groups.get((job, source, group), [])
        assert len(keys) == sizes[job, source, group], f"{place} was chosen from a part of {source}"
        missing = [key[:8] for key in keys if not now.has_result(key)]
        assert not missing, f"{place} was chosen while {missing} of {source} had no result"


def table(store: Store, job: str) -> Any:
    """Everything that a job ends with: trials, figures, choices, the cells of its report; no times, hosts, attempts."""
    rows = store.trials.placed(job)
    numbers = store.trials.figures(row.key for row in rows)
    trials = [
        (row.stage, row.group, row.key, row.name, row.position, row.state, row.value, row.settings) for row in rows
    ]
    choices = sorted(
        (each.stage, each.group, each.key, each.value, each.metric, each.candidates, str(each.edges), str(each.rule))
        for each in store.choices.of(job)
    )
    return trials, numbers, choices, to_json(build(store, job))["cells"]
