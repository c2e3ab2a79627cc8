"""Actors are told apart by what they hold and by the plugins that their process has imported."""

from __future__ import annotations

import pytest

from orchestrator.engine.actor_handle import ActorHandle, held_by, name_of, of_name
from orchestrator.engine.ray_backend import RayBackend
from orchestrator.spec.job import RESERVED, SMALLEST_AMOUNT, Resources


@pytest.mark.parametrize("plugins", ["", "0123456789ab"])
@pytest.mark.parametrize("resources", [Resources(), Resources(cpus=2, gpus=0.5, custom={"a|{b": 1.0}, workers=2)])
def test_the_name_says_what_an_actor_holds_and_has_imported(plugins: str, resources: Resources) -> None:
    assert of_name(name_of("0a1b2c3d", plugins, resources)) == (plugins, resources)


def test_actors_of_earlier_versions_have_no_plugins() -> None:
    assert of_name('0a1b2c3d|{"cpus":2.0}') == ("", Resources(cpus=2))


def test_a_trial_never_runs_where_other_plugins_or_none_are_imported() -> None:
    """As after a driver took over the trials of another job, whose actors are idle now."""
    held = held_by(Resources(time_limit_hours=1))
    for own in ("", "aaaa"):
        backend = RayBackend("test/", plugins=own)
        for number, mark in enumerate(("bbbb", "", "aaaa")):
            backend._workers[str(number)] = ActorHandle(str(number), None, held, plugins=mark)
        found = backend._suiting(held)
        assert found is not None
        assert found.plugins == own
        del backend._workers[found.name]
        assert backend._suiting(held) is None


def test_ray_refuses_what_no_spec_may_ask_for() -> None:
    from ray._common.utils import resources_from_ray_options
    from ray._raylet import RESOURCE_UNIT_SCALING

    assert round(1 / RESOURCE_UNIT_SCALING, 12) == SMALLEST_AMOUNT
    for name in filter(None, RESERVED):
        with pytest.raises(ValueError, match=name):
            resources_from_ray_options({"resources": {name: 1}})
    assert resources_from_ray_options({"resources": {"a100": 1}}) == {"a100": 1}
