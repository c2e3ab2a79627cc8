"""Metrics that tasks declare, the split that is evaluated, and measurements per item, layer and head."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_LOSS = ("loss", "loss", "lower", "", 1.0, 3, "")
_TOP1 = ("top1", "top-1 accuracy", "higher", "%", 100.0, 1, "error rate")
_PER_CLASS = ("mean_per_class", "mean per-class accuracy", "higher", "%", 100.0, 1, "mean per-class error rate")
_MAP = ("map11", "11-point mAP", "higher", "%", 100.0, 1, "")
_OF_MEAN = ("loss_of_mean", "loss of the visible mean", "lower", "", 1.0, 3, "")
_AVG_DIST = ("avg_dist", "AvgDist", "higher", "px", 1.0, 2, "")
_SETS = {
    "top1": (_TOP1, _PER_CLASS, _LOSS),
    "mean_per_class": (_PER_CLASS, _TOP1, _LOSS),
    "map11": (_MAP, _LOSS),
    "loss": (_LOSS, _OF_MEAN, _AVG_DIST),
}
"""By the metric that trials were chosen by: what the tasks of version 0002 returned."""
_COLUMNS = ("name", "title", "better", "unit", "scale", "digits", "complement")


def upgrade() -> None:
    op.create_table(
        "metrics",
        sa.Column("metric_set", sa.String(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("title", sa.String(), nullable=False),
        sa.Column("better", sa.String(), nullable=False),
        sa.Column("unit", sa.String(), nullable=False),
        sa.Column("scale", sa.Double(), nullable=False),
        sa.Column("digits", sa.Integer(), nullable=False),
        sa.Column("complement", sa.String(), nullable=False),
        sa.CheckConstraint("better IN ('higher', 'lower')", name=op.f("ck_metrics_better")),
        sa.PrimaryKeyConstraint("metric_set", "position", name=op.f("pk_metrics")),
    )
    op.create_table(
        "measurements",
        sa.Column("trial_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("figure", sa.String(), nullable=False),
        sa.Column("split", sa.String(), nullable=False),
        sa.Column("item", sa.String(), nullable=False),
        sa.Column("layer", sa.Integer()),
        sa.Column("head", sa.Integer()),
        sa.Column("value", sa.Double()),
        sa.ForeignKeyConstraint(["trial_id"], ["trials.id"], name=op.f("fk_measurements_trial_id")),
        sa.PrimaryKeyConstraint("trial_id", "number", name=op.f("pk_measurements")),
    )
    op.create_index("ix_measurements_figure", "measurements", ["figure"], unique=False)
    op.add_column("trials", sa.Column("metric_set", sa.String()))
    op.add_column("trials", sa.Column("split", sa.String()))
    op.execute(
        "CREATE VIEW measured AS SELECT p.job_id, p.stage, p.grp, p.name, t.key AS trial, "
        "m.figure, m.split, m.item, m.layer, m.head, m.value "
        "FROM measurements m JOIN trials t ON t.id = m.trial_id JOIN placed p ON p.trial_id = t.id"
    )
    _fill(op.get_bind())


def _fill(connection: sa.Connection) -> None:
    """Gives every recorded trial the metrics of its task and its split."""
    number_mode = connection.execute(sa.text("SELECT DISTINCT metric, mode FROM trials")).all()
    for metric, mode in number_mode:
        generic = (metric, metric.replace("_", " "), "higher" if mode == "max" else "lower", "", 1.0, 3, "")
        rows = [dict(zip(_COLUMNS, values, strict=True)) for values in _SETS.get(metric, (generic,))]
        name = _name(rows)
        columns = ", ".join(("metric_set", "position", *_COLUMNS))
        places = ", ".join(f":{column}" for column in ("metric_set", "position", *_COLUMNS))
        connection.execute(
            sa.text(f"INSERT INTO metrics ({columns}) VALUES ({places})"),
            [{"metric_set": name, "position": position, **row} for position, row in enumerate(rows)],
        )
        connection.execute(
            sa.text("UPDATE trials SET metric_set = :name WHERE metric = :metric AND mode = :mode"),
            {"name": name, "metric": metric, "mode": mode},
        )
    last = -1
    while some := connection.execute(
        sa.text("SELECT id, spec_json FROM trials WHERE id > :last ORDER BY id LIMIT 1000"), {"last": last}
    ).all():
        last = some[-1][0]
        splits = [{"row": row, "split": json.loads(spec)["task"].get("evaluate", "val")} for row, spec in some]
        connection.execute(sa.text("UPDATE trials SET split = :split WHERE id = :row"), splits)


def _name(rows: list[dict[str, Any]]) -> str:
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:16]
