"""SigLIP as a NaViT: pictures of any size, packed one after the other (upstream
`modeling/bagel/siglip_navit.py`).

Letters: P patches of all pictures, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from bagel.model.attention import PictureAttention
from bagel.model.config import ViTConfig
from bagel.model.layers import MLP


class ViTBlock(nn.Module):
    """Pre-norm attention inside each picture, and an MLP."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.norm1 = nn.LayerNorm(width, config.layer_norm_eps)
        self.qkv = nn.Linear(width, 3 * width)
        self.o = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, config.layer_norm_eps)
        self.mlp = MLP(width, config.intermediate_size, width, "gelu_pytorch_tanh")

    def forward(self, x: Tensor, attend: PictureAttention) -> Tensor:
        q, k, v = (part.unflatten(-1, (self.num_heads, -1)) for part in self.qkv(self.norm1(x)).chunk(3, dim=-1))
        x = x + self.o(attend(q, k, v).flatten(1))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Patches to features, taken before SigLIP's last layer, then `post_norm`."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.patch = nn.Linear(config.patch_width, config.hidden_size)
        self.position = nn.Embedding(config.table_side**2, config.hidden_size)
        self.layers = nn.ModuleList(ViTBlock(config) for _ in range(config.num_built_layers))
        self.post_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, patches: Tensor, position: Tensor, lengths: Sequence[int]) -> Tensor:
        """patches [P, patch_size^2 x 3], channel last inside each; position int64 [P] into the learned
        table; lengths: patches per picture. -> [P, D]"""
        x = self.patch(patches) + self.position(position)
        attend = PictureAttention(lengths, x.unflatten(-1, (self.num_heads, -1)))
        for block in self.layers:
            x = block(x, attend)
        return self.post_norm(x)
