"""A made-up study of attention in a real store: two initial weights, three seeds, four layers of three heads."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from orchestrator.records.rows import JobRecord, MeasurementRow, MetricRow, Placement
from orchestrator.records.writes import Failed, Finished, Reported
from orchestrator.spec.job import JobSpec
from orchestrator.store.leases import driver_here
from orchestrator.store.store import Store

LAYERS, HEADS = 4, 3
DISTANCE = MetricRow("attention_distance", "attention distance", "neither", "px", 1.0, 1)
CKA = MetricRow("cka", "CKA", "neither", "", 1.0, 3)
FIGURES = (
    {"title": "Figure 1", "figure": "attention_distance", "anchor": "uniform_distance", "stage": "analyse"},
    {"title": "Figure 6 (b)", "figure": "cka", "stage": "analyse", "form": "matrix", "rows": ["SUP"], "low": 0.0},
)


def distance(row: str, seed: int, layer: int, head: int) -> float:
    """A made-up attention distance in pixels: SUP grows with the layer, MIM does not."""
    return 20.0 + (10.0 * layer if row == "SUP" else 0.0) + head + 0.5 * seed


def measured(row: str, seed: int, layers: int = LAYERS) -> list[MeasurementRow]:
    """What a trial of the study measured."""
    rows = [
        MeasurementRow("attention_distance", "val", "", layer, head, distance(row, seed, layer, head))
        for layer in range(layers)
        for head in range(HEADS)
    ]
    rows += [MeasurementRow("uniform_distance", "val", "", layer, None, 60.0) for layer in range(layers)]
    for layer in range(layers):
        for other in range(layers):
            value = None if {layer, other} == {0, 3} else 1 - abs(layer - other) / 10
            rows.append(MeasurementRow("cka", "val", str(other), layer, None, value))
    return rows


def record(
    store: Store,
    figures: Sequence[Mapping[str, Any]] = FIGURES,
    rows: Sequence[str] = ("SUP", "MIM"),
    seeds: Sequence[int] = (0, 1, 2),
    failed: Sequence[tuple[str, int]] = (),
    layers: int = LAYERS,
    job_id: str = "dark-12345678",
    sizes: Sequence[int] = (),
    other_rate: Collection[tuple[str, int]] = (),
    replicates: int | Mapping[str, int] | None = None,
    reported: Callable[[str, int], Sequence[Mapping[str, float]]] = lambda row, seed: (),
    measures: Callable[[str, int], list[MeasurementRow]] | None = None,
) -> str:
    """Fills the store; returns the job's id. `failed`: (row, seed) of trials that fail. `sizes`: of images, a setting
    that is neither row nor column. `other_rate`: of those whose weights were trained at another learning rate.
    `reported`: what a trial of this row and seed reports after each epoch. `measures`: what it measured, in place of
    `measured`.
    `replicates`: seeds that the stage asks for, in place of an axis; only those in `seeds` are placed."""
    inits = [{"kind": "none", "name": row} for row in rows]
    spec = JobSpec.model_validate(
        {
            "name": "dark",
            "trial": {"task": {"kind": "classify", "dataset": "digits"}, "backbone": {"init": inits[0]}},
            "stages": [
                {"name": "analyse", "per": ["backbone.init"], "replicates": replicates,
                 "sweep": {"grid": {"backbone.init": inits, **({} if replicates else {"seed": list(seeds)}),
                                    **({"backbone.image_size": list(sizes)} if sizes else {})}}},
            ],
            "report": {"layers": list(figures)},
        }
    ).model_dump(mode="json", by_alias=True)  # fmt: skip
    store.jobs.put(JobRecord(job_id, "dark", "", spec, "name: dark\n"))
    store.jobs.put_stages(job_id, [("analyse", 0, spec["stages"][0])])
    driver = driver_here("driver-1", job_id, "local", slots=2)
    store.leases.register(driver)
    for row in rows:
        for seed, size in itertools.product(seeds, sizes or (None,)):
            place = _placement(row, seed, size, 1e-3 if (row, seed) in other_rate else 1e-4)
            store.trials.place(job_id, [place])
            store.leases.claim(driver.id, [place.key])
            after = enumerate(reported(row, seed), 1)
            store.trials.commit(driver.id, [Reported(place.key, 1, n, n, values, 0.5) for n, values in after])
            end = Finished(
                place.key, 1, {"attention_distance": 30.0}, {"host": "laptop"},
                measurements=measures(row, seed) if measures else measured(row, seed, layers),
            )  # fmt: skip
            wrong = Failed(place.key, 1, "data", "no such folder")
            store.trials.commit(driver.id, [wrong if (row, seed) in failed else end])
    store.jobs.set_state(job_id, "done")
    store.leases.unregister(driver.id)
    return job_id


def _placement(row: str, seed: int, size: int | None, lr: float) -> Placement:
    init = {"kind": "none", "name": row}
    setting = {} if size is None else {"backbone.image_size": size}
    return Placement(
        stage="analyse", group=row, group_values={"backbone.init": row},
        key=hashlib.sha256(f"{row} {seed} {setting}".encode()).hexdigest(),
        spec={"backbone": {"init": init}, "seed": seed},
        settings={"backbone.init": row, "optim.lr": lr, "seed": seed, **setting},
        name=f"analyse/{row}/seed={seed}", position=seed,
        metric="attention_distance", mode="max", seed=seed, epochs=1, metrics=(DISTANCE, CKA), split="val",
    )  # fmt: skip
