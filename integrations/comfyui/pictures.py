"""ComfyUI's IMAGE and PIL's pictures. Letters: B pictures, H W pixels, C channels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bagel import InputError


def to_pil(images: Tensor) -> list[Image.Image]:
    """IMAGE [B, H, W, C], 0 to 1, C = 1, 3 or 4 -> pictures of 8 bits; what lies outside 0 to 1 is cut off. The
    pipeline puts transparent ones over white."""
    if images.ndim != 4 or images.shape[-1] not in (1, 3, 4):
        raise InputError(f"an IMAGE is {list(images.shape)}; it must be [pictures, height, width, 1, 3 or 4].")
    levels = (images.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return [Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture) for picture in levels]


def to_image(pictures: Sequence[Image.Image]) -> Tensor:
    """Pictures of one size -> IMAGE float32 [B, H, W, 3], 0 to 1."""
    levels = np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])
    return torch.from_numpy(levels).float() / 255
