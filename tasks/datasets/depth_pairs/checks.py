"""`data check` of a depth data set: a line for each fault of its lists and files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tasks.datasets.checks import compare_manifest, spread
from tasks.datasets.depth_pairs import survey
from tasks.datasets.depth_pairs.layout import DepthLayout, Part
from tasks.datasets.depth_pairs.pairs import Pairs, file_name, manifest, read_pairs
from tasks.datasets.files import first_few
from tasks.datasets.info import Finding, Watch
from tasks.errors import DataError


def check(
    layout: DepthLayout, counts: Mapping[Part, int], folders: Sequence[Path], images: bool, watch: Watch
) -> Finding:
    """Looks at lists, counts and files, and opens some pairs of each list; with `images` all of them.

    `counts`: pairs of the published lists. `folders`: where the manifest may lie.
    """
    finding = Finding()
    try:
        made = manifest(layout)
    except DataError as error:
        finding.problems.append(_short(layout.name, error))
        return finding
    finding.counts, finding.digest, finding.split = made.counts, made.digest, made.cut
    for part, count in counts.items():
        if count and finding.counts[part] != count:
            finding.notes.append(f"{finding.counts[part]:,} pairs in {part}, {count:,} in the published list")
    compare_manifest(layout.name, file_name(layout.name), folders, finding)
    if images:
        finding.opened = 0
    found = {part: _check_part(layout, part, images, watch, finding) for part in layout.parts}
    _check_numbers(layout, {part: opened for part, opened in found.items() if opened}, finding)
    return finding


def _check_part(layout: DepthLayout, part: Part, images: bool, watch: Watch, finding: Finding) -> list[survey.Looked]:
    """Notes the faults of files; what those hold that can be read."""
    pairs = read_pairs(layout.name, layout.base, layout.lists[part])
    if pairs.without:
        finding.notes.append(f"{pairs.without} images of {part} have no depth map (None in the list) and are left out")
    if problem := _fault(layout, lambda: survey.check_files(layout, pairs, part)):
        finding.problems.append(problem)
        return []
    rows = range(len(pairs)) if images else spread(len(pairs), survey.GLANCE)
    found, faults = _looked(layout, pairs, rows, watch)
    if faults:
        finding.problems.append(
            f"{len(faults):,} of {len(rows):,} pairs of {part} that were opened: {first_few(faults)}"
        )
    if images:
        finding.opened = (finding.opened or 0) + len(rows)
    return found


def _check_numbers(layout: DepthLayout, found: Mapping[Part, Sequence[survey.Looked]], finding: Finding) -> None:
    """Unit and range: a line for each list where they are wrong, one for all where they are wrong in all. Then images
    without ground truth."""

    def unit(opened: Sequence[survey.Looked]) -> str:
        return _fault(layout, lambda: survey.check_unit(layout.name, opened, layout.format))

    wrong = {part: problem for part, opened in found.items() if (problem := unit(opened))}
    of_all = unit([each for opened in found.values() for each in opened]) if len(wrong) == len(found) > 1 else ""
    finding.problems += [of_all] if of_all else [f"list of {part}: {problem}" for part, problem in wrong.items()]
    for part, opened in found.items():
        if part == "train" or part in wrong:
            continue
        if problem := _fault(layout, lambda opened=opened: survey.check_truth(layout.name, opened, layout.format)):  # type: ignore[misc]
            finding.problems.append(problem)


def _fault(layout: DepthLayout, look: Callable[[], object]) -> str:
    """What is wrong; empty when nothing is."""
    try:
        look()
    except DataError as error:
        return _short(layout.name, error)
    return ""


def _looked(
    layout: DepthLayout, pairs: Pairs, rows: Sequence[int], watch: Watch
) -> tuple[list[survey.Looked], list[str]]:
    """What the pairs hold, and the faults of those that cannot be read."""

    def one(row: int) -> survey.Looked | str:
        try:
            return survey.looked(layout, pairs.images[row], pairs.depths[row])
        except DataError as error:
            return _short(layout.name, error)

    with ThreadPoolExecutor() as pool:
        results = list(watch(pool.map(one, rows), len(rows)))
    return [each for each in results if not isinstance(each, str)], [each for each in results if isinstance(each, str)]


def _short(name: str, error: DataError) -> str:
    return str(error).removeprefix(f"{name}: ")
