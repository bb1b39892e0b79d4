"""What is trained and what is not."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

from torch import Tensor, nn

from bagel.errors import InputError
from bagel.model.attention import QKV, Attend
from bagel.model.bagel import BagelModel
from bagel.model.config import Layers
from bagel.train.config import FreezePart

_PARTS = {
    "llm": r"(decoder|embed|lm_head)\b.*",
    "vit": r"vit\..*",
    "und": r"(decoder\.layers\.\d+\.und\.|decoder\.und_norm|embed|connector|vit)\b.*",
    "gen": r"(decoder\.layers\.\d+\.gen\.|decoder\.gen_norm|latent_in|latent_out|time)\b.*",
    "connector": r"connector\..*",
}
"""Parameters of each flag; a parameter that both experts share is und's."""


def freeze(model: BagelModel, part: FreezePart) -> None:
    """Sets `requires_grad` of every parameter. Raises InputError for a flag that changes nothing and for
    flags that leave nothing to train."""
    flags = [f.name for f in dataclasses.fields(part) if getattr(part, f.name)]
    dense = model.config.llm.layers is Layers.DENSE
    if part.und and dense:
        raise InputError("freeze.und: a dense model has one expert for all tokens; use freeze.llm.")
    names = [name for name, _ in model.named_parameters()]
    frozen = {flag: {name for name in names if re.fullmatch(_PARTS[flag], name)} for flag in flags}
    for flag in flags:
        others = set().union(*(frozen[other] for other in flags if other != flag))
        if frozen[flag] <= others:
            covering = ", ".join(f"freeze.{other}" for other in flags if other != flag and frozen[other] & frozen[flag])
            raise InputError(f"freeze.{flag} does nothing beside {covering or 'this model'}; leave it out.")
    all_frozen = set().union(*frozen.values()) if frozen else set()
    if len(all_frozen) == len(names):
        raise InputError(f"{', '.join('freeze.' + flag for flag in flags)}: nothing is left to train.")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in all_frozen)


class UndFrozen:
    """Attention with the und stream cut off from the gradient, as upstream's `freeze_und`: und tokens are
    read, and nothing is learnt through them."""

    def __init__(self, attend: Attend) -> None:
        self.attend = attend

    def __call__(self, layer: int, und: QKV, gen: QKV) -> tuple[Tensor, Tensor]:
        und_seen, gen_seen = self.attend(layer, QKV(*(x.detach() for x in und)), gen)
        return und_seen.detach(), gen_seen


def table(model: nn.Module) -> Iterator[tuple[str, int, int]]:
    """(part, trained numbers, all numbers) of the model, for the start of the log."""
    trained: dict[str, int] = {}
    total: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        part = re.sub(r"^decoder\.layers\.\d+\.(und|gen)\..*|^decoder\.(und|gen)_norm.*", _expert, name)
        part = part if part.startswith("decoder ") else part.split(".")[0]
        total[part] = total.get(part, 0) + parameter.numel()
        trained[part] = trained.get(part, 0) + parameter.numel() * parameter.requires_grad
    for part, count in total.items():
        yield part, trained[part], count


def _expert(match: re.Match[str]) -> str:
    return f"decoder {match[1] or match[2]}"
