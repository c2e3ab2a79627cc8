"""Checks that no trial reads test data before every selection is made, and that all trials agree on what test is."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.spec.access_to_test import why_refused
from orchestrator.spec.check_trials import CheckedTrial, trace
from orchestrator.spec.diagnostics import Problems
from orchestrator.spec.job import JobSpec
from orchestrator.spec.trial_fields import split_path
from orchestrator.spec.yaml_nodes import Location, YamlNode

_RULE = (
    "only a stage may on which no other stage builds, and whose axes are all rows, columns or x axes of the report, or "
    "seeds"
)


class AccessToTest:
    """Checks the stages of a job in their order."""

    def __init__(
        self,
        root: YamlNode,
        job: JobSpec,
        trials: Mapping[str, list[CheckedTrial]],
        weights_taken_by: Mapping[str, str],
        problems: Problems,
    ) -> None:
        """`trials`: of each stage. `weights_taken_by`: stage -> a stage that starts from its weights."""
        self._root, self._job, self._trials, self._problems = root, job, trials, problems
        self._weights_taken_by = weights_taken_by
        self._reported: set[Location] = set()

    def check_selection(self, i: int) -> None:
        """Nothing may be chosen by figures on test (see access_to_test)."""
        stage = self._job.stages[i]
        why = self._why_refused(i)
        if why is None:
            return
        for trial in self._trials[stage.name]:
            if trial.spec.task.reads_test:
                place, path = self._test_origin(i, trial)
                if place in self._reported:
                    continue  # inherited from an earlier stage
                self._reported.add(place)
                what = f"test data before selection: {why}; {_RULE}; evaluate on another split here"
                # A stage that cannot read test at all reports that too, at the same place: this is the reason to change
                self._problems.report_instead(place, f"stages.{stage.name}", path, trial.spec.task.split, what)

    def _why_refused(self, i: int) -> str | None:
        """Why the stage may not read test; None if it may."""
        name = self._job.stages[i].name
        if not self._job.consumers(i) and name in self._weights_taken_by:
            return f"{self._weights_taken_by[name]} starts from its weights"
        return why_refused(self._job, i)

    def check_one_test_set(self, i: int) -> None:
        """If any trial reads the test images of a data set, all trials must agree on which images those are; otherwise
        one could train on another's test images."""
        stage = self._job.stages[i]
        rules = {
            (name, rule): other
            for other, trials in self._trials.items()
            for trial in trials
            for name, rule in trial.spec.task.opens.items()
        }
        for trial in self._trials[stage.name]:
            own = trial.spec.task.opens if trial.spec.task.reads_test else {}
            place, path = self._test_origin(i, trial)
            different = [(name, rule, other) for (name, rule), other in rules.items() if rule != own.get(name, rule)]
            if different and place not in self._reported:
                self._reported.add(place)
                name, rule, other = different[0]
                what = (
                    f"test images of {name} are chosen here by task.{own[name]}, but stage {other} opens images of it "
                    f"by task.{rule}, which may include them; use the same in both stages, or leave {name} out of one"
                )
                self._problems.report(place, f"stages.{stage.name}", path, trial.spec.task.split, what)

    def _test_origin(self, i: int, trial: CheckedTrial) -> tuple[Location, str]:
        """The field that says which split a trial's task reads, and where it is written; without one, the stage."""
        path = split_path(trial.spec.task)
        if not path:
            return self._root.place_of(["stages", i]), "task"
        return trace(self._root, path.split("."), trial.origins), path
