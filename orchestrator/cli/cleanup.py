"""Commands that remove weights and checkpoints or keep them: gc, pin, unpin."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.options import echo, output, places, say, show, working
from orchestrator.settings import Settings

if TYPE_CHECKING:
    from orchestrator.engine.collector import Item, Kept, RemovalPlan, Removed
    from orchestrator.store.store import Store

LISTED = 40
"""Lines of a table on a terminal, the largest files first; JSON has all."""
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


class Age(click.ParamType):  # type: ignore[type-arg]
    """A number with s, m, h, d or w: 7d."""

    name = "AGE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", str(value))
        if match is None:
            self.fail(f"{value!r} is no age: write a number with s, m, h, d or w, for example 7d", param, ctx)
        return float(match[1]) * _UNITS[match[2]]


@click.command("gc")
@places("storage")
@output
@click.option("--plan", "only_plan", is_flag=True, help="List what would be removed and why; remove nothing.")
@click.option("--job", help="Only trials of this job. Files that another job needs are kept.")
@click.option("--older-than", "older_than_s", type=Age(), default=0.0, help="Only trials that ended so long ago: 7d.")
@click.option("--checkpoints", is_flag=True, help="Also checkpoints of stopped, cancelled and failed trials.")
@click.option("--unknown", is_flag=True, help="Also folders of trials that are not in this store.")
@click.option("--lost", is_flag=True, help="Also drop the record of weights whose files no longer exist.")
def gc(
    where: Settings, form: str, only_plan: bool, job: str | None, older_than_s: float, checkpoints: bool,
    unknown: bool, lost: bool,
) -> None:  # fmt: skip
    """Remove weights and checkpoints that are no longer needed. Kept are those of trials that were chosen, are best of
    their group, end a job or are pinned, and those from which a trial may still start."""
    from orchestrator.engine import collector
    from orchestrator.store.store import open_existing, open_to_look

    store = (open_to_look if only_plan else open_existing)(where)
    options = collector.Options(store.jobs.find(job) if job else None, older_than_s, checkpoints, unknown, lost)
    with working("comparing the store with the files in the storage folder"):
        plan = collector.plan(store, where.storage, options)
        done = None if only_plan else collector.remove(store, where.storage, plan)
    if form == "json":
        show(to_json(plan, done))
    else:
        echo("\n".join(lines(plan, done)))
    store.close()
    if done and done.refused:
        sys.exit(1)


def to_json(plan: RemovalPlan, done: Removed | None) -> dict[str, Any]:
    """`removable` and `kept` as planned; `removed`, `in_use` and `refused`, each None before a removal."""
    return {
        "removable": [_item(item) for item in plan.items],
        "removable_bytes": _size(plan.items),
        "kept": [
            {"key": kept.trial.key, "name": kept.trial.name, "path": str(kept.path), "bytes": kept.size,
             "reasons": [reason._asdict() for reason in kept.reasons]}
            for kept in plan.kept
        ],
        "kept_bytes": _size(plan.kept),
        "lost": [{"key": trial.key, "name": trial.name, "path": trial.weights} for trial in plan.lost],
        "removed": None if done is None else [_item(item) for item in done.items],
        "removed_bytes": None if done is None else _size(done.items),
        "in_use": None if done is None else [_item(item) for item in done.in_use],
        "refused": None if done is None else [{**_item(item), "error": why} for item, why in done.refused],
        "notes": plan.notes,
    }  # fmt: skip


def _item(item: Item) -> dict[str, Any]:
    return {"key": item.key, "name": item.trial.name if item.trial else None, "kind": item.kind,
            "path": str(item.path), "bytes": item.size, "reason": item.reason}  # fmt: skip


def lines(plan: RemovalPlan, done: Removed | None) -> list[str]:
    """The files that would be removed, or were, as text."""
    from orchestrator.report.formatting import aligned

    items = plan.items if done is None else done.items
    text = [f"{'would remove' if done is None else 'removed'} {_count(items)}"]
    if items:
        shown = sorted(items, key=lambda item: -item.size)[:LISTED]
        rows = [
            [f"{item.size:,}", item.path.name[:24], item.trial.name if item.trial else "–", item.key[:8], item.reason]
            for item in shown
        ]
        text += ["", *aligned(["bytes", "file", "of", "trial", "why"], rows, 200)]
    if len(items) > LISTED:
        text.append(f"and {len(items) - LISTED} smaller ones; -o json lists all")
    if plan.kept:
        kinds = Counter(kept.reasons[0].kind for kept in plan.kept)
        counts = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        text += ["", f"kept: weights of {counts}: {_count(plan.kept)}"]
    verb = "would drop" if done is None else "dropped"
    text += [f"{verb} the record of a file that no longer exists: {trial.weights}" for trial in plan.lost]
    if done is not None:
        text += [f"kept, now in use: {item.path}" for item in done.in_use]
        text += [f"could not delete ({why}): {item.path}" for item, why in done.refused]
    return [*text, *plan.notes]


def _count(items: Sequence[Item | Kept]) -> str:
    return f"{len(items)} {'file' if len(items) == 1 else 'files'}, {_size(items):,} bytes"


def _size(items: Sequence[Item | Kept]) -> int:
    return sum(item.size for item in items)


@click.command()
@click.argument("name", metavar="JOB|TRIAL")
@places()
@click.option("--why", default="", help="Shown by gc and describe.")
def pin(name: str, where: Settings, why: str) -> None:
    """Keep the weights of a trial, or of all trials of a job, whatever the options of gc. A trial without weights (they
    were removed, or its stage keeps none) makes them again when its job is submitted again."""
    store, target, what = _target(name, where)
    say(f"{what} {'is pinned' if store.weights.pin(target, why) else 'was pinned already'}")
    store.close()


@click.command()
@click.argument("name", metavar="JOB|TRIAL")
@places()
def unpin(name: str, where: Settings) -> None:
    """Remove a pin."""
    from orchestrator.errors import NotFound

    store, target, what = _target(name, where)
    if not store.weights.unpin(target):
        pinned = ", ".join(each[:12] if len(each) == 64 else each for each in store.weights.pins())
        raise NotFound(f"{what} is not pinned; pins: {pinned or 'none'}")
    say(f"{what} is no longer pinned")
    store.close()


def _target(name: str, where: Settings) -> tuple[Store, str, str]:
    """The store, the id or key that `name` means, and that in words."""
    from orchestrator.errors import NotFound
    from orchestrator.store.store import open_existing

    store = open_existing(where)
    try:
        job = store.jobs.find(name)
        return store, job, f"job {job}"
    except NotFound:
        key = store.trials.find(name)
        return store, key, f"trial {key[:12]}"
