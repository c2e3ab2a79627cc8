"""The only place that says why a group is incomplete, what blocks a trial, and when a stage pauses."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from orchestrator.plan.state import RETRIABLE, GroupState, PlanState, TrialEntry
from orchestrator.plan.trials import source_of_weights
from orchestrator.records.states import TrialSnapshot, TrialState

PAUSE_AFTER = 3
"""The same error in so many trials of a stage is the code's fault, not the setting's: the stage pauses."""


class RepeatedErrors:
    """Equal code errors (same first line) per stage, counted over trials that stand failed now."""

    def __init__(self) -> None:
        self._failed: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))

    def count(self, trial: TrialEntry, before: TrialSnapshot) -> list[str]:
        """Takes over how the trial's state changed; the stages that paused or went on by it."""
        key, changed = trial.planned.key, []
        for stage in {group.stage.name for group in trial.groups}:
            paused = self.paused(stage)
            if (message := _code_error(before)) is not None:
                self._failed[stage][message].discard(key)
            if (message := _code_error(trial.known)) is not None:
                self._failed[stage][message].add(key)
            if paused != self.paused(stage):
                changed.append(stage)
        return changed

    def paused(self, stage: str) -> bool:
        return any(len(keys) >= PAUSE_AFTER for keys in self._failed.get(stage, {}).values())

    def lines(self, job: str) -> list[str]:
        """A line for each stage that is paused."""
        return [
            f"stage {stage} is paused: {len(keys)} of its trials failed with the same error: {message}; "
            f"correct it, then: python -m orchestrator retry {job}"
            for stage, errors in self._failed.items()
            for message, keys in errors.items()
            if len(keys) >= PAUSE_AFTER
        ]


def incomplete_reason(board: PlanState, group: GroupState, taken: bool) -> str | None:
    """Why the group has no winner or result and, as things stand, will have none; else None.

    `taken`: a winner was chosen from it (together with other groups, where a stage takes from several).
    """
    needed = [key for key in group.trials if key not in group.stopped_early]
    failed = [key for key in needed if board.trials[key].known.state in RETRIABLE]
    if failed:
        known = board.trials[failed[0]].known
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        cause = f": {_first_line(known.error)}" if known.error else ""
        again = f"to run it again: python -m orchestrator retry {board.stages.job.name}"
        return f"trial {_title(board, failed[0])} {_ended(known.state)}{more}{cause}; {again}"
    for key in needed:
        if cause_of_block := _blocked(board, key):
            return f"trial {_title(board, key)} is blocked: {cause_of_block}"
    waiting = [draft.spec for draft in group.drafts or []]
    if group.search is not None and not group.trials:
        waiting.append(group.search.middle)
    for source in dict.fromkeys(source_of_weights(spec) for spec in waiting):
        giver = board.giver(source) if source else None
        if giver and incomplete_reason(board, giver, taken=False):
            return f"blocked: it starts from the weights of stage {source}, which is incomplete"
    if group.complete and not taken and board.best([group]) is None:
        if not group.trials:
            return "no setting around the winner is allowed, so there is no trial"
        return "no trial ended with a finite metric, so there is no winner; change its settings and submit again"
    return None


def _blocked(board: PlanState, key: str) -> str | None:
    """Why a trial that is to run cannot start for want of its parent's weights, or None."""
    trial = board.trials[key]
    if trial.known.state is not TrialState.pending and not board.wanted_again(trial):
        return None
    return next(_causes(board, trial.planned.needs), None)


def _causes(board: PlanState, parents: Iterable[str]) -> Iterator[str]:
    for key in parents:
        parent, known = board.trials.get(key), board.known(key)
        if parent is None or known is None:
            if not board.gives_weights(key):
                yield (
                    f"it starts from trial {key[:8]}, which is not of this job and has no weights; to make them: "
                    f"python -m orchestrator pin {key[:12]}, and submit that trial's job again"
                )
        elif known.state in (*RETRIABLE, TrialState.diverged):
            yield f"it starts from trial {_title(board, key)}, which {_ended(known.state)}"
        elif known.state is TrialState.done and not known.weights and parent.weights_requested and not parent.in_flight:
            yield f"it starts from trial {_title(board, key)}, which ended without the weights it was to keep"
        elif cause := _blocked(board, key):
            yield cause


def _title(board: PlanState, key: str) -> str:
    return f"{board.trials[key].planned.name} ({key[:8]})"


def _code_error(known: TrialSnapshot) -> str | None:
    """The first line of a failure in code, by which equal failures are known."""
    if known.state is TrialState.failed and known.error_class == "code":
        return _first_line(known.error)
    return None


def _first_line(text: str | None) -> str:
    return (text or "").strip().split("\n", 1)[0]


def _ended(state: TrialState) -> str:
    return "was cancelled" if state is TrialState.cancelled else str(state)
