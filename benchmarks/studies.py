"""Runs the laptop profile of every spec, one after another, and writes the tables of README and docs/studies.md.

    python benchmarks/studies.py                       all specs that have one; two hours on 2 free cores
    python benchmarks/studies.py specs/cog.yaml        one of them; the other tables stay
    python benchmarks/studies.py --profile smoke       tries the script out in minutes; both pages stay
    python benchmarks/studies.py specs/drop_layers.yaml --profile laptop_depth      a further study of a spec
    python benchmarks/studies.py specs/pose.yaml specs/depth.yaml --together        one folder: pre-training is run once
    python benchmarks/studies.py --folder runs/studies/FOLDER                       a call that was stopped goes on

Each study is the command that a user types, in a folder of its own unless you ask otherwise, with a local Ray of its
own and tracking on.
One of the two pages has a place for each, between `<!-- study: NAME -->` (the spec's file name without .yaml) and
`<!-- end of study -->`; for another profile than laptop it may have one, `<!-- study: NAME PROFILE -->`. The place gets
the report's table and choices, then seconds, machine, versions and commit. The pages are written when all studies are
done. What has no place goes into pages of the same names in the folder of the studies instead. Figures over layers are
copied to benchmarks/results/ (or into that folder) as NAME-FIGURE.png or NAME-PROFILE-FIGURE.png; their tables of
numbers stay in the report.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import torch

from orchestrator.spec.load import profiles

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (ROOT / "README.md", ROOT / "docs" / "studies.md")
"""Each study has its place in one of them."""
END = "<!-- end of study -->"
LEFT_OUT = ("Warnings", "Trials behind each cell")
"""Sections of a report that the pages do not repeat."""
VERSIONS = ("python", "torch", "torchvision", "timm")
"""Packages that digits depend on."""


Pages = dict[Path, str]
"""Page -> its text."""


@dataclass(frozen=True)
class Place:
    """Where a study's text goes."""

    page: Path
    name: str
    """NAME or NAME PROFILE; that of the laptop profile, if there is none of its own."""
    own: bool
    """False: the study has no place of its own, so the page is not written, but a copy."""


def place(pages: Pages, spec: Path, profile: str) -> Place:
    """The study's place. ValueError unless exactly one page has exactly one."""
    own = profile == "laptop" or any(f"<!-- study: {spec.stem} {profile} -->" in text for text in pages.values())
    name = f"{spec.stem} {profile}" if own and profile != "laptop" else spec.stem
    found = [page for page, text in pages.items() if f"<!-- study: {name} -->" in text]
    if len(found) != 1:
        listed = " or ".join(page.name for page in pages)
        raise ValueError(f"one page, {listed}, needs one place for {name}: a line <!-- study: {name} -->, then {END}")
    written(pages[found[0]], name, "")
    return Place(found[0], name, own)


def study(spec: Path, profile: str, folder: Path, cpus: int, place: Place) -> str:
    """Runs one study in a folder, which may hold trials of it; returns what the page says of it."""
    from job import submit  # both bring Ray, which a test of this script does not need
    from noop import end_cluster

    load = os.getloadavg()[0]
    found = json.loads(printed("plan", folder, str(spec), "--profile", profile, "-o", "json"))["done"]
    try:
        began, ended = submit(spec, folder, cpus, ["--profile", profile])
    finally:
        end_cluster(folder)
    report = json.loads(printed("report", folder, "-f", "json"))
    trial = json.loads(printed("describe", folder, report["cells"][0]["keys"][0], "-o", "json"))
    pictures = RESULTS if place.own else folder
    named = place.name.replace(" ", "-")
    for figure in sorted((folder / "reports" / report["job_id"]).glob("*.png")):
        shutil.copyfile(figure, pictures / f"{named}-{figure.name}")
    trials = len({line["key"] for line in report["trials"]})
    count = f"{trials} trial{'s' * (trials != 1)}"
    count += f", {found} of them done before," if found else ""
    return "\n\n".join(
        [
            results(printed("report", folder, "-f", "md"), f"{os.path.relpath(RESULTS, place.page.parent)}/{named}-"),
            f"{count} in {ended - began:.0f} s (load of the machine before: {load:.1f}), "
            f"{machine(report['provenance'], trial['facts'], cpus)}",
        ]
    )


def printed(name: str, folder: Path, *arguments: str) -> str:
    """What a command prints about a folder of runs."""
    from job import environment

    command = [sys.executable, "-m", "orchestrator", name, *arguments, "--runs", str(folder)]
    return subprocess.run(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True, check=True).stdout


def results(report: str, pictures: str = "") -> str:
    """A report in Markdown without its heading and the sections of LEFT_OUT, the titles of others in bold. Of a section
    with a picture, the picture and its caption; `pictures`: what their names begin with here."""
    _, *parts = re.split(r"^#+ (.*)\n", report, flags=re.MULTILINE)
    table, *sections = zip(parts[::2], parts[1::2], strict=True)
    kept = [f"**{title}**\n\n{_shown(text.strip(), pictures)}" for title, text in sections if title not in LEFT_OUT]
    return "\n\n".join([table[1].strip(), *kept])


def _shown(text: str, pictures: str) -> str:
    """The text of a section; of one that begins with a picture, without the table below it."""
    picture = re.match(r"!\[(.*)\]\((.*)\.svg\)\n\n(.*)", text)
    return f"![{picture[1]}]({pictures}{picture[2]}.png)\n\n{picture[3]}" if picture else text


def machine(provenance: dict[str, Any], facts: dict[str, Any], cpus: int) -> str:
    """The day, and all that digits and seconds depend on: processor, kernels, threads, versions, commit."""
    kernels = torch.backends.cpu.get_cpu_capability()
    versions = ", ".join(f"{name} {provenance['versions'][name]}" for name in VERSIONS)
    code = provenance["git_commit"][:7] + (" with uncommitted changes" if provenance["git_dirty"] else "")
    threads = f"{facts['threads']} thread{'s' * (facts['threads'] != 1)} a trial"
    return (
        f"{date.today()}: {cpus} of {os.cpu_count()} cores, {processor()}, {kernels} kernels, {threads}; "
        f"{versions}; code {code}."
    )


def processor() -> str:
    """The model of this machine's processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if platform.system() == "Linux" else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def written(page: str, name: str, text: str) -> str:
    """A page with the text in the study's place. ValueError unless there is exactly one."""
    begin = f"<!-- study: {name} -->"
    before, *after = page.split(begin)
    old, end, rest = after[0].partition(END) if len(after) == 1 else ("", "", "")
    if not end or "<!-- study: " in old:
        raise ValueError(f"a page needs one place for {name}: a line {begin} and below it a line {END}")
    return f"{before}{begin}\n{text}\n{END}{rest}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("specs", type=Path, nargs="*", help="spec files (none: all that have a laptop profile)")
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--cpus", type=int, default=os.cpu_count(), help="CPUs of the local cluster (none: all)")
    parser.add_argument("--together", action="store_true", help="in one folder: what a study did, the next finds done")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "studies", help="where each call makes a folder")
    parser.add_argument("--folder", type=Path, help="an earlier call's folder: what it did is found done")
    given = parser.parse_args()
    if given.folder and not given.folder.is_dir():
        parser.error(f"--folder {given.folder}: no such folder")
    specs = given.specs or [path for path in sorted((ROOT / "specs").glob("*.yaml")) if "laptop" in profiles(path)]
    pages = {path: path.read_text() for path in PAGES}
    places = {
        spec: place(pages, spec, given.profile) for spec in specs
    }  # a missing one is an error before anything runs
    folder = (given.folder or given.runs / f"{given.profile}-{datetime.now():%Y%m%d-%H%M%S}").resolve()
    texts: dict[Place, str] = {}
    for spec, where in places.items():
        print(f"{spec.stem}, {given.profile}: running", flush=True)
        own = folder if given.together else folder / spec.stem
        texts[where] = study(spec.resolve(), given.profile, own, given.cpus, where)
        print(f"{texts[where]}\n", flush=True)
    for page, own in dict.fromkeys((where.page, where.own) for where in texts):
        chosen = {where.name: text for where, text in texts.items() if (where.page, where.own) == (page, own)}
        target = page if own else folder / page.name
        target.write_text(with_all(page.read_text(), chosen))
        print(f"written: {target}")


def with_all(page: str, texts: dict[str, str]) -> str:
    """A page with every text in the place of its name."""
    for name, text in texts.items():
        page = written(page, name, text)
    return page


if __name__ == "__main__":
    main()
