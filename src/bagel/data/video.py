"""Frames of a video, decoded with PyAV, and which of them to take."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Any

from PIL import Image

from bagel.data.files import need
from bagel.errors import InputError


@dataclass(frozen=True, slots=True)
class _Index:
    """times: presentation times of all frames, in order; keys: those that decoding can start from."""

    times: list[int]
    keys: list[int]


class Video:
    """An opened video: `len` frames, `read` some of them."""

    def __init__(self, content: bytes, name: str) -> None:
        self._av = need("av", "reading a video")
        self._content, self._name = content, name
        try:
            self._index = self._scan()
        except (self._av.FFmpegError, IndexError, ValueError) as error:
            raise InputError(f"{name} is no video that can be read ({error}); use MP4 or WebM.") from None
        if not self._index.times:
            raise InputError(f"{name} holds no frames; record it again.")

    def __len__(self) -> int:
        return len(self._index.times)

    def read(self, numbers: Sequence[int]) -> list[Image.Image]:
        """Frames by number, ascending, RGB."""
        try:
            found = dict(self._decode([self._index.times[number] for number in numbers]))
            return [found[self._index.times[number]] for number in numbers]
        except (self._av.FFmpegError, KeyError) as error:
            raise InputError(f"{self._name} is damaged ({error}); save the video again.") from None

    def _scan(self) -> _Index:
        """The times of all packets, without decoding."""
        with self._av.open(io.BytesIO(self._content)) as container:
            packets = [
                (packet.pts, packet.is_keyframe)
                for packet in container.demux(container.streams.video[0])
                if packet.pts is not None and packet.size
            ]
        return _Index(sorted(pts for pts, _ in packets), sorted(pts for pts, key in packets if key))

    def _decode(self, wanted: Sequence[int]) -> Iterator[tuple[int, Image.Image]]:
        """Decodes on from the nearest key frame where that skips something, else straight on."""
        with self._av.open(io.BytesIO(self._content)) as container:
            stream = container.streams.video[0]
            frames: Iterator[Any] = container.decode(stream)
            at = -1
            for time in dict.fromkeys(wanted):
                key = max((key for key in self._index.keys if key <= time), default=None)
                if key is not None and key > at and key != self._index.times[0]:
                    container.seek(key, stream=stream)
                    frames = container.decode(stream)
                for frame in frames:
                    at = frame.pts
                    if at == time:
                        yield time, frame.to_image().convert("RGB")
                        break


def spread_frames(count: int, least: int, most: int, rng: Random) -> list[int]:
    """Frames for understanding: `least` to `most` equal stretches of the video and one frame of each, drawn
    (upstream `data/video_utils.py`). A shorter video gives all its frames."""
    wanted = min(rng.randint(least, most), count)
    cuts = [count * i // wanted for i in range(wanted + 1)]
    return [rng.randrange(a, b) for a, b in pairwise(cuts)]


def clip_frames(count: int, length: int, step: int, rng: Random) -> list[int]:
    """Frames for generation: `length` of them, `step` apart, from a start that is drawn. A video that is too
    short for the step gives the frames it has."""
    taken = min(length, (count - 1) // step + 1)
    first = rng.randrange(count - (taken - 1) * step)
    return [first + i * step for i in range(taken)]
