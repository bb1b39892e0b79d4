"""Parallelism, applied to the model from outside, in this order: recomputation, compilation, sharding.

Any number of ranks: one process alone needs no process group; under torchrun FSDP2 shards every block, and
with `shard` below the number of ranks the shards are copied between groups (hybrid).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, partial
from types import FunctionType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from bagel.devices import DTYPES, pick_device
from bagel.errors import InputError
from bagel.model.bagel import BagelModel
from bagel.train.config import ParallelPart


@dataclass(frozen=True)
class World:
    """This process among all. `mesh`: None where nothing is sharded."""

    rank: int
    size: int
    device: torch.device
    mesh: Any = None

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Sums of plain numbers over all ranks, without touching a GPU."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        return list(total.tolist())

    def gather(self, value: Any) -> list[Any]:
        """Everyone's plain value, by rank, on every rank."""
        if self.size == 1:
            return [value]
        everyone: list[Any] = [None] * self.size
        dist.all_gather_object(everyone, value)
        return everyone

    def wait(self) -> None:
        if self.size > 1:
            dist.barrier()


def start(part: ParallelPart, device: str = "auto") -> World:
    """Joins the process group if torchrun started this process. Raises InputError for settings that do not fit
    the number of ranks."""
    size, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    if device in ("auto", "cuda") and torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        torch.set_float32_matmul_precision("high")
    where = pick_device(device)
    if where.type == "cuda" and where.index is None:
        where = torch.device("cuda", torch.cuda.current_device())
    casts = where.type == "cuda" and part.params != _compute_name(part, where)
    if size == 1 and not casts:
        return World(rank, size, where)
    timeout = timedelta(minutes=part.timeout_minutes)
    backend = "cpu:gloo,cuda:nccl" if where.type == "cuda" else "gloo"
    alone: dict[str, Any] = {"store": dist.HashStore(), "rank": 0, "world_size": 1} if size == 1 else {}
    dist.init_process_group(backend, timeout=timeout, **alone)
    return World(rank, size, where, _mesh(part.shard or size, size, where))


def stop(world: World) -> None:
    if world.mesh is not None and dist.is_initialized():
        dist.destroy_process_group()


def _mesh(shard: int, size: int, device: torch.device) -> Any:
    if size % shard:
        raise InputError(f"parallel.shard is {shard}, but {size} ranks cannot be split so; use a divisor of {size}.")
    if shard == size:
        return dist.init_device_mesh(device.type, (size,), mesh_dim_names=("shard",))
    return dist.init_device_mesh(device.type, (size // shard, shard), mesh_dim_names=("copy", "shard"))


def params_dtype(part: ParallelPart) -> torch.dtype:
    return DTYPES[part.params]


def compute_dtype(part: ParallelPart, device: torch.device) -> torch.dtype:
    return DTYPES[_compute_name(part, device)]


def is_compiled(part: ParallelPart, device: torch.device) -> bool:
    return part.compile == "on" or (part.compile == "auto" and device.type == "cuda")


def _compute_name(part: ParallelPart, device: torch.device) -> str:
    if part.compute != "auto":
        return part.compute
    return part.params if device.type == "cpu" else "bf16"


def apply(model: BagelModel, part: ParallelPart, world: World) -> None:
    """Recomputation, compilation and sharding of a model on the meta device (or any other)."""
    compute = compute_dtype(part, world.device)
    if world.mesh is None and compute != params_dtype(part):
        raise InputError(f"parallel.compute {part.compute} needs parallel.params of the same kind on one CPU.")
    compiled = is_compiled(part, world.device)
    if compiled:
        _expect_varied_packs()
    for number, block in enumerate(model.decoder.layers):
        _wrap(block, _recompute_of(number, part), compiled, 2 * model.config.llm.intermediate_size)
    for number, block in enumerate(model.vit.layers):
        _wrap(block, _recompute_of(number, part), compiled, model.config.vit.intermediate_size)
    model.compute_dtype = compute
    if world.mesh is not None:
        _shard(model, part, world, compute)


def _expect_varied_packs() -> None:
    """Sets the compiler of this process. Equal lengths are chance in one pack and differ in the next, so no graph may
    count on them. A kind of block has the more graphs: at most those with and without pictures or latents, each for
    the first layer, into which no gradient may go, the last, which gives the rows that are read, and the others, and
    twice that with two ways of recomputation."""
    import torch._dynamo.config as dynamo
    import torch.fx.experimental._config as symbols

    limit = "recompile_limit" if hasattr(dynamo, "recompile_limit") else "cache_size_limit"
    setattr(dynamo, limit, 16)
    if hasattr(symbols, "use_duck_shape"):  # not in PyTorch before 2.6
        symbols.use_duck_shape = False


def _recompute_of(layer: int, part: ParallelPart) -> str:
    """Layers that are passed over keep their products: what they compute again besides costs next to nothing."""
    if part.recompute == "none" or layer % part.recompute_every == 0:
        return part.recompute
    return "products"


def _wrap(block: nn.Module, recompute: str, compiled: bool, widest: int) -> None:
    """Replaces `forward` on the instance: names of parameters and the hooks of FSDP stay as they are. All
    blocks of a kind share one code object, hence their compiled graphs."""
    if recompute == "full":
        block.forward = _of_kind(_recomputed, type(block).__name__).__get__(block)
    elif recompute in ("mlp", "products"):
        # Made here, since the compiler does not trace a lambda as a context.
        limit = widest if recompute == "mlp" else widest + 1
        contexts = partial(create_selective_checkpoint_contexts, _keep_below(limit))
        block.contexts = contexts  # type: ignore[assignment]
        block.forward = _of_kind(_partly_recomputed, type(block).__name__).__get__(block)
    if compiled:
        block.forward = torch.compile(block.forward, dynamic=True, fullgraph=True, options=_unchecked())


def _unchecked() -> dict[str, Any] | None:
    """Spares each call to check that functions and modules of Python are the ones that were compiled: a third of all
    checks, and a run never changes them."""
    skip = getattr(torch.compiler, "skip_guard_on_globals_unsafe", None)
    return {"guard_filter_fn": skip} if skip else None


@cache
def _of_kind(forward: Any, kind: str) -> FunctionType:
    """With a code object of its own: the compiler counts graphs by code object, and looks through all of them at
    each call."""
    code = forward.__code__.replace(co_name=f"{forward.__name__}_{kind}")
    return FunctionType(code, forward.__globals__)


def _recomputed(self: nn.Module, *args: Any) -> Any:
    """Keeps a block's inputs alone."""
    return checkpoint(type(self).forward, self, *args, use_reentrant=False)


def _partly_recomputed(self: Any, *args: Any) -> Any:
    """Keeps attention and the products, but the cheap ones and for `mlp` the widest; computes the rest again."""
    return checkpoint(type(self).forward, self, *args, use_reentrant=False, context_fn=self.contexts)


_PRODUCTS = (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)
_ATTENTION = tuple(
    getattr(torch.ops.aten, name).default
    for name in (
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
    )
    if hasattr(torch.ops.aten, name)
)


_CHEAP = 256
"""Inputs of a product below which its output is computed again, not kept: an adapter's second one."""


def _keep_below(width: int) -> Callable[..., CheckpointPolicy]:
    from torch._higher_order_ops.flex_attention import flex_attention

    kept = (*_ATTENTION, flex_attention, torch.ops.bagel.run_attention.default)

    def policy(context: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
        if op in kept:
            return CheckpointPolicy.MUST_SAVE
        if op in _PRODUCTS and args[-1].shape[-1] < width and args[-1].shape[0] >= _CHEAP:
            return CheckpointPolicy.MUST_SAVE
        return CheckpointPolicy.PREFER_RECOMPUTE

    return policy


def _shard(model: BagelModel, part: ParallelPart, world: World, compute: torch.dtype) -> None:
    """FSDP2. Embeddings, heads and the small parts form the root's own group, gathered once a step: the heads
    are used after the root's forward has ended."""
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    policy = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=DTYPES[part.reduce], cast_forward_inputs=False)
    several = world.size > 1
    for block in (*model.vit.layers, *model.decoder.layers):
        fully_shard(block, mesh=world.mesh, mp_policy=policy, reshard_after_forward=part.reshard and several)
    fully_shard(model, mesh=world.mesh, mp_policy=policy, reshard_after_forward=False)


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a parameter; the tensor itself where nothing is sharded."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def local_rows(tensor: Tensor) -> slice:
    """Which rows of the whole parameter `local` holds (FSDP2 shards rows in equal chunks, the last ones
    shorter)."""
    if not hasattr(tensor, "to_local"):
        return slice(0, len(tensor))
    mesh = tensor.device_mesh  # type: ignore[attr-defined]
    axis = mesh.ndim - 1
    chunk = -(-len(tensor) // mesh.size(axis))
    first = min(mesh.get_local_rank(axis) * chunk, len(tensor))
    return slice(first, min(first + chunk, len(tensor)))


def whole(tensor: Tensor) -> Tensor:
    """The full value of a sharded number or tensor (all ranks must call)."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


@contextmanager
def for_sampling(model: BagelModel) -> Iterator[None]:
    """Blocks as they are without recomputation and compilation (a cache is another thing to attend to), and
    gathered weights given back at the end, since nothing else does that where no backward follows."""
    blocks = (*model.vit.layers, *model.decoder.layers)
    wrapped = {block: block.__dict__.pop("forward") for block in blocks if "forward" in block.__dict__}
    model.eval()
    try:
        yield
    finally:
        model.train()
        for block, forward in wrapped.items():
            block.forward = forward
        for module in model.modules():
            if hasattr(module, "reshard"):
                module.reshard()  # type: ignore[operator]
