"""The whole model but for the autoencoder: a pack in, hidden states out, and the two heads.

Letters: U und tokens, G gen tokens, D model width, V vocabulary, Z numbers in a latent token.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bagel.model.attention import Attend
from bagel.model.config import ModelConfig
from bagel.model.decoder import Decoder, Read
from bagel.model.layers import MLP, TimeEmbedding, sine_half_table
from bagel.model.vit import ViT
from bagel.pack import Pack


class SinePositions(nn.Module):
    """The fixed 2-D position table for a grid of side^2 places: index int64 [T] -> float32 [T, D].
    It has no parameters; the table that checkpoints store is the same numbers and is not read."""

    def __init__(self, side: int, width: int) -> None:
        super().__init__()
        self.side, self.width = side, width

    def forward(self, index: Tensor) -> Tensor:
        half = sine_half_table(self.side, self.width, index.device)
        return torch.cat((half[index % self.side], half[index // self.side]), dim=-1)


class BagelModel(nn.Module):
    """One forward for training and inference. What differs, masks or caches, is in `attend`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype: torch.dtype | None = None
        self.capturable = True  # the weights stay where they are, so that a pass may become a graph
        self.layer_devices: tuple[torch.device, ...] | None = None  # of every layer, where they are spread
        self.local = config.llm  # of the decoder here, which may hold a share of every layer's heads
        width = config.llm.hidden_size
        self.embed = nn.Embedding(config.llm.vocab_size, width)
        self.vit = ViT(config.vit)
        self.connector = MLP(config.vit.hidden_size, width, width, config.connector_act)
        self.vit_position = SinePositions(config.vit_max_num_patch_per_side, width)
        self.latent_in = nn.Linear(config.latent_width, width)
        self.time = TimeEmbedding(width)
        self.latent_position = SinePositions(config.max_latent_size, width)
        self.decoder = Decoder(config.llm)
        self.lm_head = nn.Linear(width, config.llm.vocab_size, bias=False)
        self.latent_out = nn.Linear(width, config.latent_width)

    def forward(self, pack: Pack, attend: Attend, read: Read | None = None) -> tuple[Tensor, Tensor]:
        """-> the residual stream after the last layer, und [U, D] and gen [G, D], in stored order, or the rows `read`
        of them. `logits` and `velocity` read it."""
        return self.decoder(self.embed_und(pack), self.embed_gen(pack), pack.layout.position, attend, read)

    def embed_und(self, pack: Pack) -> Tensor:
        text = self.embed(pack.text_ids)
        if pack.patches is None and not torch.is_grad_enabled():
            return text
        picture = self.embed_patches(pack)
        und = torch.empty(pack.layout.num_und, text.shape[-1], dtype=text.dtype, device=text.device)
        und = und.index_copy(0, pack.layout.text_rows, text)
        return und.index_copy(0, pack.layout.vit_rows, picture)

    def embed_patches(self, pack: Pack) -> Tensor:
        """ViT features through the connector, plus their place: [P, D]. Training runs it on no patches too:
        under FSDP every rank must gather and reduce the same weights."""
        patches = pack.patches
        if patches is None:
            patches = torch.empty(0, self.config.vit.patch_width, device=pack.text_ids.device)
        features = self.vit(patches.to(self.dtype), pack.vit_index, pack.vit_lengths)
        return (self.connector(features).float() + self.vit_position(pack.vit_index)).to(self.dtype)

    def embed_gen(self, pack: Pack) -> Tensor:
        """Latent tokens, plus their time and their place: [G, D]. As above, training runs it on none too."""
        latents = pack.latents
        if latents is None:
            if not torch.is_grad_enabled():
                return torch.empty(0, self.config.llm.hidden_size, dtype=self.dtype, device=self.device)
            latents = torch.empty(0, self.config.latent_width, device=pack.text_ids.device)
        time = self.time(pack.times)[pack.image_of]
        place = self.latent_position(pack.latent_index)
        return (self.latent_in(latents.to(self.dtype)).float() + time.float() + place).to(self.dtype)

    def logits(self, und: Tensor) -> Tensor:
        """Residual rows [., D] -> next-token logits [., V]."""
        return self.lm_head(self.decoder.und_norm(und))

    def velocity(self, gen: Tensor) -> Tensor:
        """Residual rows [., D] -> velocity (noise - data) float32 [., Z]."""
        return self.latent_out(self.decoder.gen_norm(gen)).float()

    @property
    def dtype(self) -> torch.dtype:
        """Of the products; `compute_dtype` where the weights are kept in other numbers (float32 masters). Asked of
        a layer that is never packed nor kept elsewhere."""
        return self.compute_dtype or self.latent_in.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.latent_in.weight.device
