"""The part of the plan that searches use: they propose trials one by one, stop some early, and close their groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.plan.expansion import at_point, replicated
from orchestrator.plan.placing import Changes, Placing
from orchestrator.plan.ready_queue import ReadyTrials
from orchestrator.plan.state import RESULTS, PlanState
from orchestrator.plan.trials import BACKBONE, GroupId, Sources, made_by_stages, with_weights_of
from orchestrator.records.states import TrialSnapshot, TrialState
from orchestrator.spec.seeds import SEED
from workers.trial import Span, TrialSpec


class OpenSearches:
    """The groups in which a search may still propose trials. `body` is that of a recorded `asked` event."""

    def __init__(self, state: PlanState, placing: Placing, ready: ReadyTrials) -> None:
        self._state, self._placing, self._ready = state, placing, ready

    def groups(self) -> list[GroupId]:
        """Groups whose search can propose trials now: it is not closed, and its initial weights are known."""
        searches = [(group_id, group.search) for group_id, group in self._state.groups.items() if group.search]
        return [group_id for group_id, search in searches if self._state.resolve_weights(search.middle) is not None]

    def middle(self, group_id: GroupId) -> TrialSpec:
        """The trial in the middle of an open search's ranges."""
        search = self._state.groups[group_id].search
        assert search is not None, "its search is open"
        return search.middle

    def expected(self, group_id: GroupId) -> int:
        """How many trials the group has once its search is closed."""
        return self._state.groups[group_id].expected

    def key_at(self, group_id: GroupId, body: Mapping[str, Any]) -> str | None:
        """Key of the trial that a search's event describes, with replicates of the first one; None if the values of
        its point do not go together."""
        trials = self._trials_at(group_id, body)
        return trials[0][0].key if trials else None

    def keys_at(self, group_id: GroupId, body: Mapping[str, Any]) -> list[str]:
        """Keys of all trials that a search's event describes: the replicates of its point."""
        return [spec.key for spec, _ in self._trials_at(group_id, body)]

    def propose(self, group_id: GroupId, body: Mapping[str, Any]) -> Changes:
        """Places the trials that a search's event describes: one, or the replicates of its point."""
        trials, group, mark = self._trials_at(group_id, body), self._state.groups[group_id], self._placing.mark()
        assert trials, "the search has asked for its key"
        for spec, sources in trials:
            if spec.last_round < spec.rounds:
                group.partial.add(spec.key)
            self._placing.place(group, len(group.trials), spec, sources)
        return self._placing.since(mark)

    def results_of(
        self, group_id: GroupId, keys: Sequence[str], now: Mapping[str, TrialSnapshot]
    ) -> list[float | None]:
        """The metric of each of the group's trials with these keys, None for one that diverged; empty until all of
        them have a result. `now`: snapshots that the planner does not have yet."""
        snapshots = [now.get(key) or self._state.trials[key].snapshot for key in keys]
        if any(snapshot.state not in RESULTS for snapshot in snapshots):
            return []
        metric = self._state.trials[keys[0]].planned.spec.metric
        return [each.figures.get(metric) if each.state is TrialState.done else None for each in snapshots]

    def stop_early(self, group_id: GroupId, key: str) -> Changes:
        """Marks the trial as stopped early in this group: it counts as finished and cannot win."""
        group, trial, mark = self._state.groups[group_id], self._state.trials[key], self._placing.mark()
        if key not in group.stopped_early:
            group.stopped_early.add(key)
            group.results += trial.snapshot.state not in RESULTS
            self._ready.refresh([key, *trial.planned.needs])
            self._placing.settle([group])
        return self._placing.since(mark)

    def close(self, group_id: GroupId) -> Changes:
        """Ends the group's search: the group is complete when its trials are."""
        group, mark = self._state.groups[group_id], self._placing.mark()
        group.search, group.expected = None, len(group.trials)
        self._placing.settle([group])
        return self._placing.since(mark)

    def wanted(self, key: str) -> bool:
        """True if some group wants the trial in full."""
        trial = self._state.trials.get(key)
        return trial is not None and trial.wanted

    def stopped_while_pending(self) -> list[str]:
        """Keys of trials that no group wants any more and no driver runs, but that are still recorded as pending."""
        stopped = sorted({key for group in self._state.groups.values() for key in group.stopped_early})
        trials = ((key, self._state.trials[key]) for key in stopped)
        return [
            key
            for key, trial in trials
            if trial.snapshot.state is TrialState.pending and not trial.in_flight and not trial.wanted
        ]

    def _trials_at(self, group_id: GroupId, body: Mapping[str, Any]) -> list[tuple[TrialSpec, Sources]]:
        """The trial that an event describes, or the replicates of its point, each with the sources of its weights as
        the spec names them. None of them if the values of the point do not go together."""
        search = self._state.groups[group_id].search
        assert search is not None, "its search is open"
        spec = at_point(search.fields, body["point"], search.workers)
        if spec is not None and "span" in body:
            first, last = body["span"]
            spec = spec.model_copy(update={"span": Span(first_epoch=first, last_epoch=last)})
            if body["parent"] is not None:
                spec = with_weights_of(spec, {BACKBONE: body["parent"]})
        if spec is None:
            return []
        seeds = search.seeds
        if seeds is not None and SEED in body["point"]:  # made up for a forecast
            seeds = tuple(range(spec.seed, spec.seed + len(seeds)))
        trials = replicated([spec], seeds)
        resolved = [self._state.resolve_weights(trial.spec, trial.replicate) for trial in trials]
        sources = [made_by_stages(trial.spec) for trial in trials]
        return [(spec, each) for spec, each in zip(resolved, sources, strict=True) if spec is not None]
