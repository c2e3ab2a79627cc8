"""Writes the JSON Schema of a spec file, with which editors complete and check specs."""

from __future__ import annotations

from typing import Any

from orchestrator.spec.check_paths import trial_schema_paths
from orchestrator.spec.job import MAX_NAME, MAX_PROFILES, PLANNER_ONLY, PROFILE, JobSpec
from orchestrator.spec.presets import KEY
from orchestrator.spec.table_file import TableFile
from tasks import TASKS
from workers.trial import TrialSpec

Schema = dict[str, Any]


def json_schema() -> Schema:
    """JSON Schema (draft 2020-12) of a spec file: with profiles, and with single values for lists.

    It requires only name, trial and stages: fields that a base trial or a stage lacks may come from a profile, an
    override or an axis. `validate` checks that the result is complete.
    """
    job: Schema = JobSpec.model_json_schema(by_alias=True)
    trial: Schema = TrialSpec.model_json_schema(by_alias=True)
    definitions: Schema = {**job.pop("$defs"), **trial.pop("$defs")}
    for name in PLANNER_ONLY:
        trial["properties"].pop(name)
    definitions["TrialSpec"] = trial
    for definition in definitions.values():
        definition.pop("required", None)
    for task in TASKS.values():
        for field, presets in task.presets.items():
            _or_preset(definitions, definitions[task.__name__]["properties"][field], list(presets))
    paths = {"anyOf": [{"enum": trial_schema_paths()}, {"pattern": r"\.args\."}]}
    definitions["TrialPath"] = {"description": "A field of the trial, by its dotted path.", **paths}

    stage, fields = definitions["Stage"], job["properties"]
    axes = definitions["Grid"]["properties"]["grid"]
    axes["anyOf"] = [
        _keyed_by_path(axes["items"]),
        {"type": "array", "items": axes.pop("items"), **{key: axes.pop(key) for key in ("minItems", "maxItems")}},
    ]
    axes.pop("type")
    for key in ("search", "each"):
        _keyed_by_path(definitions["Search"]["properties"][key])
    _keyed_by_path(definitions["Search"]["properties"]["first"]["items"])
    _keyed_by_path(stage["properties"]["override"])
    _keyed_by_path(definitions["Neighbourhood"]["properties"]["near"])
    stage["properties"]["per"]["items"] = {"$ref": "#/$defs/TrialPath"}
    for key in ("from", "per"):
        _or_single(stage["properties"][key])
    for key in ("rows", "columns"):
        field = definitions["ReportSpec"]["properties"][key]
        definitions["ReportSpec"]["properties"][key] = {
            "$ref": "#/$defs/TrialPath", "default": field["default"], "title": field["title"],
        }  # fmt: skip
    fields["plugins"]["items"] = {"anyOf": [definitions["Plugin"]["properties"]["module"], fields["plugins"]["items"]]}
    fields["trial"] = {"$ref": "#/$defs/TrialSpec"}
    fields["stages"]["items"] = {"$ref": "#/$defs/Stage", "required": ["name"]}
    fields["profiles"] = _profiles(fields)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **job,
        "$defs": dict(sorted(definitions.items())),
    }


def table_schema() -> Schema:
    """JSON Schema (draft 2020-12) of a table file, with single values for lists. It does not list the fields of trials,
    so that a new field of a task leaves it as it is."""
    table: Schema = TableFile.model_json_schema(by_alias=True)
    definitions = table["$defs"]
    for name in ("TableColumn", "TableRow"):
        for values in definitions[name]["properties"]["where"]["patternProperties"].values():
            _or_single(values)
    for name in ("weights", "model"):
        _or_single(definitions["TableRow"]["properties"][name])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **table,
        "$defs": dict(sorted(definitions.items())),
    }


def _profiles(fields: Schema) -> Schema:
    """Profiles: the fields of a job but for its name and profile, and stages by their names."""
    changes = {key: field for key, field in fields.items() if key not in ("name", "profile", "stages")}
    stage = {"anyOf": [{"$ref": "#/$defs/Stage"}, {"type": "null"}]}
    by_name = {"type": "object", "propertyNames": {"maxLength": MAX_NAME}, "additionalProperties": stage}
    changes["stages"] = {
        "description": "By name: changes to a stage, null to remove it, or a new one with its `name`. "
        "A list replaces all stages.",
        "anyOf": [by_name, fields["stages"]],
    }
    overlay = {"type": "object", "properties": changes, "additionalProperties": False}
    return {
        "description": "What each profile changes: mappings merge, lists replace, another `kind` replaces.",
        "type": "object",
        "maxProperties": MAX_PROFILES,
        "propertyNames": {"pattern": PROFILE, "maxLength": MAX_NAME},
        "additionalProperties": overlay,
    }


def _or_preset(definitions: Schema, field: Schema, names: list[str]) -> None:
    """Lets a field be written as the name of a preset, or as that and what differs from it."""
    reference = field.pop("$ref")
    preset = {"description": "Stands for the fields of the preset; what is written beside it wins.", "enum": names}
    definition = definitions[reference.rpartition("/")[2]]
    definition["properties"] = {KEY: preset, **definition["properties"]}
    field["anyOf"] = [{"enum": names}, {"$ref": reference}]


def _keyed_by_path(mapping: Schema) -> Schema:
    """Makes a mapping's keys trial paths."""
    (mapping["additionalProperties"],) = mapping.pop("patternProperties").values()
    mapping["propertyNames"] = {"$ref": "#/$defs/TrialPath"}
    return mapping


def _or_single(array: Schema) -> None:
    """Lets a list be written as its single item."""
    items = array["items"]
    rest = {key: array.pop(key) for key in ("type", "items", "minItems", "maxItems") if key in array}
    array["anyOf"] = [items, rest]
