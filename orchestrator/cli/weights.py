"""Commands about weights: import, export, show, fetch."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.options import echo, places, say, working

if TYPE_CHECKING:
    from orchestrator.settings import Settings
    from tasks.backbones.spec import BackboneSpec
    from tasks.backbones.swin_windows import Windows

A_FILE = click.argument("file", type=click.Path(path_type=Path))


@click.group()
def weights() -> None:
    """Convert published checkpoints, export trained models, inspect weights files, download weights."""


@weights.command("import")
@A_FILE
@places("data_root")
@click.option("--output", type=click.Path(path_type=Path), help="[weights/NAME.safetensors below the data root]")
@click.option("--model", metavar="NAME", help="timm's name of the backbone, to check that every weight fits it.")
@click.option("--args", "arguments", default="{}", metavar="JSON", help="Arguments of --model, as in backbone.args.")
@click.option("--image-size", type=click.IntRange(1), help="Image size of --model [timm's own].")
@click.option("--entry", help="Entry of the checkpoint that holds the weights [model, state_dict or module].")
@click.option("--windows", metavar="12,12,12,6", help="SwinV2: pre-training windows, if the file lacks them.")
@click.option("--name", help="Row label in tables [the file's name].")
@click.option("--source", default="", help="Origin of the file, recorded beside the weights.")
def convert_command(
    file: Path, where: Settings, output: Path | None, model: str | None, arguments: str, image_size: int | None,
    entry: str | None, windows: str | None, name: str | None, source: str,
) -> None:  # fmt: skip
    """Convert a checkpoint (.pth) once to the form that training loads, and print the lines for a spec.

    Code in the checkpoint is never run. The layouts of SimMIM, Swin (also mmpretrain's), SwinV2, BEiT, MoCo v3, DeiT,
    RepLKNet, the depth and pose code, timm and this project are recognised. FILE may be a folder in timm's form, as
    `weights export` writes it: its config.json then says which model it is.
    """
    from orchestrator.assets.convert_weights import convert, sidecar, spec_lines
    from orchestrator.assets.timm_folder import model_of, weights_of

    wanted = _backbone(model, arguments, image_size) if model else None
    stem = re.sub(r"(\.(pth|pt|bin|ckpt|tar|safetensors))+$", "", file.absolute().name)
    if os.path.isdir(file):  # Path.is_dir raises for a name that the system refuses
        wanted = wanted or model_of(file)
        file = weights_of(file)
    target = (output or where.data_root / "weights" / f"{stem}.safetensors").absolute()
    with working(f"reading {file}"):
        done = convert(file, target, entry, _windows(windows), source, wanted)
    for line in done.notes:
        say(line)
    say(f"layout {done.layout}; written: {done.output} and {sidecar(done.output).name}")
    echo(f"# SHA-256 {done.sha256}")
    echo(spec_lines(done, name or stem, where.data_root, wanted))


@weights.command("export")
@click.argument("trial")
@click.argument("folder", type=click.Path(path_type=Path))
@places("data_root", "storage")
def export_command(trial: str, folder: Path, where: Settings) -> None:
    """Write the model of TRIAL into a new folder that timm loads without this project.

    In it: model.safetensors and config.json (timm.create_model("local-dir:FOLDER", pretrained=True)), transform.json,
    lineage.json, and a README with the lines that load it.
    """
    from orchestrator.store.store import open_to_look

    store = open_to_look(where)
    key = store.find_trial(trial)
    with working(f"building the model of {trial} and checking it against timm's"):
        from orchestrator.launch.export_weights import export

        lines = export(store, where, key, folder.absolute())
    for line in lines:
        say(line)
    echo(f"written: {folder}; how to load it: {folder / 'README.md'}")


def _backbone(model: str, arguments: str, image_size: int | None) -> BackboneSpec:
    from pydantic import ValidationError

    from tasks.backbones.spec import BackboneSpec

    try:
        size = {} if image_size is None else {"image_size": image_size}
        return BackboneSpec(model=model, args=json.loads(arguments), **size)
    except ValidationError as error:
        raise click.UsageError("; ".join(str(problem["msg"]) for problem in error.errors())) from error
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"--model {model}, --args {arguments}: {error}") from error


def _windows(text: str | None) -> Windows | None:
    if text is None:
        return None
    sides = text.split(",")
    if not all(side.strip().isdigit() and int(side) > 0 for side in sides):
        raise click.UsageError(f"--windows {text}: one whole number a stage, for example 12,12,12,6")
    return tuple((int(side), int(side)) for side in sides)


@weights.command()
@A_FILE
@click.option("--names", is_flag=True, help="Also list every tensor with its shape.")
def show(file: Path, names: bool) -> None:
    """Show a weights file: digest, layout, windows, parameters, origin."""
    from orchestrator.assets.inspect_weights import contained

    for label, value in contained(file, names).items():
        if isinstance(value, dict | list):
            echo(f"{label}:")
            echo("\n".join(f"  {line}" for line in _lines(value)))
        else:
            echo(f"{label}: {value}")


def _lines(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [f"{key}: {item if isinstance(item, str) else json.dumps(item)}" for key, item in value.items()]
    return [str(item) for item in value]


@weights.command()
@click.argument("uri")
@places("data_root")
@click.option("--sha256", required=True, help="Expected digest; a file with another one is not kept.")
def fetch(uri: str, where: Settings, sha256: str) -> None:
    """Download a file to the folder where specs that name its address look for it. Trials never download."""
    from orchestrator.assets.fetch_weights import download

    path = download(uri, sha256, where.data_root)
    say(f"downloaded: {path}, SHA-256 {sha256}")
    if path.suffix == ".safetensors":
        echo(f"init: {{kind: file, name: {json.dumps(path.stem)}, path: {json.dumps(uri)}, sha256: {sha256}}}")
    else:
        say(f"convert it once: python -m orchestrator weights import {path}")
