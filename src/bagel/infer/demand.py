"""What a request will ask of memory, from its inputs and options alone."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from bagel.checkpoint import Checkpoint
from bagel.images import resized_size
from bagel.memory.sizes import Demand
from bagel.options import ImageOptions, TextOptions, need
from bagel.tokens import THINK_PROMPT


def demand_of(
    checkpoint: Checkpoint,
    inputs: Sequence[str | Image.Image],
    image: ImageOptions | None = None,
    text: TextOptions | None = None,
    *,
    held: int = 0,
    size: tuple[int, int] | None = None,
) -> Demand:
    """image: how a picture is drawn, if one is; text: how an answer is written. held, size: tokens that a session
    has read before, and the (height, width) of its last picture."""
    config, tokenizer = checkpoint.config, checkpoint.tokenizer
    words, latents, patches, encoded = 0, 0, 0, (0, 0)
    thinks = [kind for kind, options in (("image", image), ("text", text)) if options and options.think]
    for item in [*inputs, *(THINK_PROMPT[kind] for kind in thinks)]:
        if isinstance(item, str):
            words += len(tokenizer.segment(item))
            continue
        width, height = resized_size(item.width, item.height, config.images.vae)
        size = height, width
        if image:
            latents += height * width // config.latent_stride**2 + 2
            encoded = max(encoded, (height, width), key=lambda sides: sides[0] * sides[1])
        width, height = resized_size(width, height, config.images.vit)
        patches += height * width // config.vit.patch_size**2 + 2
    written = need(text.max_tokens) if text else need(image.max_tokens) if image and image.think else 0
    if image is None:
        return Demand(text=words, patches=patches, max_tokens=written, held=held)
    height, width = image.height or (size[0] if size else 0), image.width or (size[1] if size else 0)
    guided = need(image.cfg_text_scale) > 1
    third = guided and need(image.cfg_image_scale) > 1 and (patches > 0 or held > 0)
    branches = 3 if third else 2 if guided else 1
    cached = 3 if image.step_cache == "taylorseer" else 0  # the others keep velocities, which are small
    return Demand(height, width, branches, words, latents, patches, encoded, written, held=held, cached=cached)
