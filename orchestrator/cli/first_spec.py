"""The command `init`: a first spec for a data set, from options or from answers on a terminal."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.options import echo, flags, places, say
from orchestrator.errors import BadInput, Conflict
from orchestrator.settings import Settings, shown

if TYPE_CHECKING:
    from tasks.datasets.info import DatasetInfo


@click.command("init")
@click.option("--data", help="A data set: its name (data ls), or the path of your own images or table.")
@click.option("--kind", help="Of a path: folder, table or huggingface [as the files look].")
@click.option(
    "--field", "fields", multiple=True, metavar="FIELD=VALUE",
    help="Of a path: a field of task.dataset (label=species, test_fraction=0.3).",
)  # fmt: skip
@click.option("--model", "models", multiple=True, help="A model of timm (convnext_atto); twice and more: compared.")
@click.option("--weights", help="Initial weights: a tag of timm (resnet18.a1_in1k), or a .safetensors file.")
@click.option("--search", is_flag=True, help="A random search in place of a grid.")
@click.option("--replicates", type=click.IntRange(1, 100), default=1, help="Seeds of each setting [1].")
@click.option("--output", "target", type=click.Path(path_type=Path), help="The file to write; - prints it.")
@places("data_root")
def init(
    data: str | None, kind: str | None, fields: tuple[str, ...], models: tuple[str, ...], weights: str | None,
    search: bool, replicates: int, target: Path | None, where: Settings,
) -> None:  # fmt: skip
    """Write a first spec for a data set: it looks at the images, and says why each line is as it is.

    Without --data, --model (or --weights) and --output it asks, if it runs on a terminal.
    """
    from orchestrator.cli.data_set import found
    from orchestrator.launch.first_spec import Wishes, first_spec

    if data is None or not (models or weights) or target is None:
        if not _may_ask():
            raise click.UsageError("needs --data, --model or --weights, and --output (on a terminal it asks for them)")
        data = data or click.prompt("Data set (a name of `data ls`, or the path of your images)", err=True)
        if not (models or weights):
            models = (click.prompt("Model of timm", default="convnext_atto", err=True),)
            search = click.confirm("A random search in place of a grid?", default=search, err=True)
        target = target or click.prompt("File to write", default="study.yaml", type=Path, err=True)
    assert data is not None
    assert target is not None
    if target.exists() and str(target) != "-":
        raise Conflict(f"{target} exists already: choose another --output, or remove it")
    info = found(data, kind, fields, where.data_root)
    command = ["orchestrator", "init", "--data", data, *(f"--model={model}" for model in models)]
    command += [f"--kind={kind}"] if kind else []
    command += [f"--field={field}" for field in fields]
    command += [f"--weights={weights}"] if weights else []
    command += ["--search"] if search else []
    command += [f"--replicates={replicates}"] if replicates > 1 else []
    wishes = Wishes(models, weights, search, replicates, gpu=_has_gpu())
    place = flags(where, "data_root")
    text = first_spec(info, _described(info), wishes, where.data_root, f"{shown(shlex.join(command))}{place}")
    if str(target) == "-":
        echo(text, end=False)
        return
    _write(target, text, place)


def _described(info: DatasetInfo) -> str | dict[str, Any]:
    """The data set as a spec names or describes it."""
    own: Any = getattr(info, "own", None)
    if own is None:
        return info.name
    fields: dict[str, Any] = own.model_dump(mode="json", exclude_unset=True)
    if fields.get("name") == Path(own.path).name:
        del fields["name"]
    return {"kind": own.kind, **{name: value for name, value in fields.items() if name != "kind"}}


def _may_ask() -> bool:
    return sys.stdin.isatty()


def _has_gpu() -> bool:
    from orchestrator.launch.estimate import own_gpus

    return own_gpus() > 0


def _write(target: Path, text: str, place: str) -> None:
    """Writes the spec, which is checked as any other. Raises BadInput where it cannot be written. `place`: the option
    that names the data root to the next commands."""
    from orchestrator.spec.load import load

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"cannot write {target}: {error.strerror}; choose another --output") from error
    load(target)
    say(f"written: {target}")
    for verb, does in (("plan", "what would run, and its cost"), ("submit", "run it and print the table")):
        say(f"  python -m orchestrator {verb:<6} {shlex.quote(str(target))}{place}  # {does}")
