"""`data check` of a depth data set: a line for each fault of its lists and files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tasks.datasets.checks import compare_manifest
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
    for part in layout.parts:
        _check_part(layout, part, images, watch, finding)
    return finding


def _check_part(layout: DepthLayout, part: Part, images: bool, watch: Watch, finding: Finding) -> None:
    pairs = read_pairs(layout.name, layout.base, layout.lists[part])
    if pairs.without:
        finding.notes.append(f"{pairs.without} images of {part} have no depth map (None in the list) and are left out")

    def note(look: Callable[[], object]) -> bool:
        """False when it found a fault, which is noted."""
        try:
            look()
        except DataError as error:
            finding.problems.append(_short(layout.name, error))
            return False
        return True

    if not note(lambda: survey.check_files(layout, pairs, part)):
        return
    rows = range(len(pairs)) if images else survey.spread(len(pairs), survey.GLANCE)
    found, faults = _looked(layout, pairs, rows, watch)
    if faults:
        finding.problems.append(
            f"{len(faults):,} of {len(rows):,} pairs of {part} that were opened: {first_few(faults)}"
        )
    if images:
        finding.opened = (finding.opened or 0) + len(rows)
    if found and note(lambda: survey.check_unit(layout.name, found, layout.format)) and part != "train":
        note(lambda: survey.check_truth(layout.name, found, layout.format))


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
