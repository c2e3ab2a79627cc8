"""Turns planned trials and decisions into rows for the store."""

from __future__ import annotations

from orchestrator.plan.state import Decision
from orchestrator.plan.trials import PlannedTrial, metric_rows
from orchestrator.records.rows import ChoiceRow, Placement


def placement_of(planned: PlannedTrial) -> Placement:
    """The row of a planned trial in its place."""
    return Placement(
        stage=planned.stage,
        group=planned.group,
        group_values=planned.group_values,
        key=planned.key,
        spec=planned.spec.model_dump(mode="json"),
        settings=planned.settings,
        name=planned.name,
        position=planned.position,
        metric=planned.spec.metric,
        mode=planned.spec.mode,
        seed=planned.spec.seed,
        epochs=planned.spec.last_round,
        metrics=metric_rows(planned.spec),
        split=planned.spec.task.split,
    )


def choice_of(decision: Decision) -> ChoiceRow:
    """The row of a decision: which trial a stage takes for a group."""
    return ChoiceRow(
        stage=decision.stage,
        group=decision.group,
        key=decision.key,
        value=decision.value,
        metric=decision.metric,
        edges=list(decision.edges),
        rule=dict(decision.rule),
        candidates=decision.candidates,
        sources=list(decision.sources),
    )
