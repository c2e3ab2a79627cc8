"""What a reader is warned of: caveats that tasks state come from the facts recorded with each trial."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.report.caveats import ANY_COUNT, warnings
from orchestrator.report.model import Report
from orchestrator.store.store import Store


@pytest.mark.parametrize(
    ("facts", "task", "expected"),
    [
        ({"caveats": ["labels of 2012 were used"]}, {}, {"labels of 2012 were used"}),
        ({"caveats": []}, {"counts": "any"}, set()),
        ({}, {"counts": "any"}, {ANY_COUNT}),
        ({}, {"counts": "exact"}, set()),
        ({}, {}, set()),
    ],
)
def test_caveats_are_the_recorded_ones(
    whole_study: tuple[Store, Report], facts: dict[str, Any], task: dict[str, Any], expected: set[str]
) -> None:
    """Of trials that recorded none, because they ran before tasks stated any, the recorded spec tells."""
    store, report = whole_study
    job, placed = store.jobs.get(report.job_id), store.trials.placed(report.job_id)
    one = report.at["SUP", "digits"].keys[0]
    trial = replace(store.trials.get(one), facts=facts, spec={"task": task})
    lines = warnings(job, report.cells, report.groups, report.stages, placed, {one: trial})
    assert set(lines) - set(report.warnings) == {f"digits: {caveat}" for caveat in expected}


def ran_on(*places: tuple[str, int]) -> dict[str, Any]:
    """Facts of a trial whose attempts had these CPU kernels and threads."""
    attempt = {"from_step": 0, "device": "cpu", "workers": 1}
    return {"ran_on": [{**attempt, "instruction_set": kernels, "threads": threads} for kernels, threads in places]}


@pytest.mark.parametrize(
    ("first", "second", "kinds"),
    [
        (ran_on(("AVX512", 1)), ran_on(("AVX512", 1)), []),
        (ran_on(("AVX512", 1)), {}, []),
        (ran_on(("AVX512", 1)), ran_on(("AVX2", 1)), ["AVX2 kernels, 1 thread", "AVX512 kernels, 1 thread"]),
        (ran_on(("AVX512", 1)), ran_on(("AVX512", 2)), ["AVX512 kernels, 1 thread", "AVX512 kernels, 2 threads"]),
        (ran_on(("AVX512", 1), ("AVX2", 1)), {}, ["AVX2 kernels, 1 thread", "AVX512 kernels, 1 thread"]),
    ],
    ids=["alike", "not recorded", "another processor", "other threads", "moved on the way"],
)
def test_a_table_from_different_processors_says_so(
    whole_study: tuple[Store, Report], first: dict[str, Any], second: dict[str, Any], kinds: list[str]
) -> None:
    store, report = whole_study
    job, placed = store.jobs.get(report.job_id), store.trials.placed(report.job_id)
    keys = [report.at[row, "digits"].keys[0] for row in ("SUP", "RAND")]
    behind = {
        key: replace(store.trials.get(key), facts=facts) for key, facts in zip(keys, (first, second), strict=True)
    }
    lines = warnings(job, report.cells, report.groups, report.stages, placed, behind)
    said = [line for line in lines if "different processors or numbers of threads" in line]
    assert said == ([f"{DIFFERENT}: {'; '.join(f'cpu, {kind}' for kind in kinds)}"] if kinds else [])


DIFFERENT = (
    "trials of the table ran on different processors or numbers of threads, on which digits depend beside the seed"
)
