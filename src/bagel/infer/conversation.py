"""A conversation as guidance needs it: three contexts, read side by side, and what may be done with them.

    cond      everything read
    no_text   cond as it was before the last input text; begins anew after every image
    no_image  the texts alone
(upstream `inferencer.py` at 056b5fd). While no image has been read, no_image is a fork of cond and costs
nothing.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from bagel.checkpoint import Checkpoint
from bagel.errors import InputError
from bagel.images import (
    ResizeRule,
    fitted,
    from_levels,
    patchify,
    resize,
    resized_size,
    to_image,
    to_levels,
    unpatchify,
)
from bagel.infer.engine import Engine, Job, Read, Seen
from bagel.infer.image import COND, NO_IMAGE, NO_TEXT, Guidance, denoise, noise_for, schedule
from bagel.infer.resample import resample
from bagel.infer.result import ImageDone, Stats, TextDone
from bagel.infer.text import Begun, Sampler, text_of, write
from bagel.memory.cards import free_bytes
from bagel.memory.room import Room
from bagel.model.kernels import forms
from bagel.options import ImageOptions, TextOptions, need
from bagel.pack import LatentPart, PackRules, TextPart, VitPart
from bagel.tokens import THINK_PROMPT

Input = str | Image.Image
Picture = Image.Image | Tensor
"""A picture as PIL's, or as levels uint8 [3, H, W] on the model's device."""
MOST_PIXELS = 2**22
"""A larger picture is resized by Pillow: its levels would take memory that was not planned for."""
_pictures_read = itertools.count()


@dataclass
class Runtime:
    """A loaded checkpoint, the engine that runs it, and the room that is left for requests. sees: how pictures are
    read where something is drawn; less than both is for models that were trained so, in a study."""

    checkpoint: Checkpoint
    engine: Engine
    room: Room
    sees: frozenset[str] = frozenset({"latents", "vit"})

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Runtime:
        config, tokenizer = checkpoint.config, checkpoint.tokenizer
        if checkpoint.model.device.type == "cuda":  # the layout in which its convolutions are fastest
            checkpoint.vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        rules = PackRules(
            tokenizer.start_of_image,
            tokenizer.end_of_image,
            config.vit_max_num_patch_per_side,
            config.max_latent_size,
            config.interpolate_pos,
        )
        device = checkpoint.model.device
        room = Room(replace(config, llm=checkpoint.model.local), checkpoint.model.dtype)
        if device.type == "cuda":
            room.free = functools.partial(free_bytes, device)
        return cls(checkpoint, Engine(checkpoint.model, rules), room)

    def fitted(self, image: Image.Image) -> Image.Image:
        """See `images.fitted`, by this model's rule."""
        return fitted(image, self.checkpoint.config.images.vae)

    def placed(self, image: Image.Image) -> Picture:
        """A picture where resizing it is fastest: on a GPU its levels, unless there are too many."""
        device = self.checkpoint.model.device
        on_gpu = device.type == "cuda" and image.width * image.height <= MOST_PIXELS
        return to_levels(image).to(device) if on_gpu else image

    def resized(self, image: Picture, rule: ResizeRule) -> Picture:
        """By Pillow, or on the device with Pillow's levels."""
        if isinstance(image, Image.Image):
            return resize(image, rule)
        width, height = resized_size(image.shape[2], image.shape[1], rule)
        return resample(image, (height, width))

    def _pixels(self, image: Picture) -> Tensor:
        levels = to_levels(image) if isinstance(image, Image.Image) else image
        return from_levels(levels.to(self.checkpoint.model.device))

    def parts_of(self, picture: Image.Image, latents: bool) -> tuple[tuple[int, int], dict[str, LatentPart | VitPart]]:
        """(height, width) at which a picture is read, and as what, by the names of `sees`; `latents`: see
        `Conversation.read_inputs`."""
        image = self.resized(self.placed(picture), self.checkpoint.config.images.vae)
        width, height = image.size if isinstance(image, Image.Image) else (image.shape[2], image.shape[1])
        parts: dict[str, LatentPart | VitPart] = {}
        if latents and "latents" in self.sees:
            parts["latents"] = self.encode(image)
        if not parts or "vit" in self.sees:
            parts["vit"] = self.look(image)
        return (height, width), parts

    @torch.inference_mode()
    def encode(self, image: Picture) -> LatentPart:
        """A picture of legal size as a clean latent segment: the posterior's mean, so that the same picture
        always reads the same (upstream samples)."""
        config, vae = self.checkpoint.config, self.checkpoint.vae
        pixels = self._pixels(image)
        with forms(self.engine.fast):
            latent = vae.encode(pixels[None])[0]
        side = config.latent_patch_size
        return LatentPart(patchify(latent, side), (latent.shape[1] // side, latent.shape[2] // side))

    def look(self, image: Picture) -> VitPart:
        """A picture as a ViT segment; the ViT's size rule is applied to the picture as the VAE sees it."""
        side = self.checkpoint.config.vit.patch_size
        pixels = self._pixels(self.resized(image, self.checkpoint.config.images.vit))
        return VitPart(patchify(pixels, side), (pixels.shape[1] // side, pixels.shape[2] // side))

    @torch.inference_mode()
    def decode(self, latent: Tensor, grid: tuple[int, int]) -> Image.Image:
        """Latent tokens [tokens, 64] of an h x w grid -> the picture."""
        cells = unpatchify(latent, grid, self.checkpoint.config.latent_patch_size)
        with forms(self.engine.fast):
            return to_image(self.checkpoint.vae.decode(cells[None].to(self.checkpoint.model.device))[0])


class Conversation:
    """Reads inputs and makes outputs; every method that needs the model is a job (see `engine`).

    last: the residual stream of the last token read; size: (height, width) of the last picture read.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.cond = runtime.engine.new_context()
        self.no_text, self.no_image = self.cond.fork(), self.cond.fork()
        self.last: Tensor | None = None
        self.size: tuple[int, int] | None = None
        self._begun: Begun | None = None

    def fork(self) -> Conversation:
        """A conversation that goes on from here on its own; nothing is copied."""
        child = object.__new__(Conversation)
        child.__dict__.update(self.__dict__)
        for name in ("cond", "no_text", "no_image"):
            setattr(child, name, getattr(self, name).fork())
        child._begun = None
        return child

    # --- reading -----------------------------------------------------------------------------------------

    def read_inputs(
        self, inputs: Sequence[Input], *, latents: bool, think: str | None = None, start: bool = False
    ) -> Job:
        """All inputs in order, behind the system prompt for thinking before `think` ("text" or "image"). latents:
        a picture is read as clean latents too, which drawing needs, before its ViT features. start: `write` comes
        next, and finds its start token read."""
        if think:
            yield from self.read_text(THINK_PROMPT[think], is_input=False)
        batch: list[Input] = []
        for item in inputs:
            # Texts that no_image shares with cond must be read before a picture parts the two.
            if not isinstance(item, str) and batch and isinstance(batch[-1], str) and self._shares_texts():
                yield from self._read_in_one_pass(batch, latents)
                batch = []
            batch.append(item)
        if batch:
            yield from self._read_in_one_pass(batch, latents, start=start)

    def read_text(self, text: str, *, is_input: bool = True) -> Job:
        """`is_input` false: a text that guidance never takes away (a system prompt, the model's own answer)."""
        yield from self._read_in_one_pass([text], latents=False, is_input=is_input)

    def read_image(self, image: Image.Image, *, latents: bool = True) -> Job:
        """An RGB picture, as in `read_inputs`."""
        yield from self._read_in_one_pass([image], latents)

    def read_thought(self, text: str) -> Job:
        """The thought is read as text, tokenised again, by cond alone."""
        part = TextPart(self.runtime.checkpoint.tokenizer.segment(text))
        self._begun = None
        answer: list[Seen] = yield [Read(self.cond, part)]
        self.last = answer[0].last

    def _shares_texts(self) -> bool:
        """Whether cond has read texts alone, so that no_image is the same."""
        return self.no_image.history == self.cond.history

    def _read_in_one_pass(
        self, items: Sequence[Input], latents: bool, is_input: bool = True, start: bool = False
    ) -> Job:
        """Texts in front of a picture, where no_image still shares them, are not in one batch with it."""
        mine: list[Read] = []
        no_image: list[Read] = []
        mark, no_text, parted = self.cond.mark, self.no_text.mark, not self._shares_texts()
        owner = self.no_text
        for item in items:
            before, reads = mark, (yield from self._reads(item, latents))
            for read in reads:
                mark = mark.after(read.part.segment, read.name)
            mine += reads
            is_text = isinstance(item, str)
            if not is_text or is_input:
                owner, no_text = self.cond, before if is_text else mark
            if is_text and parted:
                no_image += [Read(self.no_image, read.part) for read in reads]
            parted = parted or not is_text
        begin = [Read(self.cond, TextPart([self.runtime.checkpoint.tokenizer.bos]))] if start else []
        answer: list[Seen] = yield [*mine, *begin, *no_image]
        self.last = answer[len(mine) - 1].last
        self._begun = None
        if start:  # an answer is written on a fork: cond goes back to where it was without
            self._begun = self.cond.fork(), answer[len(mine)]
            self.cond.back_to(mark)
        self.no_text = owner.fork(no_text)
        if not parted:
            self.no_image = self.cond.fork()

    def _reads(self, item: Input, latents: bool) -> Job:
        """-> list[Read]"""
        runtime = self.runtime
        if isinstance(item, str):
            return [Read(self.cond, TextPart(runtime.checkpoint.tokenizer.segment(item)))]
        self.size, parts = yield from runtime.engine.aside(runtime.parts_of, item, latents)
        name = next(_pictures_read)
        return [Read(self.cond, part, what=(sense, name)) for sense, part in parts.items()]

    # --- writing and drawing -------------------------------------------------------------------------------

    def write(self, options: TextOptions | ImageOptions, seed: int, stats: Stats, *, thought: bool) -> Job:
        """Writes an answer or a thought behind cond, which stays as it is. Returns a TextDone."""
        checkpoint = self.runtime.checkpoint
        max_tokens = need(options.max_tokens)
        self._check_room(max_tokens)
        sampler = Sampler(need(options.do_sample), need(options.temperature), seed, checkpoint.model.device)
        begun, self._begun = self._begun or (self.cond.fork(), None), None
        with stats.phase("think" if thought else "write"):
            ids = yield from write(self.runtime.engine, checkpoint.tokenizer, begun, sampler, max_tokens, thought)
        stats.tokens += len(ids)
        return TextDone(text_of(checkpoint.tokenizer, ids), ids, thought)

    def draw(self, options: ImageOptions, seed: int, stats: Stats) -> Job:
        """Draws a picture from here; the contexts stay as they are. Returns an ImageDone."""
        grid, noise = self._start(options, seed)
        contexts = {COND: self.cond.fork(), NO_TEXT: self.no_text.fork(), NO_IMAGE: self.no_image.fork()}
        times = schedule(need(options.num_timesteps), need(options.timestep_shift))
        with stats.phase("draw"):
            latent, calls = yield from denoise(
                self.runtime.engine,
                contexts,
                noise,
                grid,
                times,
                guidance_of(options),
                options.step_cache,
                need(options.solver),
            )
        stats.updates += len(times) - 1
        stats.model_calls += calls
        del contexts  # the decoder needs the room
        with stats.phase("decode"):
            image = yield from self.runtime.engine.aside(self.runtime.decode, latent, grid)
        return ImageDone(image, latent.float().cpu(), seed)

    def _start(self, options: ImageOptions, seed: int) -> tuple[tuple[int, int], Tensor]:
        config = self.runtime.checkpoint.config
        height, width = picture_size(options, self.size)
        grid = height // config.latent_stride, width // config.latent_stride
        if options.noise is None:
            return grid, noise_for(grid, config.latent_width, seed)
        wanted = [grid[0] * grid[1], config.latent_width]
        try:
            noise = torch.as_tensor(options.noise, dtype=torch.float32)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"noise is not numbers ({error}); give float32 {wanted}.") from None
        if list(noise.shape) != wanted:
            raise InputError(f"noise is {list(noise.shape)}; a picture of {height} x {width} needs {wanted}.")
        if not noise.isfinite().all():
            raise InputError("noise holds numbers that are not finite; draw it from a normal distribution.")
        return grid, noise

    def _check_room(self, max_tokens: int) -> None:
        limit = self.runtime.checkpoint.config.llm.max_position_embeddings
        room = limit - self.cond.position
        if max_tokens > room:
            raise InputError(
                f"max_tokens is {max_tokens}, but of the model's {limit:,} positions only {max(room, 0):,} are left; "
                "ask for fewer tokens or shorten the input."
            )


def picture_size(options: ImageOptions, last: tuple[int, int] | None) -> tuple[int, int]:
    """(height, width): as asked, else the last picture's."""
    height, width = options.height or (last and last[0]), options.width or (last and last[1])
    if height is None or width is None:
        raise InputError("height and width are not given, and there is no picture to take them from.")
    return height, width


def guidance_of(options: ImageOptions) -> Guidance:
    return Guidance(
        need(options.cfg_text_scale),
        need(options.cfg_image_scale),
        need(options.cfg_interval),
        need(options.cfg_renorm_min),
        need(options.cfg_renorm_type),
    )
