"""Figures of which no value is better than another. Those of an analysis were declared as better when higher."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_ATTENTION = ("attention_distance", "attention_entropy", "head_divergence", "uniform_distance", "uniform_entropy")
_CKA = tuple(f"cka{estimator}_{of}" for estimator in ("", "_biased", "_unbiased") for of in ("mean", "min"))


def upgrade() -> None:
    with op.batch_alter_table("metrics") as metrics:
        metrics.drop_constraint(op.f("ck_metrics_better"), type_="check")
        metrics.create_check_constraint(op.f("ck_metrics_better"), "better IN ('higher', 'lower', 'neither')")
    # A set keeps its name, which is a digest of the rows as they were: trials refer to it.
    change = sa.text("UPDATE metrics SET better = 'neither' WHERE name IN :names AND better = 'higher'")
    given = change.bindparams(sa.bindparam("names", expanding=True))
    op.get_bind().execute(given, {"names": _ATTENTION + _CKA})
