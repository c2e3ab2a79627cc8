"""Distributes a model over several worker processes (DDP, FSDP2), and gathers it again for checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from tasks.backbones.frozen import is_frozen, mark_frozen
from workers.trial import RuntimeSpec

T = TypeVar("T")


def convert_batch_norm(model: nn.Module, runtime: RuntimeSpec, world: int, device: torch.device) -> nn.Module:
    """The model with batch norm as `runtime.sync_batchnorm` asks for; parameters and names stay, and so does frozen
    batch norm, whose statistics never change.

    Raises ValueError for a model with batch norm when that field is not set: each worker would normalise with the
    statistics of its own share, so the result would depend on the number of workers, which is not part of a trial.
    """
    still = {part for module in model.modules() if is_frozen(module) for part in module.modules()}
    layers = {
        name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm) and module not in still
    }
    if world == 1 or not layers:
        return model
    if runtime.sync_batchnorm is None:
        raise ValueError(
            f"the model has {len(layers)} batch norm layers ({next(iter(layers))}, ..) and {world} workers: set "
            "runtime.sync_batchnorm to true (statistics over all workers, as with one), or to false (each worker's "
            "own: the result then depends on the number of workers)"
        )
    if not runtime.sync_batchnorm:
        return model
    from timm.layers import BatchNormAct2d, convert_sync_batchnorm

    known = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, BatchNormAct2d)
    for name, module in layers.items():
        if type(module) not in known:
            raise ValueError(
                f"runtime.sync_batchnorm: {name} is a {type(module).__name__}, which cannot be made to use statistics "
                "of all workers; set it to false, or use one worker"
            )
        if device.type != "cuda":
            module.__class__ = _SummedBatchNorm
    if device.type != "cuda":
        return model
    frozen = [name for name, module in model.named_modules() if is_frozen(module)]
    # torch's own conversion would drop the activation that timm's layer has inside
    converted = cast("nn.Module", convert_sync_batchnorm(model))
    mark_frozen(converted, frozen)  # it makes new layers
    return converted


class _SummedBatchNorm(_BatchNorm):
    """nn.SyncBatchNorm for devices that torch's own refuses: statistics are two sums over all workers.

    Replaces the class of a layer, also of timm's with an activation inside.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        output = self._normalized(input) if self.training else super().forward(input)
        for after in ("drop", "act"):  # of timm's BatchNormAct2d
            if (module := getattr(self, after, None)) is not None:
                output = module(output)
        return output

    def _check_input_dim(self, input: torch.Tensor) -> None:
        """Checks nothing: the class that this one replaces took fixed dimensions."""

    def _normalized(self, input: torch.Tensor) -> torch.Tensor:
        dims = [0, *range(2, input.ndim)]
        shape = [1, -1] + [1] * (input.ndim - 2)
        count = dist.get_world_size() * (input.numel() // input.shape[1])
        mean = _summed(input.sum(dims)) / count
        centred = input - mean.view(shape)
        variance = _summed(centred.square().sum(dims)) / count
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            with torch.no_grad():
                self.num_batches_tracked += 1
                share = self.momentum if self.momentum is not None else 1 / self.num_batches_tracked.item()
                self.running_mean.lerp_(mean, share)
                self.running_var.lerp_(variance * (count / (count - 1)), share)
        output = centred * (variance + self.eps).rsqrt().view(shape)
        return output * self.weight.view(shape) + self.bias.view(shape) if self.affine else output


class _Sum(torch.autograd.Function):
    """A sum over all workers; its gradient is the sum of the workers' gradients."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
        total = value.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


def _summed(value: torch.Tensor) -> torch.Tensor:
    return cast("torch.Tensor", _Sum.apply(value))


def running_statistics(model: nn.Module) -> list[torch.Tensor]:
    """Buffers that a forward pass in training moves: those of batch norm."""
    normed = (module for module in model.modules() if getattr(module, "track_running_stats", False))
    return [buffer for module in normed for buffer in module.buffers(recurse=False)]


def share_statistics(model: nn.Module, world: int) -> None:
    """Gives every rank the running statistics of rank 0, whose model is the one that is kept. They differ where batch
    norm is each worker's own."""
    if world > 1:
        for buffer in running_statistics(model):
            dist.broadcast(buffer, src=0)


def wrap_distributed(model: nn.Module, how: str, device: torch.device) -> nn.Module:
    """The model for training on several workers, each with its share of the global batch: `ddp` wraps it, `fsdp` gives
    each worker a shard of every parameter (in place: create the optimizer after this). Needs a process group.

    Raises ValueError when the model cannot be sharded.
    """
    if how == "ddp":
        return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)
    scalars = [name for name, parameter in model.named_parameters() if parameter.ndim == 0]
    if scalars:
        raise ValueError(
            f"runtime.parallel fsdp shards the first dimension of every parameter, and {scalars[0]} has none; use ddp"
        )
    mesh = dist.device_mesh.init_device_mesh(device.type, (dist.get_world_size(),))
    for block in _blocks(model):
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    # the root too: whole parameters that remained after an evaluation would be mistaken for the shards
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    return model


def _blocks(model: nn.Module) -> Iterator[nn.Module]:
    """The innermost repeated parts of a network: members of a list or sequence in which all are of one class."""

    def repeats(module: nn.Module) -> bool:
        members = list(module.children())
        return isinstance(module, (nn.ModuleList, nn.Sequential)) and bool(members) and (
            # a single layer is too small to be fetched on its own
            len({type(member) for member in members}) == 1 and any(True for _ in members[0].children())
            and any(True for _ in members[0].parameters())
        )  # fmt: skip

    for module in model.modules():
        if repeats(module):
            for member in module.children():
                if not any(repeats(part) for part in member.modules()):
                    yield member


def is_sharded(model: nn.Module) -> bool:
    return isinstance(model, FSDPModule)


def needs_all_ranks_in_forward(model: nn.Module) -> bool:
    """True if a forward pass needs all workers, so that one that runs out of memory keeps the others waiting."""
    together = (nn.SyncBatchNorm, _SummedBatchNorm)
    return is_sharded(model) or any(isinstance(module, together) for module in model.modules())


def exchange(wrapped: nn.Module, now: bool) -> AbstractContextManager[Any]:
    """With `now`, the backward pass inside averages the gradients over the workers; else DDP waits with it.

    Shards are averaged in every pass: to keep whole gradients until the last would need the memory that sharding saves.
    """
    if isinstance(wrapped, DistributedDataParallel) and not now:
        return wrapped.no_sync()
    return nullcontext()


def average_gradients(model: nn.Module) -> None:
    """Averages the gradients over the workers, where no backward pass did; for a model that is not sharded."""
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad /= dist.get_world_size()
            dist.all_reduce(parameter.grad)


def clip(parameters: Sequence[nn.Parameter], limit: float) -> torch.Tensor:
    """Scales the gradient of all parameters down to an L2 norm of `limit` (0: does not), and returns its norm before
    that."""
    gradients = [gradient for parameter in parameters if (gradient := parameter.grad) is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    if limit > 0:
        torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    return norm


def all_finite(model: nn.Module) -> bool:
    """True if every weight is finite, those of other workers' shards included; the same on every rank."""
    own = [local(weight.detach()) for weight in model.parameters()]
    if not own:
        return True
    bad = torch.stack([(~torch.isfinite(weight)).any() for weight in own]).any().float()
    if is_sharded(model):
        dist.all_reduce(bad)
    return bad.item() == 0


def local(tensor: torch.Tensor) -> torch.Tensor:
    """The part of a tensor that this worker has, sharing its memory; all of it where there are no shards."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


GROUP_STEP = "step of the group"
"""In the state of a parameter: the steps that timm's Lamb counts for its group."""

# Checkpoints and weights hold whole tensors by the model's own names, whatever the number of workers.


def whole_weights(model: nn.Module, keep: bool) -> dict[str, torch.Tensor]:
    """The model's whole state dict (of shards: on the CPU), on ranks with `keep`; every rank must call."""
    return whole_tensors(model.state_dict(), keep)


def whole_tensors(tensors: Mapping[str, torch.Tensor], keep: bool) -> dict[str, torch.Tensor]:
    """The tensors, whole (those of shards on the CPU), on ranks with `keep`; every rank must call."""
    return _kept({name: _whole(value, keep) for name, value in tensors.items()}, keep)


def whole_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, keep: bool) -> dict[str, dict[str, Any]]:
    """The optimizer's whole state by name of the parameter; as `whole_weights`.

    By name, so that it also fits when parameters are grouped in another way.
    """
    states = {}
    of_groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        state = optimizer.state.get(parameter)
        if state:
            states[name] = {what: _whole(value, keep) for what, value in state.items()}
            if "step" in of_groups[id(parameter)]:
                states[name][GROUP_STEP] = int(of_groups[id(parameter)]["step"])
    return _kept(states, keep)


def load_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, dict[str, Any]]) -> None:
    """Gives the optimizer a state as `whole_optimizer` returns it; learning rates and other settings stay its own.

    Raises ValueError when the state is of other parameters.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    order = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    unknown = set(state) - {names[id(parameter)] for parameter in order}
    if unknown:
        raise ValueError(f"the optimizer's state is of other parameters: {', '.join(sorted(unknown)[:4])}")
    steps = {name: of_name.get(GROUP_STEP) for name, of_name in state.items()}
    state = {name: {what: v for what, v in own.items() if what != GROUP_STEP} for name, own in state.items()}
    plain = optimizer.state_dict()
    plain["state"] = {
        number: {what: like(value, parameter) for what, value in state[names[id(parameter)]].items()}
        for number, parameter in enumerate(order)
        if names[id(parameter)] in state
    }
    optimizer.load_state_dict(plain)
    for group in optimizer.param_groups:
        known = [steps[names[id(parameter)]] for parameter in group["params"] if names[id(parameter)] in steps]
        if known and known[0] is not None:
            group["step"] = torch.tensor(float(known[0]))


def _whole(value: Any, keep: bool) -> Any:
    if not isinstance(value, DTensor):
        return value
    whole = value.full_tensor()  # one at a time: no worker holds the whole model on its device
    return whole.cpu() if keep else None


def _kept(values: dict[str, T], keep: bool) -> dict[str, T]:
    return values if keep else {}


def like(value: Any, parameter: torch.Tensor) -> Any:
    """This worker's shard of a whole tensor, where the parameter is in shards."""
    if not (isinstance(parameter, DTensor) and isinstance(value, torch.Tensor) and value.shape == parameter.shape):
        return value
    # every worker has the whole tensor, so nothing is sent
    whole = value.to(parameter.device)
    return distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=None)


def from_rank_0(world: int, rank: int, ask: Callable[[], T]) -> T:
    """Calls `ask` on rank 0 alone, and returns its result on every rank."""
    if world == 1:
        return ask()
    answer = [ask() if rank == 0 else None]
    dist.broadcast_object_list(answer, src=0)
    return answer[0]  # type: ignore[return-value]


def gathered(world: int, rank: int, own: T) -> list[T]:
    """Every rank's `own`, in order, on rank 0; nothing on the others."""
    if world == 1:
        return [own]
    of_ranks: list[Any] | None = [None] * world if rank == 0 else None
    dist.gather_object(own, of_ranks)
    return of_ranks or []


def greatest(world: int, own: int, device: torch.device) -> int:
    """The greatest value of all ranks; every rank must call."""
    if world == 1:
        return own
    value = torch.tensor(own, device=device)
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return int(value.item())


def on_any_rank(world: int, own: bool, device: torch.device) -> bool:
    """True if `own` is true on any rank; every rank must call."""
    return greatest(world, int(own), device) > 0
