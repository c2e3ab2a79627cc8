"""When claims were first submitted, and what trials tell of how far their results were known, on both databases."""

from __future__ import annotations

from dataclasses import replace

from stored_job import JOB, key_of, placement

from orchestrator.records.claims import digest
from orchestrator.records.writes import Failed, Finished
from orchestrator.store.store import Store

KEYS = [key_of(1), key_of(2), key_of(3)]


def done(store: Store, number: int) -> None:
    store.leases.claim("d1", [key_of(number)])
    store.trials.commit("d1", [Finished(key_of(number), 1, {"top1": 0.9})])


def test_a_claim_is_recorded_with_what_had_ended(three: Store) -> None:
    done(three, 1)
    three.claims.submit(JOB.id, {"a": KEYS, "b": [key_of(2)], "c": []})
    rows = three.claims.of(JOB.name, JOB.profile)
    assert {name: (row.ended, row.total, row.job_id) for name, row in rows.items()} == {
        "a": (1, 3, JOB.id), "b": (0, 1, JOB.id), "c": (0, 0, JOB.id),
    }  # fmt: skip


def test_the_first_time_stays(three: Store) -> None:
    three.claims.submit(JOB.id, {"a": KEYS})
    before = three.claims.of(JOB.name, JOB.profile)
    done(three, 1)
    three.claims.submit(JOB.id, {"a": KEYS, "later": KEYS})
    after = three.claims.of(JOB.name, JOB.profile)
    assert after["a"] == before["a"]
    assert (after["later"].ended, after["later"].submitted > before["a"].submitted) == (1, True)


def test_another_job_of_the_same_name_and_profile_shares_it_and_no_other(three: Store) -> None:
    three.claims.submit(JOB.id, {"a": KEYS})
    for change in ({"id": "same"}, {"id": "profile", "profile": "paper"}, {"id": "name", "name": "inat18"}):
        job = replace(JOB, **change)
        three.jobs.put(job)
        three.claims.submit(job.id, {"a": []})
        assert three.claims.of(job.name, job.profile)["a"].job_id == (JOB.id if job.id == "same" else job.id)


def test_nothing_is_written_for_a_job_without_claims(three: Store) -> None:
    three.claims.submit("no such job", {})
    assert three.claims.of(JOB.name, JOB.profile) == {}


def test_first_results_are_those_of_ended_trials(three: Store) -> None:
    three.claims.submit(JOB.id, {"a": KEYS})
    done(three, 1)
    three.leases.claim("d1", [key_of(2), key_of(3)])
    three.trials.commit("d1", [Failed(key_of(2), 1, "diverged", "nan"), Failed(key_of(3), 1, "code", "no")])
    found = three.claims.first_results(KEYS)
    assert set(found) == {key_of(1), key_of(2)}
    assert min(found.values()) >= three.claims.of(JOB.name, JOB.profile)["a"].submitted


def test_initial_weights(three: Store) -> None:
    child = replace(placement(4, parent=key_of(1)))
    of_file = replace(placement(5), spec={"backbone": {"init": {"kind": "file", "path": "w.safetensors"}}})
    random = replace(placement(6), spec={"backbone": {"init": {"kind": "none"}}})
    three.trials.place(JOB.id, [child, of_file, random])
    found = three.claims.initial_weights([child.key, of_file.key, random.key])
    assert found == {child.key: key_of(1), of_file.key: "file:w.safetensors::"}


SPEC = {
    "report": {"stage": "", "rows": "backbone.init", "columns": "task.dataset"},
    "stages": [{"name": "grid"}, {"name": "final"}],
}
CLAIM = {
    "name": "a", "text": "In words.", "left": {"row": "SUP", "column": "digits", "stage": "", "layer": None},
    "right": 90.0, "relation": "above", "margin": 0.0, "over": "seeds", "sensitivity": ["loss"], "anchor": "RAND",
}  # fmt: skip


def test_a_digest_is_of_what_is_claimed() -> None:
    same = {**CLAIM, "name": "b", "text": "", "sensitivity": [], "anchor": "", "tags": []}
    assert digest(SPEC, same) == digest(SPEC, CLAIM)
    named = {**CLAIM, "left": {**CLAIM["left"], "stage": "final"}}  # type: ignore[dict-item]
    assert digest(SPEC, named) == digest(SPEC, CLAIM), "the report's stage by its name"
    layers = [{"left": {**CLAIM["left"], "layer": layer}} for layer in (0, 1)]  # type: ignore[dict-item]
    others = [{"margin": 1.0}, {"relation": "below"}, {"right": 91.0}, {"over": "images"}, {"left": {"row": "MIM"}}]
    others += layers
    found = {digest(SPEC, {**CLAIM, **change}) for change in others}
    assert len(found | {digest(SPEC, CLAIM)}) == len(others) + 1
    assert digest({**SPEC, "report": {**SPEC["report"], "stage": "grid"}}, CLAIM) != digest(SPEC, CLAIM)  # type: ignore[dict-item]


def test_a_claim_about_the_first_figure_is_another_one_when_that_changes() -> None:
    of_loss, of_top1 = ({**SPEC, "report": {**SPEC["report"], "figures": [name, "x"]}} for name in ("loss", "top1"))  # type: ignore[dict-item]
    assert digest(of_loss, CLAIM) != digest(of_top1, CLAIM)
    named = {**CLAIM, "left": {**CLAIM["left"], "figure": "loss"}}  # type: ignore[dict-item]
    assert digest(of_loss, CLAIM) == digest(of_loss, named)
