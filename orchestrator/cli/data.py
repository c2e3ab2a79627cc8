"""The commands `data ls`, `data check`, `data fetch`, `data split`, `data pack`, `data convert`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.data_set import Cut, OneSet, found
from orchestrator.cli.options import echo, output, places, say, show
from orchestrator.errors import BackendUnreachable, NotFound
from orchestrator.report.formatting import WIDTH, aligned

if TYPE_CHECKING:
    from orchestrator.settings import Settings
    from tasks.datasets.info import Conversion, DatasetInfo, Finding

FAULTY = 1
COLUMNS = ("name", "classes", "train", "val", "test", "metric", "source", "there")


@click.group()
def data() -> None:
    """List, check, download and split data sets."""


def _there(info: DatasetInfo, where: Settings) -> None:
    """Raises NotFound when the data are not there."""
    problem = info.missing(where.data_root)
    if problem:
        raise NotFound(problem)


@contextmanager
def _data_errors() -> Iterator[None]:
    """Turns what is wrong with data into an error with an exit code."""
    from tasks.errors import DataError

    try:
        yield
    except (DataError, OSError) as error:
        raise NotFound(str(error)) from error


def _splits(where: Settings) -> list[Path]:
    """Where manifests lie when the data root cannot be written."""
    from tasks.datasets.manifest import FOLDER

    return [where.folder / FOLDER]


@data.command("ls", cls=OneSet)
@click.argument("name", required=False)
@places("data_root")
@output
def list_sets(info: DatasetInfo | None, where: Settings, form: str) -> None:
    """All data sets that are known, and which are there; with NAME, or the path of your own, everything about one."""
    from tasks.datasets import DATASETS

    rows = [_row(each, where.data_root) for each in ([info] if info else DATASETS.values())]
    if form == "json":
        show(rows[0] if info else rows)
    elif info:
        echo("\n".join(f"{field.replace('_', ' '):<13} {_text(value)}" for field, value in rows[0].items()))
    else:
        body = [[_text(row.get(column, "–")) for column in COLUMNS] for row in rows]
        echo("\n".join(aligned(COLUMNS, body, WIDTH)))
        say(f"data root: {where.data_root}; everything about one: data ls NAME")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(value) or "nothing"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _row(info: DatasetInfo, root: Path) -> dict[str, Any]:
    return {
        "name": info.name, "title": info.title, **info.facts(), "source": info.source, "licence": info.licence,
        "there": info.missing(root) is None, "needs": list(info.needs), "how_to_get": info.how_to_get,
    }  # fmt: skip


@data.command(cls=Cut)
@click.argument("name")
@click.option("--images", is_flag=True, help="Open every image, too.")
@places("data_root")
@output
def check(info: DatasetInfo, where: Settings, choices: Mapping[str, Any], images: bool, form: str) -> None:
    """Whether a data set is there and whole, by its name or your own by its path: a line for each fault, and exit code
    1; 4 when it is not there."""
    finding = info.check(where.data_root, choices, _splits(where), images, _watched)
    if form == "json":
        show({**vars(finding), "manifest": str(finding.manifest or "")})
    else:
        _print(info.name, finding)
    if finding.problems and not finding.counts and info.missing(where.data_root):
        say(info.how_to_get)
        sys.exit(NotFound.exit_code)
    sys.exit(FAULTY if finding.problems else 0)


def _print(name: str, finding: Finding) -> None:
    for problem in finding.problems:
        echo(f"{name}: {problem}")
    if not finding.counts:
        return
    if not finding.problems:
        echo(f"{name}: complete")
    images = f"{sum(finding.counts.values()):,}"
    images += f" of {finding.expected:,} expected" if finding.expected is not None else ""
    images += f", {finding.classes:,} classes" if finding.classes is not None else ""
    echo(f"{finding.what:<8} {images}")
    echo("parts    " + ", ".join(f"{part} {count:,}" for part, count in finding.counts.items()))
    for part, (fewest, most) in finding.balance.items():
        echo(f"balance  {fewest:,} to {most:,} images of a class in {part}")
    if finding.opened is not None:
        echo(f"opened   {finding.opened:,} images")
    echo(f"split    {finding.split}, SHA-256 {finding.digest}")
    if finding.manifest:
        echo(f"written  {finding.manifest}")
    for note in finding.notes:
        echo(note)


def _watched(items: Iterable[Any], total: int) -> Iterable[Any]:
    """With a progress bar on a terminal."""
    from rich.console import Console
    from rich.progress import track

    return track(items, "images", total=total, console=Console(stderr=True), disable=not sys.stderr.isatty())


@data.command("fetch")
@click.argument("name")
@places("data_root")
@click.option("--keep", is_flag=True, help="Keep the archives after they are unpacked.")
def fetch_command(name: str, where: Settings, keep: bool) -> None:
    """Download and unpack a data set; the same command resumes a download that was cut off. Without an address: how to
    get it by hand."""
    from orchestrator.assets.fetch_data import fetch

    info = found(name)
    with _Bars() as bars:
        fetch(info, where.data_root, bars.show, keep)
    echo(f"{name}: there, below {where.data_root}; data check {name} looks whether it is whole")


@data.command("pack", cls=OneSet)
@click.argument("name")
@places("data_root")
@click.option("--shard-mb", type=click.IntRange(1), default=1024, show_default=True, help="Size of a tar file.")
def pack_command(info: DatasetInfo, where: Settings, shard_mb: int) -> None:
    """Copy the images of a data set into tar files, which trials then read in the place of millions of small files."""
    from tasks.datasets.images import shards

    _there(info, where)
    root = info.files_root(where.data_root)
    with _data_errors():
        paths, labels = info.files(where.data_root)
        if not paths:
            raise click.UsageError(f"{info.name} is kept in arrays, not in a file per image: nothing to pack")
        out = root / paths[0].relative_to(root).parts[0] / shards.FOLDER
        index = shards.pack(root, paths, labels, out, shard_mb * 2**20)
    echo(f"{info.name}: {len(index)} images in {len(index.shards)} tar files in {out}")


class _Bars:
    """Progress of downloads: a bar on a terminal, else a line for each file."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
        self._bars = Progress(*columns, console=console, disable=not console.is_terminal)
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> _Bars:
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def show(self, what: str, done: int, total: int | None) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total)
            if self._bars.disable:
                say(what)
        self._bars.update(self._tasks[what], completed=done, total=total)


@data.command(cls=Cut)
@click.argument("name")
@places("data_root")
def split(info: DatasetInfo, where: Settings, choices: Mapping[str, Any]) -> None:
    """Write down which image is train, val or test, from the data as they are now; print the file and its SHA-256."""
    from tasks.datasets import manifest as manifests

    _there(info, where)
    with _data_errors():
        made, name = info.manifest(where.data_root, choices)
    folders = [where.data_root / manifests.FOLDER, *_splits(where)]
    path = manifests.save(made, name, folders)
    if path is None:
        raise NotFound(f"neither {folders[0]} nor {folders[1]} can be written; choose another folder with --runs")
    echo(path)
    echo(made.digest)
    say(", ".join(f"{part} {count:,}" for part, count in made.counts.items()))


class _Conversions(click.Group):
    """A command for each conversion that a data set offers."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_conversions())

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        conversion = _conversions().get(name)
        return None if conversion is None else _conversion_command(conversion)


def _conversions() -> dict[str, Conversion]:
    from tasks.datasets import DATASETS

    return {info.conversion.name: info.conversion for info in DATASETS.values() if info.conversion is not None}


def _conversion_command(conversion: Conversion) -> click.Command:
    @click.command(conversion.name, help=conversion.help)
    @click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
    @places("data_root")
    @click.option("--any-count", is_flag=True, help="Also when the counts are not the published ones.")
    def convert_files(files: tuple[Path, ...], where: Settings, any_count: bool) -> None:
        from orchestrator.assets.child_process import in_child, require

        for file in files:
            require(file)

        def run() -> list[str]:
            try:
                return [str(path) for path in conversion.run(files, where.data_root, any_count)]
            except OSError as error:
                raise BackendUnreachable(f"{error.filename or where.data_root}: {error.strerror or error}") from error

        for path in in_child(run, *files):
            echo(path)

    return convert_files


@data.group(cls=_Conversions)
def convert() -> None:
    """Turn what a data set's makers publish into lists that anyone can read."""
