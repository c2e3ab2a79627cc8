"""Stores that somebody has damaged, and values that no database can keep: one message, and nothing half recorded."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from stored_job import JOB, key_of, placement

from orchestrator.errors import BackendUnreachable, OrchestratorError, SpecError
from orchestrator.records.recorded_spec import last_stages, rounds
from orchestrator.records.rows import ChoiceRow, MetricRow
from orchestrator.records.writes import Failed, Finished, Reported
from orchestrator.settings import settings
from orchestrator.store.store import Store, open_store, open_to_look

ALL: dict[str, Callable[[Store], Any]] = {
    "jobs": lambda store: store.jobs.all(),
    "job": lambda store: store.jobs.get(JOB.id),
    "spec": lambda store: store.jobs.spec(JOB.id),
    "stages": lambda store: store.jobs.stages(JOB.id),
    "placed": lambda store: store.trials.placed(JOB.id),
    "snapshots": lambda store: store.trials.snapshots([key_of(1)]),
    "trial": lambda store: store.trials.get(key_of(1)),
    "reports": lambda store: store.trials.reports(key_of(1)),
    "figures": lambda store: store.trials.figures([key_of(1)]),
    "winners": lambda store: store.choices.of(JOB.id),
    "events": lambda store: store.search_log.events(JOB.id),
    "retention": lambda store: store.weights.retention_facts(),
}


def execute(url: str, *statements: str) -> None:
    """Changes the database past the store."""
    driver = "postgresql+psycopg" if url.startswith("postgresql") else "sqlite"
    engine = sa.create_engine(sa.make_url(url).set(drivername=driver))
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


@pytest.fixture
def finished(three: Store) -> Store:
    """The first of three trials is done."""
    three.jobs.put_stages(JOB.id, [("grid", 0, {"name": "grid"})])
    token = three.leases.claim("d1", [key_of(1)])[key_of(1)]
    reported = Reported(key_of(1), token, 1, 1, {"loss": 1.0}, 1.0)
    three.trials.commit("d1", [reported, Finished(key_of(1), token, {"top1": 0.5}, {}, ("w", "0" * 64))])
    return three


@pytest.mark.parametrize("text", ["", '{"a": 1}}', "[1]", "null", '{"a":' * 100_000])
@pytest.mark.parametrize(
    ("column", "reader"),
    [
        ("jobs.spec_json", "spec"), ("jobs.spec_json", "retention"), ("jobs.versions_json", "jobs"),
        ("stages.body_json", "stages"), ("placed.group_values_json", "placed"), ("placed.settings_json", "placed"),
        ("trials.spec_json", "trial"), ("trials.facts_json", "snapshots"), ("trials.versions_json", "trial"),
        ("reports.values_json", "reports"),
    ],
)  # fmt: skip
def test_a_row_that_is_no_json_is_named(
    finished: Store, database_url: str, column: str, reader: str, text: str
) -> None:
    table, _, name = column.partition(".")
    execute(database_url, f"UPDATE {table} SET {name} = '{text}'")
    with pytest.raises(BackendUnreachable, match=f"the store is damaged: {name}.*restore a copy") as refused:
        ALL[reader](finished)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    ("change", "reader", "lacking"),
    [
        ("jobs SET spec_json = '{}'", lambda s: s.jobs.spec(JOB.id)["stages"], "spec_json of job .* 'stages'"),
        ("jobs SET spec_json = '{}'", lambda s: s.weights.retention_facts(), "spec_json of job .* 'stages'"),
        (
            """jobs SET spec_json = '{"stages": [{}]}'""",
            lambda s: last_stages(s.jobs.spec(JOB.id)),
            "spec_json of job .* 'name'",
        ),
        ("stages SET body_json = '{}'", lambda s: s.jobs.stages(JOB.id)[0][2]["name"], "body_json of stage .* 'name'"),
        (
            "trials SET spec_json = '{}'",
            lambda s: rounds(s.trials.get(key_of(1)).spec),
            "spec_json of trial .* 'optim'",
        ),
        (
            """trials SET spec_json = '{"optim": {}}'""",
            lambda s: rounds(s.trials.get(key_of(1)).spec),
            "spec_json of trial .* 'epochs'",
        ),
    ],
)
def test_a_spec_without_a_field_is_named(
    finished: Store, database_url: str, change: str, reader: Callable[[Store], Any], lacking: str
) -> None:
    execute(database_url, f"UPDATE {change}")
    with pytest.raises(BackendUnreachable, match=f"the store is damaged: {lacking} .*restore a copy") as refused:
        reader(finished)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("edges", ["[{}]", '[{"path": "optim.lr", "more": 1}]', "[7]", '["nothing known"]'])
def test_an_edge_that_cannot_be_read_is_named(finished: Store, database_url: str, edges: str) -> None:
    finished.choices.record(JOB.id, ChoiceRow("grid", "digits/RAND", key_of(1), 0.5, "top1", [], {}, 3, []))
    execute(database_url, f"UPDATE winners SET edges_json = '{edges}'")
    with pytest.raises(BackendUnreachable, match=r"the store is damaged: an edge .*restore a copy"):
        finished.choices.of(JOB.id)


def test_sources_that_are_no_names_are_named(finished: Store, database_url: str) -> None:
    finished.choices.record(JOB.id, ChoiceRow("grid", "digits/RAND", key_of(1), 0.5, "top1", [], {}, 3, []))
    execute(database_url, "UPDATE winners SET sources_json = '[{}]'")
    with pytest.raises(BackendUnreachable, match=r"the store is damaged: sources_json .*restore a copy"):
        finished.choices.of(JOB.id)


def test_a_recorded_spec_is_an_ordinary_dict(store: Store) -> None:
    spec = {"name": "k12-grid", "stages": [{"name": "grid"}]}
    store.jobs.put(replace(JOB, spec=spec))
    for copied in (copy.deepcopy(store.jobs.spec(JOB.id)), pickle.loads(pickle.dumps(store.jobs.spec(JOB.id)))):
        assert copied == spec
        assert type(copied["stages"][0]) is dict
    assert store.jobs.spec(JOB.id).get("report") is None
    assert "report" not in store.jobs.spec(JOB.id)


@pytest.mark.parametrize(
    ("change", "reader"),
    [
        ("UPDATE jobs SET state = 'nonsense'", "jobs"),
        ("UPDATE jobs SET created = 'yesterday'", "jobs"),
        ("UPDATE jobs SET priority = 'high'", "jobs"),
        ("UPDATE jobs SET name = x'ff'", "jobs"),
        ("UPDATE trials SET value = 'good'", "placed"),
        ("UPDATE trials SET epochs = 'many'", "placed"),
        ("UPDATE trials SET seed = 1.5", "placed"),
        ("UPDATE figures SET value = 'x'", "figures"),
        ("UPDATE reports SET epoch = 'x' WHERE epoch = 1", "reports"),
    ],
)
def test_sqlite_takes_any_value_and_the_row_is_named(
    finished: Store, database_url: str, change: str, reader: str
) -> None:
    if database_url.startswith("postgresql"):
        change = "UPDATE jobs SET state = 'nonsense'"  # the only one of these that PostgreSQL takes
        reader = "jobs"
    execute(database_url, change)
    with pytest.raises(BackendUnreachable, match=r"the store is damaged.*restore a copy"):
        ALL[reader](finished)


@pytest.mark.parametrize("table", ["trials", "placed", "figures", "jobs", "metrics", "pins", "drivers"])
def test_a_missing_table_is_named(finished: Store, database_url: str, table: str) -> None:
    finished.close()
    cascade = " CASCADE" if database_url.startswith("postgresql") else ""
    view = () if table != "trials" or cascade else ("DROP VIEW measured",)
    execute(database_url, *view, f"DROP TABLE {table}{cascade}")

    def read_all() -> None:
        finished.leases.drivers()
        for name in set(ALL) - {"retention"}:
            ALL[name](finished)

    with pytest.raises(BackendUnreachable, match=f"a table or column is missing.*{table}") as refused:
        read_all()
    assert "\n" not in str(refused.value)
    finished.close()


def test_a_missing_column_is_named(finished: Store, database_url: str) -> None:
    finished.close()
    execute(database_url, "ALTER TABLE trials DROP COLUMN step_seconds")
    with pytest.raises(BackendUnreachable, match=r"a table or column is missing.*step_seconds"):
        finished.trials.get(key_of(1))
    finished.close()


@pytest.mark.parametrize(
    "change",
    [
        "INSERT INTO orchestrator_version VALUES ('0003')",
        "DELETE FROM orchestrator_version",
        "DROP TABLE orchestrator_version",
        "UPDATE orchestrator_version SET version_num = '9999'",
    ],
)
def test_a_version_that_is_not_one_is_named(finished: Store, database_url: str, change: str) -> None:
    finished.close()
    execute(database_url, change)
    for opening in (
        lambda: open_store(database_url),
        lambda: open_store(database_url, create=False),
        lambda: open_to_look(settings(database_url=database_url)),
    ):
        with pytest.raises(OrchestratorError, match=r"damaged|newer version|another program|is empty"):
            opening()


# Values that cannot be kept

HUGE = 10**30


@pytest.mark.parametrize("number", [2**31, 3_000_000_000, 2**63 - 1])
def test_numbers_of_64_bits_are_kept(store: Store, number: int) -> None:
    store.jobs.put(replace(JOB, priority=number, spec={"trial": {"seed": number}}))
    store.trials.place(JOB.id, [replace(placement(1), seed=number, epochs=number)])
    assert store.jobs.get(JOB.id).priority == number
    row = store.trials.get(key_of(1))
    assert (row.seed, row.epochs) == (number, number)


def test_steps_of_64_bits_are_kept(three: Store) -> None:
    token = three.leases.claim("d1", [key_of(1)])[key_of(1)]
    three.trials.commit("d1", [Reported(key_of(1), token, 2**40, 2**62, {}, 1.0, pictures=("a.png",))])
    assert [(row.epoch, row.step) for row in three.trials.reports(key_of(1))] == [(2**40, 2**62)]
    assert three.trials.pictures([key_of(1)]) == {key_of(1): [(2**40, "a.png")]}


@pytest.mark.parametrize(
    ("change", "at"),
    [
        ({"priority": HUGE}, "job.priority"),
        ({"priority": -HUGE}, "job.priority"),
        ({"priority": 10**400}, "job.priority"),
        ({"spec": {"trial": {"seed": HUGE}}}, "spec.trial.seed"),
        ({"spec": {"stages": [{"sweep": {"grid": {"optim.epochs": [1, 2**63]}}}]}}, "spec.stages.0.sweep.grid"),
        ({"spec": {"trial": {"backbone": {"init": {"name": "a\0b"}}}}}, "spec.trial.backbone.init.name"),
        ({"spec": {"stages": [{"name": "x\ud800"}]}}, "spec.stages.0.name"),
        ({"spec": {"a\0b": 1}}, "a name in spec"),
        ({"name": "a\0b"}, "job.name"),
        ({"profile": "a\0b"}, "job.profile"),
    ],
)
def test_a_job_that_cannot_be_kept_is_refused_before_anything_is_recorded(
    store: Store, change: dict[str, Any], at: str
) -> None:
    with pytest.raises(SpecError, match=f"^{at}") as refused:
        store.jobs.put(replace(JOB, **change))
    assert "cannot be recorded" in str(refused.value)
    assert "\0" not in str(refused.value)
    assert store.jobs.all() == []


@pytest.mark.parametrize(
    "change",
    [{"name": "a\0b"}, {"group": "a\0b"}, {"stage": "\udcff"}, {"seed": HUGE}, {"epochs": 2**63}, {"seed": -(2**64)}],
)
def test_trials_that_cannot_be_kept_are_refused_together(store: Store, change: dict[str, Any]) -> None:
    store.jobs.put(JOB)
    with pytest.raises(SpecError, match="cannot be recorded"):
        store.trials.place(JOB.id, [placement(1), replace(placement(2), **change)])
    assert store.trials.placed(JOB.id) == []


def test_texts_of_others_are_recorded_with_escapes(three: Store) -> None:
    """An error text or a file name is no reason to lose a trial."""
    held = three.leases.claim("d1", [key_of(1), key_of(2)])
    three.trials.commit("d1", [Failed(key_of(1), held[key_of(1)], "code", "bad \0 byte \udcff end ü")])
    assert three.trials.get(key_of(1)).error == "bad \\x00 byte \\udcff end ü"
    figures, facts = {"top1": 0.5, "a\0": 1.0}, {"device": "cpu\0", "more": ["\0", "\ud800"]}
    three.trials.commit("d1", [Finished(key_of(2), held[key_of(2)], figures, facts, ("w\udcff", "0" * 64))])
    row = three.trials.get(key_of(2))
    assert row.figures == {"top1": 0.5, "a\\x00": 1.0}
    assert row.facts == facts  # JSON has escapes of its own
    assert three.trials.snapshots([key_of(2)])[key_of(2)].weights == ("w\\udcff", "0" * 64)
    three.jobs.set_state(JOB.id, "incomplete", "no \0")
    assert three.jobs.get(JOB.id).message == "no \\x00"


def test_a_name_that_is_not_text_is_not_found(three: Store) -> None:
    for prefix in ("\udcff", "a\0b"):
        for find in (three.jobs.find, three.trials.find):
            with pytest.raises(OrchestratorError, match=r"no (job|trial) has the name"):
                find(prefix)


def test_metrics_keep_their_text(store: Store) -> None:
    store.jobs.put(JOB)
    metric = MetricRow("top1", "top-1 \u202e accuracy", "higher", "%", 100.0, 1)
    store.trials.place(JOB.id, [replace(placement(1), metrics=(metric,))])
    assert store.trials.get(key_of(1)).metrics == (metric,)
