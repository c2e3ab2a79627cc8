"""Says why a group is incomplete and what blocks a trial, and pauses stages whose trials repeat one error."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from orchestrator.plan.state import RETRIABLE, GroupState, PlanState, TrialEntry
from orchestrator.plan.trials import sources_of_weights
from orchestrator.records.states import TrialSnapshot, TrialState

PAUSE_AFTER = 3
"""Failures with the same error that pause a stage: so many are the code's fault, not that of the settings."""


class RepeatedErrors:
    """Code errors of each stage by their first line, counted over trials that are failed now."""

    def __init__(self) -> None:
        self._failed: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))

    def record(self, trial: TrialEntry, before: TrialSnapshot) -> list[str]:
        """Takes the change of a trial's snapshot from `before`. Returns the stages that paused or resumed by it."""
        key, changed = trial.planned.key, []
        for stage in {group.stage.name for group in trial.groups}:
            paused = self.paused(stage)
            if (message := _code_error(before)) is not None:
                self._failed[stage][message].discard(key)
            if (message := _code_error(trial.snapshot)) is not None:
                self._failed[stage][message].add(key)
            if paused != self.paused(stage):
                changed.append(stage)
        return changed

    def paused(self, stage: str) -> bool:
        return any(len(keys) >= PAUSE_AFTER for keys in self._failed.get(stage, {}).values())

    def lines(self) -> list[str]:
        """A line for each stage that is paused, with the error."""
        return [
            f"stage {stage} is paused: {len(keys)} of its trials failed with the same error: {message}; "
            "correct it, then `retry` runs them again"
            for stage, errors in self._failed.items()
            for message, keys in errors.items()
            if len(keys) >= PAUSE_AFTER
        ]

    def paused_stages(self) -> list[str]:
        """A line for each stage that is paused, without the error, which its trials name."""
        return [f"stage {stage} is paused: too many of its trials failed alike" for stage in self._failed
                if self.paused(stage)]  # fmt: skip


def incomplete_reason(state: PlanState, group: GroupState, taken: bool) -> str | None:
    """Why the group has no winner or result and will have none unless somebody acts; None if it is not stuck.

    `taken`: a winner was chosen from it (together with other groups if a stage takes from several).
    """
    wanted = [key for key in group.trials if key not in group.stopped_early]
    if failed := [key for key in wanted if state.trials[key].snapshot.state in RETRIABLE]:
        return _failed(state, failed)
    for key in wanted:
        if cause := _blocked(state, key):
            return f"trial {_title(state, key)} is blocked: {cause}"
    waiting = [trial.spec for trial in group.waiting or []]
    if group.search is not None and not group.trials:
        waiting.append(group.search.middle)
    for source in dict.fromkeys(source for spec in waiting for source in sources_of_weights(spec).values()):
        if incomplete_reason(state, state.source_group(source), taken=False):
            return f"blocked: it starts from the weights of stage {source}, which is incomplete"
    if group.complete and not taken and state.best([group]) is None:
        if not group.trials:
            return "no setting around the winner is allowed, so there is no trial"
        return _no_winner(state, group)
    return None


def _no_winner(state: PlanState, group: GroupState) -> str | None:
    """Why a group whose trials have all ended has no winner; None if nobody takes one and some trial has a figure."""
    remedy = "so there is no winner; change its settings and submit again"
    if not any(state.has_result(key) for key in group.trials):
        return f"no trial ended with a finite metric, {remedy}"
    stages = state.stages
    choice = len(group.settings) > 1 and stages.weight_consumers(group.stage.name)
    if choice or stages.consumers[group.stage.name]:
        return f"no setting has a finite metric with each of its seeds, {remedy}"
    return None


def _failed(state: PlanState, keys: list[str]) -> str:
    """Names the first of a group's failed trials. Their errors stand with the trials, in `status` and the report."""
    more = f" (and {len(keys) - 1} more)" if len(keys) > 1 else ""
    return f"trial {_title(state, keys[0])} {_ended(state.trials[keys[0]].snapshot.state)}{more}"


def _blocked(state: PlanState, key: str) -> str | None:
    """Why a trial that has to run cannot start for lack of its parent's weights, or None."""
    trial = state.trials[key]
    if trial.snapshot.state is not TrialState.pending and not state.must_rerun(trial):
        return None
    return next(_causes(state, trial.planned.needs), None)


def _causes(state: PlanState, parents: Iterable[str]) -> Iterator[str]:
    for key in parents:
        parent, snapshot = state.trials.get(key), state.snapshot(key)
        if parent is None or snapshot is None:
            if not state.has_weights(key):
                yield (
                    f"it starts from trial {key[:8]}, which is not of this job and has no weights; to make them: "
                    f"python -m orchestrator pin {key[:12]}, and submit that trial's job again"
                )
        elif snapshot.state in (*RETRIABLE, TrialState.diverged):
            yield f"it starts from trial {_title(state, key)}, which {_ended(snapshot.state)}"
        elif (
            snapshot.state is TrialState.done
            and not snapshot.weights
            and parent.weights_requested
            and not parent.in_flight
        ):
            yield (
                f"it starts from trial {_title(state, key)}, which ended without the weights it was to keep; why: "
                f"python -m orchestrator describe {key[:12]}; to make them: submit the job again"
            )
        elif cause := _blocked(state, key):
            yield cause


def _title(state: PlanState, key: str) -> str:
    return f"{state.trials[key].planned.name} ({key[:8]})"


def _code_error(snapshot: TrialSnapshot) -> str | None:
    """The first line of a failure in code, by which equal failures are recognized; None for anything else."""
    if snapshot.state is TrialState.failed and snapshot.error_class == "code":
        return _first_line(snapshot.error)
    return None


def _first_line(text: str | None) -> str:
    return (text or "").strip().split("\n", 1)[0]


def _ended(state: TrialState) -> str:
    return "was cancelled" if state is TrialState.cancelled else str(state)
