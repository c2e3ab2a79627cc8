"""The time that a job still takes, as its driver last estimated it: for `status` and for the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.records.rows import JobRow
    from orchestrator.store.store import Store


def seconds_left(store: Store, job: JobRow) -> float | None:
    """What the job's driver estimated, less the time since; of a job without a driver, what was left when it had
    one."""
    if job.state not in ("running", "queued", "interrupted"):
        return None
    known = store.jobs.seconds_left(job.id)
    if known is None:
        return None
    seconds, ago = known
    return max(0.0, seconds - ago) if job.state == "running" else seconds
