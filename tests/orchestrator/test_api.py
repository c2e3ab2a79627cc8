"""The service from Python: what it reads of a job that ran."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

import measured_layers
import pytest
import sqlalchemy as sa
import yaml
from recorded_study import Plot, Study

from orchestrator import api
from orchestrator.errors import NotFound
from orchestrator.records.rows import MeasurementRow
from orchestrator.store.store import open_store


def test_trials_and_table_are_frames(tmp_path: Path) -> None:
    where = api.settings(folder=tmp_path)
    with contextlib.closing(open_store(where.database_url)) as store:
        job = Study(store, Plot(seeds=(0, 1, 2))).run()
    assert len(api.results(job, where)) == 1 + 60 + 20 + 12
    table = api.table("k12-grid", where).set_index(["row", "column"])
    assert set(table.index) == {(row, column) for row in ("RAND", "SUP") for column in ("digits", "faces", "Average")}
    cell = table.loc["SUP", "digits"]
    # accuracy 0.96 + 0.002 seed, less 0.01 on test
    assert (cell["value"], cell["n"], cell["values"]) == (pytest.approx(95.2), 3, pytest.approx([95.0, 95.2, 95.4]))
    assert cell["interval95"] == pytest.approx(4.302653 * 0.2 / 3**0.5, rel=1e-6)
    assert (bool(cell["leading"]), cell["chosen_on"], cell["candidates"]) == (True, "val", 20)
    assert cell["chosen_value"] == pytest.approx(96.0)
    with pytest.raises(NotFound, match="nobody"):
        api.table("nobody", where)


def test_results_have_split_unit_and_dates(tmp_path: Path) -> None:
    where = api.settings(folder=tmp_path)
    with contextlib.closing(open_store(where.database_url)) as store:
        job = Study(store, Plot(seeds=(0, 1), diverged_grid=("digits/RAND",))).run()
        placed = len(store.trials.placed(job))
    frame = api.results(job, where)
    assert len(frame) == placed == len(frame[["stage", "group", "key"]].drop_duplicates()), (
        "a row is a trial in a place"
    )
    finals = frame[frame.stage == "final"]
    assert set(finals.split) == {"test"}
    assert set(frame[frame.stage == "grid"].split) == {"val"}
    assert (set(frame.unit), set(frame.better), set(frame.metric)) == ({"%"}, {"higher"}, {"top1"})
    first = finals[(finals.group == "digits/SUP") & (finals.seed == 0)].iloc[0]
    assert (first["value"], first["figure.top1"]) == (pytest.approx(95.0), pytest.approx(95.0)), "both in percent"
    for name in ("started", "ended"):
        assert (frame[name].dtype.kind, str(frame[name].dtype.tz)) == ("M", "UTC")
    assert (frame["ended"] >= frame["started"]).all()
    assert frame[frame.state == "diverged"]["value"].isna().all()
    curves = api.curves(job, "grid", where)
    assert set(curves.stage) == {"grid"}
    top1 = curves[curves.figure == "top1"]
    assert (set(top1.split), set(top1.unit), top1["value"].max()) == ({"val"}, {"%"}, pytest.approx(96.0))
    assert curves[curves.figure == "train_loss"].split.isna().all()
    with pytest.raises(NotFound, match="has no stage fine; its stages: pretrain, grid, refine, final"):
        api.curves(job, "fine", where)
    assert api.weights(job, where) == {}
    assert api.status(job, where)["state"] == "done"
    assert "is already done" in api.cancel(job, where)


def test_a_job_is_loaded_from_a_dictionary() -> None:
    spec = yaml.safe_load((Path(__file__).parents[2] / "specs" / "first.yaml").read_text())
    path = Path(__file__).parents[2] / "specs" / "first.yaml"
    assert api.load(spec) == api.load(path)
    assert api.load(spec, "smoke", ["trial.seed=3"]) == api.load(path, "smoke", ["trial.seed=3"])
    spec["trial"]["optim"]["epoch"] = spec["trial"]["optim"].pop("epochs")
    with pytest.raises(api.SpecError, match=r"spec:\d+:\d+: trial.optim.epoch: .*epochs"):
        api.load(spec)
    with pytest.raises(api.SpecError, match="a spec has JSON values alone"):
        api.load({"name": object()})


PAGE = (Path(__file__).parents[2] / "docs" / "sql.md").read_text()
JOB = "figures-paper-1a2b3c4d"
"""The job that docs/sql.md asks about."""


@pytest.fixture
def where(tmp_path: Path) -> api.Settings:
    """Of a store with a study of twelve layers, one trial of which failed."""
    found = api.settings(folder=tmp_path)
    with contextlib.closing(open_store(found.database_url)) as store:
        measured_layers.record(store, failed=[("MIM", 1)], layers=12, job_id=JOB)
    return found


def test_the_pages_question_has_one_answer_in_sql_and_as_a_frame(
    where: api.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    (query,) = re.findall(r"```sql\n(.+?)```", PAGE, re.DOTALL)
    with sa.create_engine(where.database_url).connect() as connection:
        answer = [tuple(row) for row in connection.execute(sa.text(query))]
    # SUP: 20 + 10 x 9 + heads 0, 1, 2 + 0.5 x seed; MIM without the 10 a layer, and without seed 1
    assert answer == [("MIM", pytest.approx(21.5), 2), ("SUP", pytest.approx(111.5), 3)]

    code = next(part for part in re.findall(r"```python\n(.+?)```", PAGE, re.DOTALL) if "layer == 9" in part)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.setenv("ORCHESTRATOR_RUNS", str(Path(where.database_url.removeprefix("sqlite:///")).parent))
    names: dict[str, Any] = {"api": api}
    exec(code, names)
    assert list(names["distance"].items()) == [(group, mean) for group, mean, _ in answer]


def test_the_worst_sequences_of_the_page_on_tracking(tmp_path: Path) -> None:
    """Each once, whatever the number of seeds; neither the curve nor another figure or row is taken for a sequence."""
    page = (Path(__file__).parents[2] / "docs" / "tracking.md").read_text()
    (query,) = re.findall(r"```sql\n(.+?)```", page, re.DOTALL)
    for placeholder, name in (("tracking-laptop-..", JOB), ("stage = 'test'", "stage = 'analyse'")):
        assert query.count(placeholder) == 1
        query = query.replace(placeholder, name)

    def sequences(row: str, seed: int) -> list[MeasurementRow]:
        """Of 12: MIM is above SUP by 0.01 times the number of the sequence, less 0.05."""
        above = {"SUP": 0.0, "MIM": 0.01, "RAND": 9.0}[row]
        found = [
            MeasurementRow(figure, "test", f"cup-{n}", None, None, value)
            for n in range(12)
            for figure, value in (("success_mean", 0.5 + above * (n - 5) + 0.1 * seed), ("ao", -5.0 * n * above))
        ]
        return [*found, MeasurementRow("success", "test", "", 50, None, 0.5)]

    found = api.settings(folder=tmp_path)
    with contextlib.closing(open_store(found.database_url)) as store:
        measured_layers.record(store, rows=("SUP", "MIM", "RAND"), job_id=JOB, measures=sequences)
    with sa.create_engine(found.database_url).connect() as connection:
        answer = [tuple(row) for row in connection.execute(sa.text(query))]
    assert answer == [
        (f"cup-{n}", pytest.approx(60 + n - 5), pytest.approx(60))  # seeds 0, 1, 2
        for n in range(10)
    ]


def test_measurements_are_those_of_the_view(where: api.Settings) -> None:
    frame = api.measurements(JOB, where=where)
    with sa.create_engine(where.database_url).connect() as connection:
        columns = "stage, grp, name, trial, figure, split, item, layer, head, value"
        view = sorted(map(tuple, connection.execute(sa.text(f"SELECT {columns} FROM measured"))), key=repr)
    ours = ["stage", "group", "name", "trial", "figure", "split", "item", "layer", "head", "value"]
    rows = frame[ours].astype(object).where(frame[ours].notna(), None)
    assert sorted(rows.itertuples(index=False, name=None), key=repr) == view
    assert len(view) == 5 * (12 * measured_layers.HEADS + 12 + 12 * 12)
    assert frame["value"].isna().sum() == 5 * 2, "CKA of layers 0 and 3 is no number"
    assert dict(frame.groupby("row").seed.unique().map(sorted)) == {"SUP": [0, 1, 2], "MIM": [0, 2]}
    assert set(frame["column"]) == {"digits"}


def test_measurements_of_some_figures_and_of_one_stage(where: api.Settings) -> None:
    some = api.measurements(JOB, ["uniform_distance", "cka"], "analyse", where)
    assert set(some["figure"]) == {"uniform_distance", "cka"}
    assert some[some.figure == "uniform_distance"]["head"].isna().all()
    with pytest.raises(NotFound, match="has no stage analyze; its stages: analyse"):
        api.measurements(JOB, stage="analyze", where=where)
    with pytest.raises(NotFound, match="measured no distance; measured: attention_distance, cka, uniform_distance"):
        api.measurements(JOB, "distance", where=where)


def test_a_job_that_measured_nothing_yet_has_an_empty_frame(tmp_path: Path) -> None:
    found = api.settings(folder=tmp_path)
    with contextlib.closing(open_store(found.database_url)) as store:
        job = measured_layers.record(store, failed=[(row, seed) for row in ("SUP", "MIM") for seed in range(3)])
    frame = api.measurements(job, "cka", where=found)
    assert len(frame) == 0
    assert {"row", "layer", "head", "value"} <= set(frame.columns)
