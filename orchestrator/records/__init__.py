"""Plain data that goes into the store and comes out of it, and questions to a recorded spec."""

from orchestrator.records.rows import AttemptRow, ChildRow, ChoiceRow, DriverRow, Edge, JobRecord, JobRow, MeasurementRow, MetricRow, PlacedRow, Placement, ReportRow, ResolvedWeightsRow, Running, SearchEvent, TrackedRun, TrialRow
from orchestrator.records.states import JobState, TrialSnapshot, TrialState
from orchestrator.records.writes import Failed, Finished, Released, Reported, StoppedEarly, Write

__all__ = [
    "AttemptRow",
    "ChildRow",
    "ChoiceRow",
    "DriverRow",
    "Edge",
    "Failed",
    "Finished",
    "JobRecord",
    "JobRow",
    "JobState",
    "MeasurementRow",
    "MetricRow",
    "PlacedRow",
    "Placement",
    "Released",
    "ReportRow",
    "Reported",
    "ResolvedWeightsRow",
    "Running",
    "SearchEvent",
    "StoppedEarly",
    "TrackedRun",
    "TrialRow",
    "TrialSnapshot",
    "TrialState",
    "Write",
]
