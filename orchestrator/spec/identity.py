"""The part of a job that its id is a hash of."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

ALWAYS_HASHED: dict[str, frozenset[str]] = {
    model: frozenset(fields.split())
    for model, fields in {
        "JobSpec": "name profile trial stages resources priority report",
        "Stage": "name sweep per from_ neighbourhood override ties resources keep_weights",
        "SingleSetting": "kind",
        "Grid": "grid",
        "LogSpace": "logspace",
        "LinSpace": "linspace",
        "Search": "search each trials sampler startup at_once seed first stopping population",
        "Uniform": "uniform",
        "LogUniform": "loguniform",
        "IntRange": "between log",
        "Choice": "choice",
        "Asha": "asha",
        "AshaRule": "grace_epochs reduction_factor brackets inside_warmup",
        "Median": "median",
        "MedianRule": "grace_epochs min_trials inside_warmup",
        "Population": "size every_epochs quantile resample factors",
        "Neighbourhood": "shape near",
        "Near": "multiply add low high",
        "Resources": "cpus gpus custom workers min_workers time_limit_hours images_per_second",
        "ReportSpec": "stage rows columns averages reference plots caption",
        "Average": "name over",
        "Reference": "source values",
        "Plot": "title x of y",
    }.items()
}
"""Model -> fields that are hashed even at their default, because the ids of recorded jobs contain them. The list is
closed: nothing is ever added. Who renames a model or a field renames it here too."""


def hashed_content(model: BaseModel) -> dict[str, Any]:
    """The JSON of a job, less the fields that are not in `ALWAYS_HASHED` and have their default value.

    A field that is added to any of the models, or a whole new model, therefore changes no id until a spec sets it.
    The price: the default of such a field may not change, or two different jobs would have one id.
    """
    content: dict[str, Any] = _pruned(model, model.model_dump(mode="json", by_alias=True))
    return content


def _pruned(value: Any, dumped: Any) -> Any:
    """`dumped`, the JSON of `value`, without the fields to leave out at any depth."""
    if isinstance(value, BaseModel):
        always = frozenset[str]().union(*(ALWAYS_HASHED.get(base.__name__, ()) for base in type(value).__mro__))
        kept = {}
        for name, field in type(value).model_fields.items():
            own = getattr(value, name)
            if name in always or own != field.get_default(call_default_factory=True, validated_data={}):
                alias = field.serialization_alias or field.alias or name
                kept[alias] = _pruned(own, dumped[alias])
        return kept
    if isinstance(value, dict):
        return {key: _pruned(own, inner) for own, (key, inner) in zip(value.values(), dumped.items(), strict=True)}
    if isinstance(value, list | tuple):
        return [_pruned(own, inner) for own, inner in zip(value, dumped, strict=True)]
    return dumped
