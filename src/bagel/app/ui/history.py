"""The pictures made: PNG files in a folder, each with the settings that made it."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from bagel.app.show import save_image
from bagel.errors import InputError

MOST_SHOWN = 120
_MOST_SETTINGS = 100_000


class History:
    """A folder of pictures. Names begin with the time, so that they sort by age, and end in random letters, so
    that nobody guesses them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    def keep(self, image: Image.Image, settings: Mapping[str, Any]) -> Path:
        """Writes a picture with its settings."""
        stamp = time.strftime("%Y%m%d-%H%M%S") + f"-{time.time_ns() // 1_000_000 % 1000:03d}"
        name = f"{stamp}-{settings.get('job', 'picture')}-{secrets.token_hex(4)}.png"
        return save_image(image, self.folder / name, settings)

    def newest(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return sorted(self.folder.glob("[!.]*.png"), reverse=True)[:MOST_SHOWN]


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
    except ValueError:
        return None
    return settings if isinstance(settings, dict) else None
