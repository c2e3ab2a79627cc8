"""Several workers: the same curve as one, whichever way the model is spread, and from one number of them to another."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from analysis_task import Trained, analysis, measured
from points_task import Spread, SummedPoints
from pose_trials import pose_trial
from tiny_task import EXACT, after, assert_close, outcome_values, run, seen, trial, trial_of, weights_of

from tasks.backbones.spec import FromTrial
from tasks.base import DataContext
from workers.checkpoint import Folder, load_weights
from workers.distributed import all_finite, convert_batch_norm, load_optimizer, whole_optimizer
from workers.errors import ErrorClass, Stopped, TrialError
from workers.messages import Weights
from workers.prepare import prepare
from workers.state import RankContext
from workers.trial import RuntimeSpec, Span, TrialSpec

FSDP = {"parallel": "fsdp"}
EMA = {"decay": 0.8, "hand_on": True}


def trials() -> dict[str, TrialSpec]:
    """Trials that two workers carry out in different ways and one does as well."""
    deep = {"blocks": 2}
    return {
        "whole": trial(clip=0.1),
        "parts": trial(clip=0.1, micro_batch=1),
        "oom": trial({"memory": (8, 1)}, clip=0.1),  # only rank 1 runs out of memory
        "shards": trial(deep, clip=0.1, runtime=FSDP),
        "shard parts": trial(deep, clip=0.1, micro_batch=1, runtime=FSDP),
        "swin": swin(parallel="fsdp", grad_checkpointing=True, channels_last="on"),
        "pretrain": pretraining(grad_checkpointing=True, channels_last="on"),
        "sums": trial_of(SummedPoints()),
        "sum parts": trial_of(SummedPoints(), micro_batch=1),
        "sums oom": trial_of(SummedPoints(memory=(8, 3))),
        "sum shards": trial_of(SummedPoints(blocks=2), runtime=FSDP),
        "sum shard parts": trial_of(SummedPoints(blocks=2), micro_batch=3, runtime=FSDP),
        "dropped": trial({"dropout": 0.5}, clip=0.1),
        "dropped parts": trial({"dropout": 0.5}, clip=0.1, micro_batch=3),
        "dropped oom": trial({"dropout": 0.5, "memory": (3, 8)}, clip=0.1),
        "dropped shards": trial({"dropout": 0.5, **deep}, clip=0.1, micro_batch=2, runtime=FSDP),
        "mixed in pairs": swin({"mixup_mode": "pair"}),
        "mixed one by one": swin({"mixup_mode": "elem"}, parallel="fsdp"),
        "norm": trial({"batch_norm": True}, runtime={"sync_batchnorm": True}),
        "pose": pose_trial(optim={"eps": 1e-2}, runtime={"sync_batchnorm": True}),
        "probe": probe(),
        # without k-NN: rounding in a weight may change a neighbour
        "frozen": probe({"probe": "none", "knn": None}, {"layer_decay": 0.8}, grad_checkpointing=True),
        "frozen shards": probe({"probe": "none", "knn": None}, parallel="fsdp"),
        "momentum in shards": trial(deep, optimizer="sgd", runtime=FSDP),
        "averaged": trial({"batch_norm": True}, ema=EMA, runtime={"sync_batchnorm": True}),
        "averaged shards": trial(deep, ema=EMA, runtime=FSDP),
        "lars": trial(deep, optimizer="lars", trust_coeff=0.1),
        "norm in shards": trial({"batch_norm": True}, runtime={"sync_batchnorm": True, **FSDP}),
    }


MICRO_BATCHES = {
    "parts": 1, "oom": 1, "shard parts": 1, "swin": 50, "pretrain": 50, "sum parts": 1, "sums oom": 2,
    "sum shard parts": 3, "dropped parts": 3, "dropped oom": 2, "dropped shards": 2, "mixed in pairs": 20,
    "mixed one by one": 20, "pose": 6, "probe": 30, "frozen": 30, "frozen shards": 30,
}  # fmt: skip


def swin(mixing: dict[str, Any] | None = None, **runtime: Any) -> TrialSpec:
    """A real network on real images, which drops paths, tokens and attention; with `mixing`, on mixed images too."""
    augment = {"rand_augment": "none", **(mixing or {"mixup": 0, "cutmix": 0})}
    return TrialSpec.model_validate(
        {
            "task": {"kind": "classify", "dataset": "digits", "augment": augment},
            "backbone": {
                "model": "swinv2_tiny_window8_256", "image_size": 16, "drop_path": 0.5,
                "args": {
                    "window_size": 2, "embed_dim": 8, "depths": [2, 1], "num_heads": [1, 2],
                    "proj_drop_rate": 0.2, "attn_drop_rate": 0.2,
                },
            },
            "optim": {
                "lr": 1e-3, "layer_decay": 0.8, "epochs": 1, "warmup_epochs": 0.5, "eps": 1e-4,
                "batch": 100, "micro_batch": 20 if mixing else None,
            },
            "runtime": runtime,
        }
    )  # fmt: skip


def probe(task: dict[str, Any] | None = None, optim: dict[str, Any] | None = None, **runtime: Any) -> TrialSpec:
    """A linear probe, or a model of which a part is frozen; with k-NN."""
    augment = {"rand_augment": "none", "color_jitter": 0, "mixup": 0, "cutmix": 0}
    fields = {"kind": "classify", "dataset": "digits", "probe": "linear_bn", "knn": {}, "augment": augment}
    return TrialSpec.model_validate(
        {
            "task": {**fields, **(task or {})},
            "backbone": {
                "model": "vit_tiny_patch16_224", "image_size": 16, "freeze": {"blocks": 1},
                "args": {"patch_size": 4, "embed_dim": 16, "depth": 3, "num_heads": 2},
            },
            "optim": {"lr": 1e-3, "epochs": 1, "warmup_epochs": 0.5, "batch": 60, "eps": 1e-2, **(optim or {})},
            "runtime": {"sync_batchnorm": True, **runtime},
        }
    )  # fmt: skip


def pretraining(**runtime: Any) -> TrialSpec:
    """A model whose backbone is a part of it, and a loss that needs more of it than its forward pass."""
    return TrialSpec.model_validate(
        {
            "task": {"kind": "pretrain", "dataset": "digits-pretrain", "mask_patch": 4},
            "backbone": {
                "model": "swinv2_tiny_window8_256", "image_size": 16, "drop_path": 0.5,
                "args": {
                    "patch_size": 2, "window_size": 4, "embed_dim": 8, "depths": [2, 1], "num_heads": [1, 2],
                },
            },
            "optim": {"lr": 1e-3, "epochs": 1, "warmup_epochs": 0.5, "batch": 100, "eps": 1e-4},
            "runtime": runtime,
        }
    )  # fmt: skip


def going_on() -> dict[str, TrialSpec]:
    """Trials that are stopped under one number of workers and end under another."""
    return {"ddp": trial({"blocks": 1}, ema=EMA), "fsdp": trial({"blocks": 1}, ema=EMA, runtime=FSDP)}


def spread() -> TrialSpec:
    """One step that moves no weight, with a loss that is no mean over samples."""
    still = {"lr": 1e-30, "warmup_epochs": 0, "min_lr": 0, "weight_decay": 0, "epochs": 1, "batch": 32}
    return trial_of(Spread(), batch_workers=2, **still)


def spans(first: int, last: int, **runtime: Any) -> TrialSpec:
    init = FromTrial(name="before", trial=spans(0, first).key) if first else None
    return trial({"blocks": 1}, init, runtime, span=Span(first_epoch=first, last_epoch=last))


def on_two_ranks(rank: int, folder: str) -> None:
    """What each of two processes does, in one process group."""
    torch.set_num_threads(1)
    path = Path(folder)
    dist.init_process_group("gloo", init_method=f"file://{path / 'group'}", rank=rank, world_size=2)
    place: dict[str, Any] = {"rank": rank, "world": 2, "data_root": path}

    def stops(spec: TrialSpec, name: str, stop: Callable[[], bool]) -> None:
        with pytest.raises(Stopped):
            run(spec, path / name, stop, **place)

    said = {}
    for name, spec in trials().items():
        outcome, reports = run(spec, path / name, **place)
        said[name] = [outcome.figures, outcome.facts["micro_batch"], seen(reports), outcome.facts["parameters"]]
    for name, spec in going_on().items():
        outcome, _ = run(spec, path / f"1 to 2 {name}", **place)
        assert (outcome.facts["micro_batch"], outcome.facts["workers"], outcome.facts["resumed_at"]) == (4, 2, 6)
        stops(spec, f"2 to 1 {name}", after(6))
    dropped = trial({"dropout": 0.5})
    run(dropped, path / "drop", **place)
    stops(dropped, "stopped", after(6) if rank == 1 else lambda: False)  # rank 1 alone is told to: both leave
    run(dropped, path / "stopped", **place)
    stops(trial(), "early", after(0) if rank == 1 else lambda: False)
    with pytest.raises(TrialError, match="loss nan"):
        run(trial({"inf_at": 2}), path / "diverged", **place)
    with pytest.raises(TrialError, match=r"CUDA out of memory.*set optim.micro_batch below 4") as caught:
        run(trial({"memory": (2, 2)}, runtime=FSDP), path / "small", **place)
    assert caught.value.error_class is ErrorClass.out_of_memory
    with pytest.raises(ValueError, match=r"1 batch norm layers \(norm, ..\) and 2 workers: set runtime.sync_batchnorm"):
        run(trial({"batch_norm": True}), path / "unsaid", **place)
    run(trial({"batch_norm": True}, runtime={"sync_batchnorm": False}), path / "each its own", **place)
    run(trial({"draws": 1, "blocks": 1}, runtime=FSDP), path / "drawn", **place)
    run(spans(0, 2, **FSDP), path / "first span", **place)
    deep = trials()["shards"]
    none = Folder(path / "none", deep.key, 0)
    block = prepare(deep, RankContext(folder=path / "none", **place), none).model.body[0]
    assert block.layer.weight.to_local().shape == (8, 16)
    _timm_keeps_its_activation(rank)
    _a_broken_shard_is_seen_by_all(prepare(deep, RankContext(folder=path / "none", **place), none).model, rank)
    _evaluates(place, path, said)
    said["spread"] = seen(run(spread(), path / "spread", **place)[1])
    with pytest.raises(ValueError, match=r"batch_workers 1: .* cannot run on 2 workers"):
        run(trial_of(Spread()), path / "alone", **place)
    with pytest.raises(TrialError, match="needs a worker's whole share at once"):
        run(trial_of(Spread(memory=(4, 3)), batch_workers=2), path / "spread oom", **place)
    (path / f"said-{rank}.json").write_text(json.dumps(said))
    dist.barrier()
    dist.destroy_process_group()
    # Not through the interpreter's end: gloo's threads may still be closing connections, and C++ aborts over that
    # ("terminate called without an active exception", once in several full runs). The test reads the files.
    os._exit(0)


def evaluations() -> dict[str, TrialSpec]:
    """Trials that only measure, in which two ranks have the parts that one has."""
    return {
        "shared": analysis({"noisy": True, "rows": ((1, "spread"),)}),
        "shards": analysis({"noisy": True, "blocks": 2}, runtime=FSDP),
        "one item": analysis({"items": 1}),
    }


def _evaluates(place: dict[str, Any], path: Path, said: dict[str, Any]) -> None:
    rank = place["rank"]
    for name, spec in evaluations().items():
        outcome, reports = run(spec, path / f"evaluation {name}", **place)
        said[f"evaluation {name}"] = [outcome.figures, seen(reports)]
    own = trial_of(Trained(batch_norm=True), runtime={"sync_batchnorm": False})
    said["own statistics"] = run(own, path / "own statistics", **place)[0].figures

    _stops_while_it_evaluates(place, path)

    # rank 1 measures its second item once rank 0, which is ready, has asked 21 times whether to stop
    asked, gate = 0, path / "gate"
    log = path / f"log-{rank}"

    def ask(stop: bool) -> bool:
        nonlocal asked
        asked += rank == 0 and len(measured(log)) == 3
        if asked == 21:  # what it was told before is flagged by now
            gate.touch()
        return stop and asked >= 20

    waits = analysis({"gates": (("item 003", str(gate)),), "log": str(log)})
    said["waits"] = run(waits, path / "waits", lambda: ask(False), **place)[0].figures
    # and leaves when it hears, before its third item, that rank 0 was told to stop meanwhile
    for file in (gate, log):
        if rank == 0 or file == log:
            file.unlink()
    dist.barrier()
    asked = 0
    stops = analysis({"gates": (("item 003", str(gate)),), "log": str(log), "items": 6})
    with pytest.raises(Stopped):
        run(stops, path / "stops", lambda: ask(True), **place)
    said["stops"] = [item for _, item in measured(log)]
    with pytest.raises(TrialError) as caught:
        run(analysis({"unreadable": "item 003"}), path / "unreadable", **place)
    said["unreadable"] = caught.value.error_class


def evaluated_in_parts(log: str = "") -> TrialSpec:
    return trial_of(Trained(blocks=1, log=log))


def _stops_while_it_evaluates(place: dict[str, Any], path: Path) -> None:
    """In the evaluation after the second of four epochs, once each rank has measured its first item there."""
    log = path / "parts.log"

    def stop() -> bool:
        return place["rank"] == 0 and {rank for rank, _ in measured(log)[5:]} == {0, 1}

    with pytest.raises(Stopped):
        run(evaluated_in_parts(str(log)), path / "parts", stop, **place)


def _a_broken_shard_is_seen_by_all(model: torch.nn.Module, rank: int) -> None:
    assert all_finite(model)
    if rank == 1:
        with torch.no_grad():
            model.body[0].layer.weight.to_local()[-1] = torch.nan
    assert not all_finite(model)


def _timm_keeps_its_activation(rank: int) -> None:
    """Half a batch on each rank against the whole of it: outputs, gradients and statistics. timm's norm layer has its
    activation inside."""
    from timm.layers import BatchNormAct2d

    torch.manual_seed(1)
    images = torch.randn(8, 3, 5, 5, dtype=torch.float64)
    alone = torch.nn.Sequential(BatchNormAct2d(3), torch.nn.Conv2d(3, 2, 1)).double()
    with torch.no_grad():
        alone[0].bias.fill_(0.3)
    together = torch.nn.Sequential(BatchNormAct2d(3), torch.nn.Conv2d(3, 2, 1)).double()
    together.load_state_dict(alone.state_dict())
    together = convert_batch_norm(together, RuntimeSpec(sync_batchnorm=True), 2, torch.device("cpu"))
    expected = alone(images)
    expected.square().mean().backward()
    mine = slice(4 * rank, 4 * rank + 4)
    got = together(images[mine])
    got.square().mean().backward()
    torch.testing.assert_close(got, expected[mine])
    for one, two in zip(alone.parameters(), together.parameters(), strict=True):
        assert one.grad is not None
        assert two.grad is not None
        dist.all_reduce(two.grad)
        torch.testing.assert_close(two.grad / 2, one.grad)
    torch.testing.assert_close(together.state_dict(), alone.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(together.eval()(images), alone.eval()(images))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two workers did everything there is to do, after one had begun some of it."""
    path = tmp_path_factory.mktemp("two")
    for name, spec in going_on().items():
        with pytest.raises(Stopped):
            run(spec, path / f"1 to 2 {name}", after(6))
    torch.multiprocessing.spawn(on_two_ranks, (str(path),), nprocs=2)
    return path


def weights(folder: Path) -> dict[str, torch.Tensor]:
    path = folder / "weights.safetensors"
    return load_weights(Weights(str(path), hashlib.sha256(path.read_bytes()).hexdigest()))


def test_two_workers_do_what_one_does_with_the_same_global_batch(two: Path, tmp_path: Path) -> None:
    zero, other = (json.loads((two / f"said-{rank}.json").read_text()) for rank in (0, 1))
    for name, spec in trials().items():
        # with one worker the whole batch at once, whatever its parts are on two
        optim = spec.optim.model_copy(update={"micro_batch": None})
        memory = {"task": spec.task.model_copy(update={"memory": ()})} if "oom" in name else {}
        spec = spec.model_copy(update={"optim": optim, **memory})
        one, one_reports = run(spec, tmp_path / name)
        torch.testing.assert_close(weights(two / name), weights_of(one), **EXACT)
        figures, micro_batch, reports, parameters = zero[name]
        assert micro_batch == MICRO_BATCHES.get(name, 4)
        assert figures == other[name][0] == pytest.approx(one.figures, rel=1e-5)
        assert parameters == one.facts["parameters"]
        assert other[name][2] == []  # only rank 0 reports
        for (_, _, values), report in zip(reports, one_reports, strict=True):
            assert values == pytest.approx(outcome_values(report), rel=1e-5)


def test_a_trial_goes_on_with_another_number_of_workers(two: Path, tmp_path: Path) -> None:
    for name, spec in going_on().items():
        whole, whole_reports = run(spec, tmp_path / f"whole {name}")
        torch.testing.assert_close(weights(two / f"1 to 2 {name}"), weights_of(whole), **EXACT)
        ended, reports = run(spec, two / f"2 to 1 {name}")
        assert ended.facts["resumed_at"] == 6
        assert (ended.facts["micro_batch"], ended.facts["workers"]) == (8, 1)  # all of the batch now
        assert_close(ended, whole)
        for one, other in zip(whole_reports, reports, strict=True):
            assert outcome_values(one) == pytest.approx(outcome_values(other), rel=1e-5)


def test_two_workers_stop_and_go_on_to_the_same_bits(two: Path) -> None:
    torch.testing.assert_close(weights(two / "stopped"), weights(two / "drop"), rtol=0, atol=0)
    assert not list((two / "early").glob("checkpoint-*"))


def test_statistics_of_each_worker_are_other_numbers(two: Path) -> None:
    own, all_ = weights(two / "each its own"), weights(two / "norm")
    assert not torch.allclose(own["norm.running_var"], all_["norm.running_var"], rtol=1e-3)


def test_shards_draw_as_the_whole_model_does(two: Path, tmp_path: Path) -> None:
    run(trial({"draws": 1, "blocks": 1}), tmp_path)
    name = "pictures/draw-0-0004.png"
    assert (two / "drawn" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_a_span_of_two_workers_goes_on_with_one(two: Path, tmp_path: Path) -> None:
    whole, _ = run(trial({"blocks": 1}), tmp_path / "whole")
    file = two / "first span" / "weights.safetensors"
    parent = Weights(str(file), hashlib.sha256(file.read_bytes()).hexdigest())
    ended, _ = run(spans(2, 4), tmp_path / "second", parents={spans(0, 2).key: parent})
    assert_close(ended, whole)


def test_two_workers_have_the_figures_of_one(two: Path, tmp_path: Path) -> None:
    """To the last bit, random numbers included, for whole replicas, for shards, and where a rank has nothing to do."""
    zero, other = (json.loads((two / f"said-{rank}.json").read_text()) for rank in (0, 1))
    for name, spec in evaluations().items():
        alone, reports = run(spec, tmp_path / name)
        assert zero[f"evaluation {name}"] == json.loads(json.dumps([alone.figures, seen(reports)]))
        assert other[f"evaluation {name}"] == [alone.figures, []]
    rows = "shared/measurements.jsonl"
    assert (two / f"evaluation {rows}").read_bytes() == (tmp_path / rows).read_bytes()


def test_one_continues_an_evaluation_that_two_began(two: Path, tmp_path: Path) -> None:
    log = two / "parts.log"
    began = measured(log)[5:]
    assert {rank for rank, _ in began} == {0, 1}
    log.unlink()
    ended, _ = run(evaluated_in_parts(str(log)), two / "parts")
    assert ended.facts["resumed_at"] == 8
    missing = sorted({f"item {number:03d}" for number in range(5)} - {item for _, item in began})
    assert [item for _, item in measured(log)] == missing + [f"item {number:03d}" for number in range(5)] * 2
    assert_close(ended, run(evaluated_in_parts(), tmp_path)[0])


def test_statistics_that_differ_are_those_of_the_weights_that_are_kept(two: Path, tmp_path: Path) -> None:
    folder = two / "own statistics"
    content = (folder / "weights.safetensors").read_bytes()
    kept = Weights(str(folder / "weights.safetensors"), hashlib.sha256(content).hexdigest())
    init = FromTrial(name="two", trial="two")
    alone, _ = run(analysis({"batch_norm": True}, init), tmp_path, parents={"two": kept})
    assert json.loads((two / "said-0.json").read_text())["own statistics"] == alone.figures


def test_a_rank_that_is_ready_waits_in_no_collective(two: Path, tmp_path: Path) -> None:
    zero, other = (json.loads((two / f"said-{rank}.json").read_text()) for rank in (0, 1))
    assert zero["waits"] == other["waits"] == run(analysis(), tmp_path)[0].figures
    assert zero["stops"] == ["item 000", "item 002", "item 004"]
    assert other["stops"] == ["item 001", "item 003"]


def test_no_rank_waits_for_one_that_failed(two: Path) -> None:
    zero, other = (json.loads((two / f"said-{rank}.json").read_text()) for rank in (0, 1))
    assert (zero["unreadable"], other["unreadable"]) == ("node_lost", "data")


def test_a_loss_over_the_batch_is_the_mean_of_the_workers_losses(two: Path, tmp_path: Path) -> None:
    """Each over its own share: the trial that two workers carry out cannot be had with one."""
    model = spread().task.build(spread().backbone, weights(two / "spread"))  # as it began: it learns nothing
    place: dict[str, Any] = {"input_size": (4, 4), "device": "cpu", "seed": spread().seed, "batch": 32, "world": 2}
    shares = [next(iter(spread().task.loaders(DataContext(tmp_path, rank=rank, **place)).epoch(0))) for rank in (0, 1)]
    whole = {name: torch.cat([share[name] for share in shares]) for name in shares[0]}
    first, second, all_ = (spread().task.loss(model, batch)["loss"].item() for batch in (*shares, whole))
    ((_, _, values),) = json.loads((two / "said-0.json").read_text())["spread"]
    assert values["train_loss"] == pytest.approx((first + second) / 2, rel=1e-6)
    assert abs(all_ - (first + second) / 2) > 1e-4


def test_a_batch_that_does_not_divide_among_the_workers_is_refused(tmp_path: Path) -> None:
    spec = trial(batch=9)
    place = RankContext(folder=tmp_path, data_root=tmp_path, world=2)
    with pytest.raises(ValueError, match="does not divide among 2 workers"):
        prepare(spec, place, Folder(tmp_path, spec.key, 0))


def test_an_optimizers_state_of_other_parameters_is_refused() -> None:
    """Else a resumed trial would go on with an optimizer that knows nothing of its past."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    state = whole_optimizer(model, optimizer, keep=True)
    load_optimizer(model, optimizer, state)
    wrong = {"encoder.weight": state["0.weight"], **state}
    with pytest.raises(ValueError, match=r"the optimizer's state is of other parameters: encoder.weight$"):
        load_optimizer(model, optimizer, wrong)
