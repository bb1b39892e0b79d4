"""A pass whose latent tokens several ranks share out. Each takes an equal run of them through the layers; before
attention the ranks exchange the keys and values of their runs, which with few key heads is little (8 MiB a layer
for a picture of 1024 x 1024 at 7B), so that every rank's contexts are whole. Text and ViT tokens are computed by
every rank.

Letters: G latent tokens, C of a run, M key/value heads, H head width, D model width.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from bagel.model.attention import QKV, Attend
from bagel.model.decoder import Angles, one_by_one


class Restricted(Protocol):
    """Attention that can be told that the latent queries it is given are a run of all; keys and values are not."""

    def restrict(self, rows: slice) -> Attend: ...


class SharedRows:
    """The way through the layers for one rank of a group (see `Decoder.through`)."""

    def __init__(self, group: Any, index: int, count: int) -> None:
        self.group, self.index, self.count = group, index, count

    def __call__(
        self,
        layers: Iterable[nn.Module],
        und: Tensor,
        gen: Tensor,
        und_angles: Angles,
        gen_angles: Angles,
        attend: Attend,
    ) -> tuple[Tensor, Tensor]:
        total = len(gen)
        if not total:
            return one_by_one(layers, und, gen, und_angles, gen_angles, attend)
        run = -(-total // self.count)
        rows = slice(min(self.index * run, total), min((self.index + 1) * run, total))
        inner = cast(Restricted, attend).restrict(rows)

        def exchanging(layer: int, und: QKV, gen: QKV) -> tuple[Tensor, Tensor]:
            k, v = self._joined(torch.stack((gen.k, gen.v), dim=1), run, total).unbind(1)
            return inner(layer, und, QKV(gen.q, k, v))

        cos, sin = gen_angles
        und, gen = one_by_one(layers, und, gen[rows], und_angles, (cos[rows], sin[rows]), exchanging)
        return und, self._joined(gen, run, total)

    def _joined(self, x: Tensor, run: int, total: int) -> Tensor:
        """Everyone's rows, in order: [C, ...] -> [G, ...]. The last runs may be shorter."""
        if len(x) < run:
            x = torch.cat((x, x.new_zeros(run - len(x), *x.shape[1:])))
        out = x.new_empty(self.count * run, *x.shape[1:])
        gather_into(out, x.contiguous(), self.group)
        return out[:total]


def gather_into(out: Tensor, x: Tensor, group: Any = None) -> None:
    """Everyone's x, one behind the other, into `out`."""
    import torch.distributed as dist

    # The older of two names for one thing; newer versions warn of it.
    gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    gather(out, x, group=group)
