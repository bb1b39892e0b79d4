"""The pictures made: PNG files in a folder, each with the settings that made it, and beside them the pictures that
they were made from."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from bagel.app.show import save_image, write_whole
from bagel.errors import InputError

MOST_SHOWN = 120
_MOST_SETTINGS = 100_000
_INPUTS = "inputs"
_OWN_NAME = re.compile(rf"{_INPUTS}/[0-9a-f]{{32}}\.png|[0-9]{{8}}-[0-9]{{6}}-[0-9]{{3}}-[a-z]+-[0-9a-f]{{8}}\.png")
_NAME = re.compile(rf"({_INPUTS}/)?[\w-][\w. -]{{0,200}}\.png")


class History:
    """A folder of pictures. Names of those made begin with the time, so that they sort by age, and end in random
    letters; names of inputs are hashes of what they show. Nobody guesses either.

    shared: whether every visitor sees the whole folder; otherwise each sees what was made in this visit.
    """

    def __init__(self, folder: Path, *, shared: bool = True) -> None:
        self.folder, self.shared = folder.absolute(), shared
        self._of: dict[str, dict[str, None]] = {}
        """By visitor, the names of pictures of this visit, in order."""
        self._lock = threading.Lock()

    def keep(self, image: Image.Image, settings: Mapping[str, Any], visitor: str = "") -> Path:
        """Writes a picture with its settings. Raises InputError where the disk does not take it."""
        stamp = time.strftime("%Y%m%d-%H%M%S") + f"-{time.time_ns() // 1_000_000 % 1000:03d}"
        name = f"{stamp}-{settings.get('job', 'picture')}-{secrets.token_hex(4)}.png"
        return self._noted(save_image(image, self.folder / name, settings), visitor)

    def keep_input(self, image: Image.Image, visitor: str = "") -> Path:
        """Writes a picture that something is made from, once. Raises InputError where the disk does not
        take it."""
        digest = hashlib.sha256(f"{image.mode} {image.size} ".encode() + image.tobytes()).hexdigest()[:32]
        path = self.folder / _INPUTS / f"{digest}.png"
        if not path.exists():
            write_whole(path, lambda partial: image.save(partial, "PNG"))
        return self._noted(path, visitor)

    def name_of(self, path: str | Path) -> str:
        """How settings name a kept picture."""
        return Path(path).relative_to(self.folder).as_posix()

    def find(self, name: Any, visitor: str = "") -> Path | None:
        """The kept picture of a name, which may come from a stranger's PNG; None for what is not here, or not this
        visitor's to see."""
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            return None
        if not self.shared and name not in self._of.get(visitor, ()):
            return None
        path = self.folder / name
        return path if path.is_file() else None

    def may_serve(self, path: str) -> bool:
        """Whether a path is outside the folder, which is not ours to judge, or a picture of it."""
        place = Path(os.path.realpath(path)) if path else None
        if place is None or not place.is_relative_to(os.path.realpath(self.folder)):
            return True
        name = place.relative_to(os.path.realpath(self.folder)).as_posix()
        return bool(_NAME.fullmatch(name) if self.shared else _OWN_NAME.fullmatch(name))

    def newest(self, visitor: str = "") -> list[Path]:
        if not self.shared:
            mine = [name for name in self._of.get(visitor, ()) if "/" not in name]
            return [self.folder / name for name in reversed(mine)][:MOST_SHOWN]
        if not self.folder.is_dir():
            return []
        return sorted(self.folder.glob("[!.]*.png"), reverse=True)[:MOST_SHOWN]

    def leave(self, visitor: str) -> None:
        """A visit has ended; its pictures stay in the folder."""
        with self._lock:
            self._of.pop(visitor, None)

    def _noted(self, path: Path, visitor: str) -> Path:
        if visitor and not self.shared:
            with self._lock:
                self._of.setdefault(visitor, {})[self.name_of(path)] = None
        return path


def settings_in(path: str | Path) -> dict[str, Any] | None:
    """The settings that a PNG carries; None for a picture without. Raises InputError for what is no picture."""
    try:
        with Image.open(path) as image:
            found = image.info.get("bagel")
    except Exception as error:  # decoders raise all kinds
        reason = str(error).replace(str(path), Path(path).name) or type(error).__name__
        raise InputError(f"{Path(path).name} cannot be read as a picture ({reason}).") from None
    if not isinstance(found, str) or len(found) > _MOST_SETTINGS:
        return None
    try:
        settings = json.loads(found)
    except (ValueError, RecursionError):
        return None
    return settings if isinstance(settings, dict) else None
