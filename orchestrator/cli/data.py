"""The only place with the commands `data ls`, `data check`, `data fetch`, `data split`, `data pack`, `data convert`."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestrator.cli.options import output, places, say, show
from orchestrator.errors import NotFound

if TYPE_CHECKING:
    from orchestrator.settings import Settings
    from tasks.datasets.labelled.card import LabelledDataset, SplitSpec
    from tasks.datasets.labelled.checks import Finding

F = TypeVar("F", bound=Callable[..., Any])
FAULTY = 1


@click.group()
def data() -> None:
    """Data sets: what is known, what is there, whether it is whole, which image is train, val or test."""


def a_cut(command: F) -> F:
    """The options that say which cut of a data set is meant; the command gets `cut: Cut`."""

    @functools.wraps(command)
    def call(*arguments: Any, **options: Any) -> Any:
        from tasks.datasets.labelled.card import SplitSpec

        card = _card(options["name"])
        cut = SplitSpec(
            card.name, options.pop("val_fraction"), options.pop("split_seed"), not options.pop("no_background"),
            options.pop("official_val"),
        )  # fmt: skip
        if not cut.caltech_background and not card.background:
            raise click.UsageError(f"{card.name} has no class BACKGROUND_Google")
        if cut.official_val == "test" and (card.source != "folder" or card.test):
            raise click.UsageError(f"{card.name} has its own test images")
        return command(*arguments, cut=cut, **options)

    options = (
        click.option(
            "--val-fraction", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.2, show_default=True,
            help="Part that is held out as val, where there is no official val.",
        ),
        click.option("--split-seed", type=click.IntRange(0), default=0, show_default=True),
        click.option("--no-background", is_flag=True, help="Caltech-101 without BACKGROUND_Google."),
        click.option(
            "--official-val", type=click.Choice(["val", "test"]), default="val", show_default=True,
            help="What the official val of imagenet and inat18 is.",
        ),
    )  # fmt: skip
    decorated: Any = call
    for option in reversed(options):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


def _card(name: str) -> LabelledDataset:
    from tasks.datasets.labelled.catalog import find

    try:
        return find(name)
    except ValueError as error:
        raise NotFound(str(error)) from error


def _splits(where: Settings) -> list[Path]:
    """Where manifests lie when the data root cannot be written."""
    from tasks.datasets.manifest import FOLDER

    return [where.folder / FOLDER]


@data.command("ls")
@click.argument("name", required=False)
@places("data_root")
@output
def list_sets(name: str | None, where: Settings, form: str) -> None:
    """All data sets that are known, and which are there; with NAME everything about one."""
    from tasks.datasets.labelled.catalog import CARDS

    rows = [_row(card, where.data_root) for card in ([_card(name)] if name else CARDS.values())]
    if form == "json":
        show(rows[0] if name else rows)
    elif name:
        click.echo("\n".join(f"{field.replace('_', ' '):<13} {_text(value)}" for field, value in rows[0].items()))
    else:
        heads = ("name", "classes", "train", "val", "test", "metric", "source", "there")
        cells = [heads, *([_text(row[head]) for head in heads] for row in rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(heads))]
        for row in cells:
            aligned = (
                text.ljust(width) if i in (0, 5, 6, 7) else text.rjust(width)
                for i, (text, width) in enumerate(zip(row, widths, strict=True))
            )
            click.echo("  ".join(aligned).rstrip())
        say(f"data root: {where.data_root}; everything about one: data ls NAME")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(value) or "nothing"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _row(card: LabelledDataset, root: Path) -> dict[str, Any]:
    val = "official" if card.official_val else "held out; the published cut is counted here"
    return {
        "name": card.name, "title": card.title, "classes": card.classes, "metric": card.metric,
        "train": card.train, "val": card.val, "test": card.test, "val_is": val, "split": card.split,
        "several_labels": card.several_labels, "source": card.source, "licence": card.licence,
        "there": card.missing(root) is None, "needs": list(card.needs), "how_to_get": card.how_to_get,
    }  # fmt: skip


@data.command()
@click.argument("name")
@places("data_root")
@a_cut
@click.option("--images", is_flag=True, help="Open every image, too.")
@output
def check(name: str, where: Settings, cut: SplitSpec, images: bool, form: str) -> None:
    """Whether a data set is there and whole: a line for each fault, and exit code 1; 4 when it is not there."""
    from tasks.datasets.labelled.checks import check as look

    card = _card(name)
    found = look(card, where.data_root, cut, _splits(where), images, _watched)
    if form == "json":
        show({**vars(found), "manifest": str(found.manifest or "")})
    else:
        _print(card, cut, found)
    if found.problems and not found.counts and cut.of(card).missing(where.data_root):
        say(card.how_to_get)
        sys.exit(NotFound.exit_code)
    sys.exit(FAULTY if found.problems else 0)


def _print(card: LabelledDataset, cut: SplitSpec, found: Finding) -> None:
    for problem in found.problems:
        click.echo(f"{card.name}: {problem}")
    if not found.counts:
        return
    of = cut.of(card)
    if not found.problems:
        click.echo(f"{card.name}: as it should be")
    there, wanted = sum(found.counts.values()), of.trainval + of.test
    expected = f" of {wanted:,} expected" if of.per_class is None else ""
    click.echo(f"images   {there:,}{expected}, {of.classes:,} classes")
    click.echo("parts    " + ", ".join(f"{part} {count:,}" for part, count in found.counts.items()))
    for part, (fewest, most) in found.balance.items():
        click.echo(f"balance  {fewest:,} to {most:,} images of a class in {part}")
    if found.opened is not None:
        click.echo(f"opened   {found.opened:,} images")
    click.echo(f"split    {cut.name(card)}, SHA-256 {found.digest}")
    if found.manifest:
        click.echo(f"written  {found.manifest}")
    if card.name == "birdsnap" and there != wanted:
        click.echo("results on other images than the published ones cannot be compared with them (task.counts: any)")


def _watched(items: Iterable[Any], total: int) -> Iterable[Any]:
    """With a bar, where somebody watches."""
    from rich.console import Console
    from rich.progress import track

    return track(items, "images", total=total, console=Console(stderr=True), disable=not sys.stderr.isatty())


@data.command("fetch")
@click.argument("name")
@places("data_root")
@click.option("--keep", is_flag=True, help="Keep the archives after they are unpacked.")
def fetch_command(name: str, where: Settings, keep: bool) -> None:
    """Download and unpack a data set; cut off, the same command goes on from there. Else: how to get it by hand."""
    from orchestrator.assets.fetch_data import fetch

    card = _card(name)
    with _Bars() as bars:
        fetch(card, where.data_root, bars.show, keep)
    click.echo(f"{name}: there, below {where.data_root}; data check {name} looks whether it is whole")


@data.command("pack")
@click.argument("name")
@places("data_root")
@click.option("--shard-mb", type=click.IntRange(1), default=1024, show_default=True, help="Size of a tar file.")
def pack_command(name: str, where: Settings, shard_mb: int) -> None:
    """Copy the images of a data set into tar files, which trials then read in the place of millions of small files."""
    from tasks.datasets.images import shards
    from tasks.datasets.labelled import partition
    from tasks.datasets.labelled.card import SplitSpec
    from tasks.errors import DataError

    card, root = _card(name), where.data_root
    problem = card.missing(root)
    if problem:
        raise NotFound(problem)
    try:
        manifest = partition.make(card, root, SplitSpec(name))
        names = [image for image in manifest.images if isinstance(image, str)]
        if not names:
            raise click.UsageError(f"{name} is kept in arrays, not in a file per image: nothing to pack")
        labels = None if card.several_labels else list(manifest.labels)
        out = root / Path(names[0]).parts[0] / shards.FOLDER
        index = shards.pack(root, [root / image for image in names], labels, out, shard_mb * 2**20)
    except (DataError, OSError) as error:
        raise NotFound(str(error)) from error
    click.echo(f"{name}: {len(index)} images in {len(index.shards)} tar files in {out}")


class _Bars:
    """What a download says: a bar on a terminal, else a line for each file."""

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


@data.command()
@click.argument("name")
@places("data_root")
@a_cut
def split(name: str, where: Settings, cut: SplitSpec) -> None:
    """Write down which image is train, val or test, from the data as they are now; print the file and its SHA-256."""
    from tasks.datasets import manifest as manifests
    from tasks.datasets.labelled import partition
    from tasks.errors import DataError

    card = _card(name)
    problem = cut.of(card).missing(where.data_root)
    if problem:
        raise NotFound(problem)
    try:
        made = partition.make(card, where.data_root, cut)
    except DataError as error:
        raise NotFound(str(error)) from error
    folders = [where.data_root / manifests.FOLDER, *_splits(where)]
    path = manifests.save(made, partition.file_name(card, cut), folders)
    if path is None:
        raise NotFound(f"neither {folders[0]} nor {folders[1]} can be written; choose another folder with --runs")
    click.echo(path)
    click.echo(made.digest)
    say(", ".join(f"{part} {count:,}" for part, count in made.counts.items()))


@data.group()
def convert() -> None:
    """Turn what a data set's makers publish into lists that anyone can read."""


@convert.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@places("data_root")
@click.option("--any-count", is_flag=True, help="Also when the counts are not those of CoG.")
def cog(files: tuple[Path, ...], where: Settings, any_count: bool) -> None:
    """CoG's two pickles, in any order, into cog/l1.json to cog/l5.json below the data root. No code in them is run."""
    from tasks.datasets.labelled.cog_lists import convert as converted
    from tasks.errors import DataError

    try:
        for path in converted(files, where.data_root, any_count):
            click.echo(path)
    except DataError as error:
        raise NotFound(str(error)) from error
