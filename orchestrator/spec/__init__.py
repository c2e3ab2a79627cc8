"""The spec that a user writes: its models, how it is loaded, and how its mistakes are reported."""

from orchestrator.spec.check_paths import trial_schema_paths
from orchestrator.spec.job import Average, JobSpec, Near, Neighbourhood, Reference, ReportSpec, Resources, Stage, job_id
from orchestrator.spec.json_schema import json_schema
from orchestrator.spec.load import load, profiles
from orchestrator.spec.sweep import Axes, Axis, Grid, LinSpace, LogSpace, Path_, SingleSetting, axis_values, points
from orchestrator.spec.trial_fields import apply

__all__ = [
    "Average",
    "Axes",
    "Axis",
    "Grid",
    "JobSpec",
    "LinSpace",
    "LogSpace",
    "Near",
    "Neighbourhood",
    "Path_",
    "Reference",
    "ReportSpec",
    "Resources",
    "SingleSetting",
    "Stage",
    "apply",
    "axis_values",
    "job_id",
    "json_schema",
    "load",
    "points",
    "profiles",
    "trial_schema_paths",
]  # fmt: skip
