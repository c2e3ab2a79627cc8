"""A task unknown to orchestrator/ and workers/ goes from a spec to its table: plan, Ray, SQL, MLflow, page.

Its targets are boxes of varying number, its input is not square, its first metric is in metres and better when lower,
and no split of it is called val (tests/support/ships).
"""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from registered_ships import registered_ships

from orchestrator import api
from orchestrator.errors import SpecError
from orchestrator.records.states import JobState
from orchestrator.report.build import build
from orchestrator.report.formats import FORMATS, Links
from orchestrator.report.verify import verify
from orchestrator.settings import Settings, settings
from orchestrator.store.store import open_existing

SPEC = """\
name: ships
trial:
  task: {kind: ships}
  backbone: {model: resnet10t, image_size: 64, init: {kind: none, name: RAND}}
  optim: {batch: 12, epochs: 4, warmup_epochs: 1}
stages:
  - {name: grid, per: [task.dataset, backbone.init], sweep: {grid: {optim.lr: [1.0e-5, 2.0e-3]}}}
  - {name: final, from: grid, override: {task.site: sea}}
"""


@pytest.fixture(scope="module")
def finished_job(ray_cluster: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Any]:
    folder = tmp_path_factory.mktemp("ships")
    (folder / "ships.yaml").write_text(SPEC)
    where = settings(folder=folder / "runs", address=ray_cluster)
    with registered_ships():
        job = api.load(folder / "ships.yaml")
        cost = api.plan(job, where)
        assert [stage.trials for stage in cost.stages] == [2, 1]
        done = api.submit(job, where, api.Options(ship=False))
        assert done.state is JobState.done, done.message
        again = api.submit(job, where, api.Options(ship=False, tracking=False))
        assert again.tally.started == 0
    return where, done


def test_the_lower_distance_wins_and_is_measured_at_sea(finished_job: tuple[Settings, Any]) -> None:
    where, done = finished_job
    with contextlib.closing(open_existing(where)) as store:
        grid, final = store.trials.placed(done.job_id, "grid"), store.trials.placed(done.job_id, "final")
        assert {row.split for row in grid} == {"harbour"}
        assert [row.split for row in final] == ["sea"]
        (choice,) = store.choices.of(done.job_id)
        assert choice.value == min(row.value for row in grid if row.value is not None)
        figures = store.trials.figures([final[0].key])[final[0].key]
        assert set(figures) == {"distance", "hit"}
        assert all(map(math.isfinite, figures.values()))
        assert verify(store, done.job_id, None) == []
        assert "ships are generated: compare with nothing" in store.trials.get(final[0].key).facts["caveats"]


def test_sql_says_which_image_is_worst(finished_job: tuple[Settings, Any]) -> None:
    where, done = finished_job
    query = (
        "SELECT item, value FROM measured WHERE job_id = :job AND stage = 'final' AND figure = 'distance' "
        "AND split = 'sea' ORDER BY value DESC"
    )
    with sa.create_engine(where.database_url).connect() as connection:
        rows = connection.execute(sa.text(query), {"job": done.job_id}).all()
    with contextlib.closing(open_existing(where)) as store:
        (final,) = store.trials.placed(done.job_id, "final")
    assert 0 < len(rows) <= 30
    assert sum(row.value for row in rows) / len(rows) == pytest.approx(final.value)


def test_every_form_of_the_report_has_metres_and_the_sea(finished_job: tuple[Settings, Any]) -> None:
    where, done = finished_job
    with contextlib.closing(open_existing(where)) as store:
        report = build(store, done.job_id)
        (final,) = store.trials.placed(done.job_id, "final")
    assert final.value is not None
    for name, form in FORMATS.items():
        text = form.render(report, Links())
        assert f"{final.value:.2f}" in text or str(final.value) in text, name
        if name not in ("csv", "json"):
            assert "distance to the nearest ship" in text, name
            assert "sea" in text, name
        assert " val " not in text, name
    assert (done.files["html"]).exists()


def test_mlflow_has_its_figures_under_their_names(finished_job: tuple[Settings, Any]) -> None:
    from mlflow import MlflowClient

    where, done = finished_job
    assert done.tracking is None
    client = MlflowClient(where.tracking_uri)
    runs = [run for each in client.search_experiments() for run in client.search_runs([each.experiment_id])]
    trials = [run for run in runs if run.data.tags["level"] == "trial"]
    assert len(trials) == 3
    for name in ("distance", "hit"):
        assert all(f"{run.data.tags['split']}/{name}" in run.data.metrics for run in trials)
    groups = [run for run in runs if run.data.tags["level"] == "group"]
    assert all(any(name.endswith("/distance") for name in run.data.metrics) for run in groups)


def test_test_data_stay_closed_before_the_choice(tmp_path: Path) -> None:
    path = tmp_path / "early.yaml"
    path.write_text(SPEC.replace("{kind: ships}", "{kind: ships, site: sea}"))
    with registered_ships(), pytest.raises(SpecError, match=r"early\.yaml:3:\d+: .*task\.site: .*test data before"):
        api.load(path)
    with pytest.raises(SpecError, match="no such kind"):  # and without the one line nobody knows it
        api.load(path)
