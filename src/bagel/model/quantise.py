"""Modules whose weights are kept in fewer bits, and how they take the place of the plain ones.

`bf11`, `fp8`, `int8` and `nf4` say how the decoder's products are kept (see `bagel.model.bf11`, `fp8` and `packed`);
with `bf11` the head is kept so too, with `int8` and `nf4` the embedding table and the head in int8. Everything else
stays in the numbers that the model computes in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bagel.model.bf11 import Bf11Weight, quantise_bf11
from bagel.model.fp8 import Fp8Linear
from bagel.model.packed import Int8Weight, Nf4Weight, quantise_int8, quantise_nf4

Packed = Int8Weight | Nf4Weight | Bf11Weight
_PACK: dict[str, Callable[[Tensor], Packed]] = {"bf11": quantise_bf11, "int8": quantise_int8, "nf4": quantise_nf4}
_NAMES = {Bf11Weight: "bf11", Int8Weight: "int8", Nf4Weight: "nf4"}
QUANTISED = ("bf11", "fp8", "int8", "nf4")


class _Holder(nn.Module):
    """A packed weight as buffers named as its fields."""

    def __init__(self, weight: Packed) -> None:
        super().__init__()
        self.kind: Any = type(weight)
        self.inputs = weight.values.shape[1] if isinstance(weight, Int8Weight) else weight.inputs
        for name, value in weight._asdict().items():
            if isinstance(value, Tensor):
                self.register_buffer(name, value)

    @property
    def weight(self) -> Packed:
        return self.kind(*(getattr(self, name) for name in self.kind._fields))


class PackedLinear(_Holder):
    """x W^T + bias with a packed weight."""

    def __init__(self, weight: Packed, bias: nn.Parameter | None) -> None:
        super().__init__(weight)
        self.bias = bias
        self.in_features, self.out_features = self.inputs, len(weight)

    def forward(self, x: Tensor) -> Tensor:
        from bagel.model.kernels import linear

        return linear(x, self.weight, self.bias)


class PackedEmbedding(_Holder):
    """Rows of an int8 table, in the numbers that the model computes in."""

    def __init__(self, weight: Int8Weight, dtype: torch.dtype) -> None:
        super().__init__(weight)
        self.dtype = dtype

    def forward(self, ids: Tensor) -> Tensor:
        values, scale = self.values[ids], self.scale[ids]  # type: ignore[index]
        return (values.float() * scale[..., None]).to(self.dtype)


def is_quantised(model: Any, owner: nn.Module, precision: str) -> bool:
    """Whether a module of a BagelModel is kept in fewer bits at this precision."""
    if owner is model.lm_head and precision != "fp8":
        return isinstance(owner, nn.Linear)
    if owner is model.embed:
        return isinstance(owner, nn.Embedding) and precision in ("int8", "nf4")
    return isinstance(owner, nn.Linear) and id(owner) in _decoder_linears(model.decoder)


def quantised(model: Any, owner: nn.Module, precision: str) -> nn.Module | None:
    """What is to stand for a module that is whole now; None for one that stays as it is."""
    if not is_quantised(model, owner, precision):
        return None
    weight: Tensor = owner.weight.detach()  # type: ignore[operator]
    if owner is model.embed:
        return PackedEmbedding(quantise_int8(weight), weight.dtype)
    if precision == "fp8":
        return Fp8Linear(owner)  # type: ignore[arg-type]
    pack = quantise_int8 if owner is model.lm_head and precision == "nf4" else _PACK[precision]
    return PackedLinear(pack(weight), owner.bias)  # type: ignore[arg-type]


def _decoder_linears(decoder: Any) -> set[int]:
    """Ids of the decoder's Linears, of a layer at a time: an expert has a handful of children."""
    experts = [expert for block in decoder.layers for expert in (block.und, block.gen)]
    return {id(linear) for e in experts for linear in (e.qkv, e.o, e.mlp.gate_up, e.mlp.down)}


def precision_of(model: Any) -> str | None:
    """What a model was quantised to, if it was."""
    for module in model.decoder.modules():
        if isinstance(module, Fp8Linear):
            return "fp8"
        if isinstance(module, PackedLinear):
            return _NAMES[module.kind]
    return None


def replace_module(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Puts a module in the place of another, in every place where experts share it."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if child is old:
                setattr(parent, name, new)


def quantise(model: nn.Module, precision: str) -> None:
    """A loaded model's weights to `precision`, one by one."""
    for owner in list(model.modules()):
        new = quantised(model, owner, precision)
        if new is not None:
            replace_module(model, owner, new)
