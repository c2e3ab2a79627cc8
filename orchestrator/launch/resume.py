"""Makes failed trials of a job pending again, and asks a job to stop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.launch.job_plugins import with_plugins
from orchestrator.launch.recorded_trials import check_recorded_trials
from orchestrator.records.states import JobState
from orchestrator.spec.load import recorded

if TYPE_CHECKING:
    from orchestrator.spec.job import JobSpec
    from orchestrator.store.store import Store


def retried(store: Store, identity: str) -> tuple[JobSpec, int]:
    """Makes a job's failed and cancelled trials pending again; returns its spec, and how many there were. Raises
    SpecError, and changes nothing, if this version does not take the spec or one of its trials."""
    spec, _ = with_plugins(recorded(store.jobs.spec(identity), identity), identity)  # before anything is pending again
    check_recorded_trials(spec, identity)
    return spec, store.jobs.retry(identity)


def request_cancel(store: Store, identity: str) -> str:
    """Asks the job's driver to stop, or marks a job without a driver as cancelled; returns a line on what was done."""
    state = store.jobs.get(identity).state
    if state in (JobState.done, JobState.incomplete, JobState.cancelled):
        return f"{identity} is already {state}"
    store.jobs.request_cancel(identity)
    if any(driver.job_id == identity for driver in store.leases.drivers()):
        return f"{identity}: asked its driver to stop"
    store.jobs.set_state(identity, JobState.cancelled)
    return f"{identity}: cancelled (no driver was running)"
