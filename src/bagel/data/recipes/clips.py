"""Video generation: a caption, the first frames if wanted, and the frames to be generated, all at one noise
level (upstream `_add_video` in `data/interleave_datasets/interleave_t2i_dataset.py`)."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

from PIL import Image

from bagel.data.recipes.base import CAPTIONS, VIDEO, Recipe, at_least, open_video, prompt
from bagel.data.sample import Clip, Drops, Part
from bagel.data.schema import Reader, Schema
from bagel.data.video import clip_frames
from bagel.errors import InputError


@dataclass(frozen=True, kw_only=True)
class VideoOptions:
    """num_frames: of a clip, those given included.
    frame_step: from one frame to the next, in frames of the file; also the positions between them.
    context_frames: given clean, not generated.
    """

    num_frames: int = 8
    frame_step: int = 1
    context_frames: int = 0

    def __post_init__(self) -> None:
        at_least(self, num_frames=self.context_frames + 1, frame_step=1, context_frames=0)


def video(row: Reader, options: VideoOptions, rng: Random) -> list[Part]:
    if not row.has("captions") and not options.context_frames:
        raise InputError("the row has no captions; add them, or set context_frames to go on from frames.")
    frames = _frames(row, row.get("video"), options, rng)
    if len(frames) <= options.context_frames:
        raise InputError(
            f"the video gives {len(frames)} frames at frame_step {options.frame_step}; more than context_frames "
            f"({options.context_frames}) are needed: use a longer one, or lower frame_step."
        )
    drops = Drops()
    parts: list[Part] = [prompt(row, "captions", rng, drops.new())] if row.has("captions") else []
    given, wanted = frames[: options.context_frames], frames[options.context_frames :]
    if given:
        parts.append(Clip(tuple(given), (options.frame_step,) * len(given), drop=drops.new()))
    deltas = (*(options.frame_step,) * (len(wanted) - 1), None)
    return [*parts, Clip(tuple(wanted), deltas, loss=True)]


VIDEO_RECIPE = Recipe(Schema(((VIDEO,),), (CAPTIONS,)), VideoOptions, video)


def _frames(row: Reader, value: Any, options: VideoOptions, rng: Random) -> list[Image.Image]:
    """Of a video file, or of a list of pictures."""
    if isinstance(value, list):
        if not value:
            raise InputError("video is an empty list; name its frames.")
        chosen = clip_frames(len(value), options.num_frames, options.frame_step, rng)
        return [row.picture(value[number], "video") for number in chosen]
    opened = open_video(row, value, "video")
    return opened.read(clip_frames(len(opened), options.num_frames, options.frame_step, rng))
