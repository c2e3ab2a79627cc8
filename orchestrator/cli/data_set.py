"""The data set that a `data` command is about: a known one by its name, or a user's own by its path."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.options import say
from orchestrator.errors import NotFound
from orchestrator.settings import settings

if TYPE_CHECKING:
    from tasks.datasets.info import DatasetInfo, SplitOption


class OneSet(click.Command):
    """A command on one data set; it is called with `info`, the data set or None, in the place of NAME."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        kinds = "folder, table, huggingface, coco, depth_pairs, sequences, coco_instances, class_maps"
        kind = click.Option(["--kind"], help=f"Of a path: {kinds} [as the files look].")
        fields = click.Option(
            ["--field", "fields"], multiple=True, metavar="FIELD=VALUE",
            help="Of a path: a field of its description in a spec (label=species).",
        )  # fmt: skip
        return [*super().get_params(ctx), kind, fields]

    def invoke(self, ctx: click.Context) -> Any:
        given = ctx.params
        name, kind, fields = (given.pop(each) for each in ("name", "kind", "fields"))
        if name is None and (kind or fields):
            raise click.UsageError("--kind and --field are for a path", ctx)
        root = settings(folder=given["runs"], data_root=given["data_root"]).data_root
        given["info"] = None if name is None else found(name, kind, fields, root)
        return self.call(ctx)

    def call(self, ctx: click.Context) -> Any:
        return super().invoke(ctx)


class Cut(OneSet):
    """A command on one data set, with the options that data sets offer for their splits. They are asked for when the
    command is called: every other command starts faster without them."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*super().get_params(ctx), *map(_click_option, _split_options())]

    def call(self, ctx: click.Context) -> Any:
        """Calls the command with `choices` in place of the single options."""
        info: DatasetInfo = ctx.params["info"]
        given = {option: _choice(option, ctx.params.pop(option.name)) for option in _split_options()}
        for option, value in given.items():
            if option not in info.options and value != option.default:
                offered = ", ".join(other.flag for other in info.options) or "none"
                raise click.UsageError(f"{option.flag} is no option of {info.name}; its options: {offered}", ctx)
        ctx.params["choices"] = {option.name: given[option] for option in info.options}
        return super().call(ctx)


def _split_options() -> list[SplitOption]:
    from tasks.datasets import DATASETS

    return list(dict.fromkeys(option for info in DATASETS.values() for option in info.options))


def _click_option(option: SplitOption) -> click.Option:
    if option.kind == "switch":
        return click.Option([option.flag, option.name], is_flag=True, help=option.help)
    kinds: dict[str, click.ParamType[Any]] = {
        "fraction": click.FloatRange(0, 1, min_open=True, max_open=True),
        "count": click.IntRange(0, option.most),
        "word": click.Choice(option.words),
    }
    return click.Option(
        [option.flag, option.name], type=kinds[option.kind], default=option.default, show_default=True,
        help=option.help or None,
    )  # fmt: skip


def _choice(option: SplitOption, given: Any) -> Any:
    """The value that a choice has by what was given for its flag."""
    if option.kind != "switch":
        return given
    return not option.default if given else option.default


def found(name: str, kind: str | None = None, fields: Sequence[str] = (), root: Path | None = None) -> DatasetInfo:
    """The data set of this name; else that at this path: below the folder of the command or `root`, the data root.

    Raises NotFound for neither, and UsageError for a description that cannot be.
    """
    from tasks.datasets import DATASETS, DESCRIBED, describe, find_dataset
    from tasks.datasets.info import DatasetInfo

    known = name in DATASETS and not kind
    if known and Path(name).exists():
        say(f"note: {name} is taken as the known data set of this name; write ./{name} for the folder or file here")
    path = None if root is None or known else _path(name, root)
    if path is None:
        if kind or fields:
            raise NotFound(
                f"no file or folder {name} here or below the data root {root}; --kind and --field are for a path"
            )
        if "/" in name and root is not None:
            raise NotFound(f"no file or folder {name} here or below the data root {root}")
        try:
            return find_dataset(name, DatasetInfo)  # type: ignore[type-abstract]
        except ValueError as error:
            raise NotFound(str(error)) from error
    if kind is not None and kind not in DESCRIBED:
        raise click.UsageError(f"--kind {kind}: known: {', '.join(DESCRIBED)}")
    pairs = [field.partition("=") for field in fields]
    wrong = [field for field, (_, equals, _) in zip(fields, pairs, strict=True) if not equals]
    if wrong:
        raise click.UsageError(f"--field {wrong[0]}: must be FIELD=VALUE, as in label=species")
    assert root is not None
    try:
        return describe(path, kind, {field: value for field, _, value in pairs}, root)
    except ValueError as error:
        raise click.UsageError(f"{path}: {error}") from error


def _path(name: str, root: Path) -> str | None:
    """How a spec would write the path: below the data root, where it is there. None: nothing is there."""
    here = Path(os.path.expanduser(name))
    if here.exists():
        whole, start = os.path.abspath(here), os.path.abspath(root)
        return os.path.relpath(whole, start) if whole.startswith(f"{start}{os.sep}") else whole
    return name if (root / here).exists() else None
