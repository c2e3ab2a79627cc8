"""The tables of the store; `migrations/` brings a database to this state."""

from __future__ import annotations

from sqlalchemy import (
    DDL,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    event,
)

from orchestrator.store.column_types import LongWords, Number, Whole, Words

REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008")
"""Revisions of the schema, the oldest first. Opening a store that is up to date then needs no Alembic; a test compares
them with the migrations."""

READABLE = ("0004", "0005", "0006", "0007", "0008")
"""Revisions whose rows this version reads as they are: looking writes nothing, so it brings no store up to date."""

VERSION_TABLE = "orchestrator_version"
"""Not Alembic's default name, which MLflow uses: both may share a database."""


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# Times are seconds since 1970 (UTC) by the database's clock. Columns named *_json hold JSON text as Python writes it,
# with NaN and Infinity. The large tables refer to a trial by its number instead of its key of 64 letters.

jobs = Table(
    "jobs",
    metadata,
    Column("id", Words, primary_key=True),
    Column("name", Words, nullable=False, index=True),
    Column("profile", Words, nullable=False),
    Column("spec_json", LongWords, nullable=False),
    Column("spec_text", LongWords, nullable=False),
    Column("priority", Whole, nullable=False),
    Column("state", Words, nullable=False),
    Column("message", LongWords, nullable=False),
    Column("cancel", Boolean, nullable=False),
    Column("git_commit", Words),
    Column("git_dirty", Boolean),
    Column("versions_json", LongWords, nullable=False),
    Column("created", Number, nullable=False),
    Column("updated", Number, nullable=False),
)

stages = Table(
    "stages",
    metadata,
    Column("job_id", ForeignKey("jobs.id"), primary_key=True),
    Column("name", Words, primary_key=True),
    Column("position", Integer, nullable=False),
    Column("body_json", LongWords, nullable=False),
)

trials = Table(
    "trials",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("key", Words, nullable=False, unique=True),
    Column("parent", Words, index=True),  # key of the trial whose weights its backbone starts from
    Column("state", Words, nullable=False),
    Column("metric", Words, nullable=False),
    Column("mode", Words, nullable=False),
    Column("metric_set", Words),  # of `metrics`: every figure the trial may end with
    Column("split", Words),  # the one that is evaluated
    Column("value", Number),  # a copy of the figure named `metric`, so that a list of trials needs no second table
    Column("seed", Whole, nullable=False),
    Column("epochs", Whole, nullable=False),
    Column("epoch", Whole, nullable=False),  # the last one reported
    Column("step", Whole, nullable=False),
    Column("token", Whole, nullable=False),  # fencing token of the newest attempt, 0 before the first
    Column("driver_id", Words),  # the driver that holds, or last held, that attempt
    Column("error_class", Words),
    Column("weights_path", LongWords),  # relative to the storage folder; earlier versions wrote whole paths
    Column("weights_sha256", Words),
    Column("step_seconds", Number),
    Column("train_seconds", Number),
    Column("git_commit", Words),
    Column("git_dirty", Boolean),
    Column("host", Words),
    Column("device", Words),
    Column("data_digest", Words),
    Column("created", Number, nullable=False),
    Column("started", Number),
    Column("ended", Number),
    # Long columns last: a list of trials then reads none of their overflow pages.
    Column("spec_json", LongWords, nullable=False),
    Column("error", LongWords),
    Column("facts_json", LongWords, nullable=False),
    Column("versions_json", LongWords, nullable=False),
    CheckConstraint("mode IN ('min', 'max')", name="mode"),
    CheckConstraint(
        "state IN ('pending', 'running', 'done', 'diverged', 'failed', 'cancelled', 'stopped')", name="state"
    ),
    CheckConstraint("state <> 'running' OR driver_id IS NOT NULL", name="held"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("trial_id", ForeignKey("trials.id"), primary_key=True),
    Column("token", Whole, primary_key=True),
    Column("driver_id", Words, nullable=False),
    Column("cluster", Words, nullable=False),
    Column("host", Words, nullable=False),
    Column("git_commit", Words),
    Column("git_dirty", Boolean),
    Column("started", Number, nullable=False),
    Column("ended", Number),
    Column("cause", Words),
    Column("message", LongWords),
)

placed = Table(
    "placed",
    metadata,
    Column("job_id", ForeignKey("jobs.id"), primary_key=True),
    Column("stage", Words, primary_key=True),
    Column("grp", Words, primary_key=True),
    Column("trial_id", ForeignKey("trials.id"), primary_key=True, index=True),
    Column("name", Words, nullable=False, index=True),
    Column("position", Integer, nullable=False),
    Column("group_values_json", LongWords, nullable=False),
    Column("settings_json", LongWords, nullable=False),
)

reports = Table(
    "reports",
    metadata,
    Column("trial_id", ForeignKey("trials.id"), primary_key=True),
    Column("epoch", Whole, primary_key=True),
    Column("step", Whole, nullable=False),
    Column("values_json", LongWords, nullable=False),
    Column("seconds", Number, nullable=False),
)

figures = Table(
    "figures",
    metadata,
    Column("trial_id", ForeignKey("trials.id"), primary_key=True),
    Column("name", Words, primary_key=True),
    Column("value", Number, nullable=False),
)

metrics = Table(
    "metrics",
    metadata,
    Column("metric_set", Words, primary_key=True),  # a digest of the rows of the set
    Column("position", Integer, primary_key=True),  # 0: the figure that trials are chosen by
    Column("name", Words, nullable=False),
    Column("title", Words, nullable=False),
    Column("better", Words, nullable=False),
    Column("unit", Words, nullable=False),
    Column("scale", Number, nullable=False),
    Column("digits", Integer, nullable=False),
    Column("complement", Words, nullable=False),
    CheckConstraint("better IN ('higher', 'lower', 'neither')", name="better"),
)

measurements = Table(
    "measurements",
    metadata,
    Column("trial_id", ForeignKey("trials.id"), primary_key=True),
    Column("number", Integer, primary_key=True),  # from 0, as the trial wrote them
    Column("figure", Words, nullable=False, index=True),
    Column("split", Words, nullable=False),
    Column("item", Words, nullable=False),  # image, class, sequence; empty: the whole split
    Column("layer", Integer),
    Column("head", Integer),
    Column("value", Double),  # NULL: not a finite number
)
"""Values per item, layer or head. The view `measured` joins them with the places of their trials:
(job_id, stage, grp, name, trial, figure, split, item, layer, head, value)."""

other_parents = Table(
    "other_parents",
    metadata,
    Column("trial_id", ForeignKey("trials.id"), primary_key=True),
    Column("parent", Words, primary_key=True, index=True),
)
"""Keys of the trials whose weights a trial needs beside that of `trials.parent`: a task may read several models."""

winners = Table(
    "winners",
    metadata,
    Column("job_id", ForeignKey("jobs.id"), primary_key=True),
    Column("stage", Words, primary_key=True),
    Column("grp", Words, primary_key=True),
    Column("key", Words, nullable=False),
    Column("value", Number, nullable=False),
    Column("metric", Words, nullable=False),
    Column("edges_json", LongWords, nullable=False),
    Column("rule_json", LongWords, nullable=False),
    Column("candidates", Integer, nullable=False),
    Column("sources_json", LongWords, nullable=False),
    Column("decided", Number, nullable=False),
)

drivers = Table(
    "drivers",
    metadata,
    Column("id", Words, primary_key=True),
    Column("host", Words, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("pid_started", Number, nullable=False),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("cluster", Words, nullable=False),
    Column("priority", Whole, nullable=False),
    Column("slots", Integer, nullable=False),
    Column("demand", Integer, nullable=False),
    Column("running", Integer, nullable=False),
    Column("started", Number, nullable=False),
    Column("expires", Number, nullable=False),
)

tracked = Table(
    "tracked",
    metadata,
    Column("job_id", ForeignKey("jobs.id"), primary_key=True),
    Column("stage", Words, primary_key=True),
    Column("grp", Words, primary_key=True),
    Column("key", Words, primary_key=True),  # empty: the parent run of the group
    Column("run_id", Words, nullable=False),
    Column("parent_run_id", Words),
    Column("reports_through", Whole, nullable=False),
    Column("closed", Boolean, nullable=False),
)


search_events = Table(
    "search_events",
    metadata,
    Column("job_id", ForeignKey("jobs.id"), primary_key=True),
    Column("stage", Words, primary_key=True),
    Column("grp", Words, primary_key=True),
    Column("number", Integer, primary_key=True),  # from 0, without gaps
    Column("kind", Words, nullable=False),
    Column("key", Words, nullable=False),
    Column("body_json", LongWords, nullable=False),
    Column("time", Number, nullable=False),
)

pictures = Table(
    "pictures",
    metadata,
    Column("trial_id", ForeignKey("trials.id"), primary_key=True),
    Column("epoch", Whole, primary_key=True),
    Column("path", Words, primary_key=True),  # relative to the trial's folder
)

pins = Table(
    "pins",
    metadata,
    Column("key", Words, primary_key=True),  # key of a trial, or id of a job, whose weights are kept
    Column("why", LongWords, nullable=False),
    Column("time", Number, nullable=False),
)


origins = Table(
    "origins",
    metadata,
    Column("job_id", ForeignKey("jobs.id"), primary_key=True),
    Column("asked", Words, primary_key=True),  # JSON: job (name or id), stage and group as written in the spec
    Column("written", Words, nullable=False, index=True),  # hash of the job before other jobs were looked up
    Column("from_job", ForeignKey("jobs.id"), nullable=False),
    Column("stage", Words, nullable=False),
    Column("grp", Words, nullable=False),
    Column("key", Words, nullable=False),
    Column("metric", Words, nullable=False),
    Column("value", Number, nullable=False),
    Column("candidates", Integer, nullable=False),
    Column("decided", Number, nullable=False),
)

claims = Table(
    "claims",
    metadata,
    Column("job_name", Words, primary_key=True),
    Column("profile", Words, primary_key=True),
    Column("digest", Words, primary_key=True),  # of what is claimed, as records.claims.digest says
    Column("job_id", ForeignKey("jobs.id"), nullable=False),  # the first job of this name with the claim
    Column("submitted", Number, nullable=False),
    Column("ended", Integer, nullable=False),  # of the trials that it reads, those that had ended by then
    Column("total", Integer, nullable=False),  # the trials that it reads, as far as they were known
)
"""When each claim about a study (a job's name and profile) was first submitted."""

estimates = Table(
    "estimates",
    metadata,
    Column("job_id", ForeignKey("jobs.id"), primary_key=True),
    Column("seconds_left", Number, nullable=False),  # until the job ends, as its driver estimated it
    Column("written", Number, nullable=False),
)


MEASURED = (
    "CREATE VIEW measured AS SELECT p.job_id, p.stage, p.grp, p.name, t.key AS trial, "
    "m.figure, m.split, m.item, m.layer, m.head, m.value "
    "FROM measurements m JOIN trials t ON t.id = m.trial_id JOIN placed p ON p.trial_id = t.id"
)
"""The view for questions in SQL: every measurement beside the job, stage and group of its trial."""


def complete() -> MetaData:
    """The metadata with the options that only creating or comparing a schema needs.

    They make SQLAlchemy load both dialects, which takes a tenth of a second; `status` does without.
    """
    if not any(index.name == "uq_attempts_open" for index in attempts.indexes):
        running = trials.c.state == "running"
        Index("ix_trials_running", trials.c.driver_id, sqlite_where=running, postgresql_where=running)
        # The database itself enforces that a trial has at most one open attempt.
        is_open = attempts.c.ended.is_(None)
        Index("uq_attempts_open", attempts.c.trial_id, unique=True, sqlite_where=is_open, postgresql_where=is_open)
        event.listen(metadata, "after_create", DDL(MEASURED))  # type: ignore[no-untyped-call]
        for table in (reports, figures):  # millions of rows need no second key
            table.dialect_options["sqlite"]["with_rowid"] = False
    return metadata
