"""LoRA: low-rank additions to the decoder's projections, in peft's file format and under the published names,
so that peft can load them on the official model, and ours can load peft's.

Our weights are merged (query, key and value are rows of one), the published ones are not: an adapter belongs to a
published projection and adds into its rows. The model's own parameters keep their names and their objects;
adapters are children of the Linear that they add to, so that FSDP, checkpoints and compile treat them as any
other parameter.

Letters: T tokens, R rank, I inputs, O outputs of a published projection.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bagel.checkpoint import pieces
from bagel.errors import InputError
from bagel.model.bagel import BagelModel

PROJECTIONS = ("q", "k", "v", "o", "gate", "up", "down")
EXPERTS = ("und", "gen")
_PLACE = re.compile(r"decoder\.layers\.\d+\.(und|gen)\.(?:qkv|o|mlp\.gate_up|mlp\.down)\.weight")


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """A kind of adapter, in peft's words.

    rank: R. alpha: the product of A and B counts alpha / rank times, with `rslora` alpha / sqrt(rank) times.
    dropout: on the input of A, in training only. experts: und, gen. projections: q, k, v, o, gate, up, down.

    Raises InputError for a value that cannot be.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    rslora: bool = False
    experts: tuple[str, ...] = EXPERTS
    projections: tuple[str, ...] = PROJECTIONS

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise InputError(f"lora rank is {self.rank}; it must be at least 1.")
        if not 0 <= self.dropout < 1:
            raise InputError(f"lora dropout is {self.dropout}; it must be in [0, 1).")
        for what, given, known in (
            ("experts", self.experts, EXPERTS),
            ("projections", self.projections, PROJECTIONS),
        ):
            unknown = [name for name in given if name not in known]
            if unknown or not given:
                raise InputError(f"lora {what} are {', '.join(given) or 'none'}; use some of {', '.join(known)}.")

    def scale(self) -> float:
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


class Place(NamedTuple):
    """A published projection in a model: its name without `.weight` (as in the official checkpoint), the
    Linear of ours that holds it, its rows there, and the expert's and its own short name."""

    published: str
    module: str
    start: int
    rows: int
    expert: str
    projection: str


def places(model: BagelModel) -> list[Place]:
    """Every projection that can carry an adapter. What both experts share counts as und's."""
    parameters = dict(model.named_parameters())
    found = []
    for published, piece in pieces(model).items():
        match = _PLACE.fullmatch(piece.parameter)
        if match:
            name = published.removesuffix(".weight")
            projection = name.rsplit(".", 1)[1].split("_", 1)[0]
            rows = piece.rows or len(parameters[piece.parameter])
            module = piece.parameter.removesuffix(".weight")
            found.append(Place(name, module, piece.start, rows, match[1], projection))
    return found


class Adapter(nn.Module):
    """scale x B A for one projection: A [R, I], B [O, R], float32 (as peft keeps them) whatever the base is in.
    `weight` scales it further, for stacking."""

    def __init__(self, place: Place, config: LoraConfig, inputs: int, device: torch.device) -> None:
        super().__init__()
        self.start, self.rows, self.published = place.start, place.rows, place.published
        self.config, self.weight = config, 1.0
        self.A = nn.Parameter(torch.empty(config.rank, inputs, dtype=torch.float32, device=device))
        self.B = nn.Parameter(torch.zeros(place.rows, config.rank, dtype=torch.float32, device=device))

    def reset(self, generator: torch.Generator) -> None:
        """A uniform as in peft (Kaiming, a = sqrt 5), B zero: a new adapter changes nothing."""
        bound = 1 / math.sqrt(self.A.shape[1])
        with torch.no_grad():
            self.A.copy_(torch.rand(self.A.shape, generator=generator) * (2 * bound) - bound)
            self.B.zero_()

    @property
    def scale(self) -> float:
        return self.config.scale() * self.weight

    def product(self) -> Tensor:
        """What it adds to the weight: float32 [O, I]."""
        return (self.B.float() @ self.A.float()) * self.scale


class LoraLinear(nn.Linear):
    """A Linear with adapters on some of its rows. Takes over weight and bias of the Linear it replaces.

    adapters: by name, then by projection. merged: the weight holds the adapters already.
    """

    adapters: nn.ModuleDict
    merged: bool

    @classmethod
    def over(cls, base: nn.Linear) -> LoraLinear:
        new = cls.__new__(cls)
        nn.Module.__init__(new)
        new.in_features, new.out_features = base.in_features, base.out_features
        new.weight, new.bias = base.weight, base.bias
        new.adapters, new.merged = nn.ModuleDict(), False
        return new.train(base.training)

    def plain(self) -> nn.Linear:
        """The Linear as it was before, sharing weight and bias."""
        base = nn.Linear.__new__(nn.Linear)
        nn.Module.__init__(base)
        base.in_features, base.out_features = self.in_features, self.out_features
        base.weight, base.bias = self.weight, self.bias
        return base.train(self.training)

    def groups(self) -> Iterator[list[Adapter]]:
        """The adapters of one name at a time, by rows."""
        for group in self.adapters.values():
            yield sorted(cast("list[Adapter]", list(cast(nn.ModuleDict, group).values())), key=lambda a: a.start)

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.weight, self.bias)
        adapters = [adapter for group in self.groups() for adapter in group]
        if self.merged or not adapters:
            return y
        return y + F.linear(self._narrow(x, adapters), self._wide(adapters, x.dtype))

    def _narrow(self, x: Tensor, adapters: Sequence[Adapter]) -> Tensor:
        """A x of every adapter side by side, [T, all R]: one product, but where dropout draws for each, as in peft."""
        if self.training and any(adapter.config.dropout for adapter in adapters):
            return torch.cat([F.linear(F.dropout(x, a.config.dropout), a.A.to(x.dtype)) for a in adapters], dim=-1)
        return F.linear(x, torch.cat([adapter.A for adapter in adapters]).to(x.dtype))

    def _wide(self, adapters: Sequence[Adapter], dtype: torch.dtype) -> Tensor:
        """All scaled B's as one [O, all R], each in its rows and columns: a second product over the whole width costs
        less than to write every part, join and add them."""
        parts = [
            F.pad(adapter.B * adapter.scale, (0, 0, adapter.start, self.out_features - adapter.start - adapter.rows))
            for adapter in adapters
        ]
        return torch.cat(parts, dim=1).to(dtype)

    @torch.no_grad()
    def add_to(self, weight: Tensor, sign: float = 1.0) -> Tensor:
        """Adds (+1) or takes away (-1) all adapters, summed in float32 and rounded once; -> the weight."""
        total: dict[tuple[int, int], Tensor] = {}
        for group in self.groups():
            for adapter in group:
                span = adapter.start, adapter.start + adapter.rows
                total[span] = total.get(span, torch.zeros((), device=self.weight.device)) + adapter.product()
        for (start, end), change in total.items():
            rows = weight[start:end]
            rows.copy_((rows.float() + sign * change).to(rows.dtype))
        return weight


# --- on a model ------------------------------------------------------------------------------------------


def attach(model: BagelModel, config: LoraConfig, name: str = "default", seed: int = 0) -> list[nn.Parameter]:
    """Adds new adapters and freezes everything else; returns their parameters, for the optimiser.

    Raises InputError if the name is taken, or the choice fits nothing in this model (`gen` of a dense one).
    """
    chosen = [p for p in places(model) if p.expert in config.experts and p.projection in config.projections]
    if not chosen:
        raise InputError(
            f"lora on experts {', '.join(config.experts)}, projections {', '.join(config.projections)} fits nothing in "
            f"a model of {model.config.llm.layers.value} layers."
        )
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    adapters = place(model, dict.fromkeys(chosen, config), name)
    for adapter in adapters:
        if adapter.A.device.type != "meta":
            adapter.reset(generator)
        adapter.requires_grad_(True)
    return [parameter for adapter in adapters for parameter in adapter.parameters()]


def place(model: BagelModel, chosen: dict[Place, LoraConfig], name: str) -> list[Adapter]:
    """Puts adapters named `name` where they belong, values not set; frozen."""
    key = re.sub(r"\W", "_", name)
    by_module: dict[str, list[Place]] = defaultdict(list)
    for where in chosen:
        by_module[where.module].append(where)
    made: list[Adapter] = []
    for path, group in by_module.items():
        linear = _as_lora(model, path)
        if key in linear.adapters:
            raise InputError(f"the model has an adapter named {name!r} already; give another name.")
        if linear.merged:
            raise InputError("the adapters are merged; unmerge them before adding another.")
        new = {w.projection: Adapter(w, chosen[w], linear.in_features, linear.weight.device) for w in group}
        linear.adapters[key] = nn.ModuleDict(new).requires_grad_(False).train(linear.training)
        made += new.values()
    return made


def _as_lora(model: BagelModel, path: str) -> LoraLinear:
    """The Linear at a path, replaced (wherever it is shared) if it carries no adapters yet."""
    old = model.get_submodule(path)
    if isinstance(old, LoraLinear):
        return old
    if not isinstance(old, nn.Linear):
        raise InputError(f"{path} is a {type(old).__name__}, which takes no adapter; load lora before quantising.")
    new = LoraLinear.over(old)
    _replace(model, old, new)
    return new


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for parent in list(model.modules()):
        for key, child in parent._modules.items():
            if child is old:
                parent._modules[key] = new


def layers(model: nn.Module) -> list[LoraLinear]:
    """All Linears that carry adapters."""
    return [module for module in model.modules() if isinstance(module, LoraLinear)]


def adapters(model: nn.Module, name: str | None = None) -> list[Adapter]:
    """All adapters, or those of a name."""
    key = name and re.sub(r"\W", "_", name)
    return [
        cast(Adapter, adapter)
        for linear in layers(model)
        for group_name, group in linear.adapters.items()
        if key is None or group_name == key
        for adapter in cast(nn.ModuleDict, group).values()
    ]


def set_weight(model: nn.Module, name: str, weight: float) -> None:
    """How much the adapters of a name count; 0 turns them off. Raises InputError for an unknown name, or while
    they are merged."""
    found = adapters(model, name)
    if not found:
        raise InputError(f"the model has no adapter named {name!r}.")
    if any(linear.merged for linear in layers(model)):
        raise InputError("the adapters are merged; unmerge them before changing their weight.")
    for adapter in found:
        adapter.weight = weight


def merge(model: nn.Module) -> None:
    """Adds all adapters into the weights: the same answers (to rounding) at the base's speed."""
    for linear in layers(model):
        if not linear.merged:
            linear.add_to(linear.weight)
            linear.merged = True


def unmerge(model: nn.Module) -> None:
    """Takes merged adapters out again: exact to rounding in the weights' dtype (bf16 may differ in the last bit;
    for exactly the old weights load the base anew)."""
    for linear in layers(model):
        if linear.merged:
            linear.add_to(linear.weight, -1.0)
            linear.merged = False


def merged_weights(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the weights that carry adapters, with these added; the model stays as it is."""
    return {
        f"{name}.weight": module.add_to(module.weight.detach().clone())
        for name, module in model.named_modules()
        if isinstance(module, LoraLinear) and not module.merged
    }


def remove(model: nn.Module) -> None:
    """Forgets all adapters; what is merged stays in the weights. Afterwards the model is plain again."""
    for linear in layers(model):
        _replace(model, linear, linear.plain())
