"""How pictures of a data set are resized, and that none can pass the model's position tables."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from PIL import Image

from bagel.data.config import Resize
from bagel.errors import InputError
from bagel.images import MAX_PIXELS, resize, resized_size
from bagel.model.config import ModelConfig
from bagel.model.config import ResizeRule as ModelRule
from bagel.pack import PackRules


class TextTokenizer(Protocol):
    """What is asked of `bagel.tokens.Tokenizer`."""

    bos: int
    eos: int
    start_of_image: int
    end_of_image: int

    def encode(self, text: str) -> list[int]: ...


@dataclass(frozen=True, slots=True)
class Rule:
    """How pictures of one data set are resized for the ViT or for the autoencoder."""

    max_size: int
    min_size: int
    stride: int
    max_pixels: int

    @classmethod
    def of(cls, model: ModelRule, own: Resize) -> Rule:
        return cls(
            own.max_size or model.max_size,
            own.min_size or model.min_size,
            own.stride or model.stride,
            own.max_pixels or MAX_PIXELS,
        )

    def size(self, image: Image.Image, share: int) -> tuple[int, int]:
        """(width, height) after resizing."""
        return _size(self, *image.size, share)

    def resize(self, image: Image.Image, share: int) -> Image.Image:
        return resize(image, self, share, self.max_pixels)


@lru_cache(maxsize=1024)
def _size(rule: Rule, width: int, height: int, share: int) -> tuple[int, int]:
    """Asked several times for each picture, and pictures are often of few sizes."""
    return resized_size(width, height, rule, share, rule.max_pixels)


def pack_rules(model: ModelConfig, tokenizer: TextTokenizer) -> PackRules:
    return PackRules(
        start_of_image=tokenizer.start_of_image,
        end_of_image=tokenizer.end_of_image,
        vit_side=model.vit_max_num_patch_per_side,
        latent_side=model.max_latent_size,
        interpolate=model.interpolate_pos,
        latent_stride=model.latent_stride,
        latent_width=model.latent_width,
    )


def check_rule(rule: Rule, name: str, token: int, side: int, model: ModelConfig, setting: str) -> None:
    """Refuses a rule by which a picture may pass the position table, before any picture is read."""
    if rule.stride % token:
        raise InputError(f"{name}.stride {rule.stride} is no multiple of {token}, the pixels of a token; use {token}.")
    if rule.min_size > rule.max_size:
        raise InputError(f"{name}.min_size {rule.min_size} is above {name}.max_size {rule.max_size}; lower it.")
    longest = max(rule.stride, round(rule.max_size / rule.stride) * rule.stride)
    if longest > side * token and not model.interpolate_pos:
        raise InputError(
            f"{name}.max_size {rule.max_size} is beyond the model's position table of {side} x {token} = "
            f"{side * token} pixels ({setting}); use at most {side * token}."
        )
