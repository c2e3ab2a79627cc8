"""Checks what a job's claims name: stages, rows, columns, figures and published numbers that can exist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.spec.check_report import labels_of, leading
from orchestrator.spec.check_trials import CheckedTrial
from orchestrator.spec.claims import Claim, ClaimSide
from orchestrator.spec.diagnostics import Problems, Steps, offer, shorten
from orchestrator.spec.job import JobSpec
from orchestrator.spec.yaml_nodes import YamlNode
from tasks.metrics import Metric

Built = Mapping[str, Sequence[CheckedTrial]]
"""Stage -> its valid trials."""


def check_claims(root: YamlNode, job: JobSpec, built: Built, problems: Problems) -> None:
    """Reports claims of one name, and every stage, row, column, figure or published number that is none of the job's.

    For a job without other mistakes: else names may be those of trials that were not built.
    """
    first: dict[str, int] = {}
    for number, claim in enumerate(job.claims):
        at: Steps = ["claims", number]
        if first.setdefault(claim.name, number) != number:
            place = root.place_of([*at, "name"])
            problems.report(place, "claims.name", claim.name, "a second claim of this name; rename one of them")
        _Claim(root, job, built, problems, claim, at).check()


class _Claim:
    """Checks one claim, which is written at `at`."""

    def __init__(self, root: YamlNode, job: JobSpec, built: Built, problems: Problems, claim: Claim, at: Steps) -> None:
        self.root, self.job, self.built, self.problems, self.claim, self.at = root, job, built, problems, claim, at

    def check(self) -> None:
        before = len(self.problems)
        for name, side in self.claim.sides:
            self.side(name, side)
        if len(self.problems) > before:
            return
        self.units()
        if self.claim.anchor:
            side = next(side for _, side in self.claim.sides if not side.published)
            self.named(["anchor"], self.claim.anchor, self.labels(side, self.job.report.rows), "row")

    def about(self, steps: Steps, value: str, what: str) -> None:
        name = ".".join(["claims", self.claim.name, *map(str, steps)])
        # A field that is left out is told where its side begins.
        written = self.root.find([*self.at, *steps]) is not None
        place = self.root.place_of([*self.at, *(steps if written else steps[:1])])
        self.problems.report(place, name, *([shorten(value)] if value else []), what)

    def side(self, name: str, side: ClaimSide) -> None:
        """The names of one side."""
        stages = [stage.name for stage in self.job.stages]
        if side.stage and side.stage not in stages:
            self.about([name, "stage"], side.stage, "no such stage; " + offer(side.stage, stages, "stages"))
            return
        for key, path in (("row", self.job.report.rows), ("column", self.job.report.columns)):
            self.named([name, key], getattr(side, key), self.labels(side, path), key)
        self.together(name, side)
        if side.published:
            self.published(name, side)
        else:
            self.figures(name, side)

    def stage_of(self, side: ClaimSide) -> str:
        return side.stage or self.job.report.stage or self.job.stages[-1].name

    def labels(self, side: ClaimSide, path: str) -> list[str]:
        shown = [trial for name in leading(self.job, self.stage_of(side)) for trial in self.built.get(name, ())]
        return labels_of(shown, path)

    def named(self, steps: Steps, value: str, known: Sequence[str], what: str) -> None:
        """`value` is one of the labels; it may be left out where there is one alone."""
        if value and value not in known:
            self.about(steps, value, f"no trial has this {what}; " + offer(value, known, f"{what}s"))
        elif not value and len(known) > 1:
            self.about(steps, "", f"missing; {offer('', known, f'{what}s')}")

    def together(self, name: str, side: ClaimSide) -> None:
        """Some trial has both the row and the column, where the stage's trials are all known."""
        stage = next(stage for stage in self.job.stages if stage.name == self.stage_of(side))
        rows, columns = (self.labels(side, path) for path in (self.job.report.rows, self.job.report.columns))
        if stage.from_ or side.row not in rows or side.column not in columns:
            return
        trials = self.built.get(stage.name, ())
        in_row = [trial for trial in trials if labels_of([trial], self.job.report.rows) == [side.row]]
        if side.column not in (known := labels_of(in_row, self.job.report.columns)):
            what = f"no trial of row {side.row} has this column; " + offer(side.column, known, "its columns")
            self.about([name, "column"], side.column, what)

    def published(self, name: str, side: ClaimSide) -> None:
        reference = self.job.report.reference
        row = side.row or "".join(self.labels(side, self.job.report.rows)[:1])
        column = side.column or "".join(self.labels(side, self.job.report.columns)[:1])
        value = reference.values.get(row, {}).get(column) if reference else None
        first = next(iter(self.job.report.figures), "")
        has = value is not None and (
            side.figure in value if isinstance(value, dict) and side.figure else side.figure in ("", first)
        )
        if not has:
            number = f"{row} on {column}" + (f", {side.figure}" if side.figure else "")
            self.about([name, "published"], "", f"report.reference has no number of {number}")

    def figures(self, name: str, side: ClaimSide) -> None:
        """The figure, and those of `sensitivity`, are what the side's trials measure, and in the parts asked for."""
        trials = self.built.get(self.stage_of(side), ())
        if not trials:
            return
        ended = list(dict.fromkeys(metric.name for trial in trials for metric in trial.spec.metrics))
        parts = {figure: item for trial in trials for figure, item in trial.spec.measured_figures.items()}
        first = next(iter(self.job.report.figures), "") or trials[0].spec.metric
        asked: list[tuple[Steps, str]] = [([name, "figure"], side.figure or first)]
        asked += [(["sensitivity", n], figure) for n, figure in enumerate(self.claim.sensitivity)]
        for steps, figure in asked:
            if figure not in ended and figure not in parts:
                known = list(dict.fromkeys([*ended, *parts]))
                self.about(steps, figure, "no such figure; " + offer(figure, known, "figures"))
            elif side.of_rows and figure not in parts:
                what = "has no values per layer or item"
                self.about(steps, figure, f"{what}; {offer(figure, list(parts), 'figures that have')}")
            elif self.claim.over == "images" and parts.get(figure) != "image":
                per_image = [known for known, item in parts.items() if item == "image"]
                what = f"{figure} has no value per image; {offer(figure, per_image, 'figures that have')}"
                self.about(["over"], "images", what)

    def units(self) -> None:
        """Two figures that are compared have one unit."""
        found: dict[str, Metric] = {}
        for name, side in self.claim.sides:
            trials = self.built.get(self.stage_of(side), ())
            first = next(iter(self.job.report.figures), "")
            for trial in trials:
                wanted = side.figure or first or trial.spec.metric
                found.update((name, metric) for metric in trial.spec.metrics if metric.name == wanted)
        if len(found) == 2 and len({(metric.unit, metric.scale) for metric in found.values()}) > 1:
            left, right = (found[name].unit or "no unit" for name in ("left", "right"))
            self.about(["right"], "", f"left is in {left}, right in {right}: compare figures of one unit")
