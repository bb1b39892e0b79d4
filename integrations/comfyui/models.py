"""Models as ComfyUI's users choose them, and how they leave when memory is wanted for something else."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import comfy.model_management
import folder_paths

from bagel import Bagel, InputError

from .watch import LoadingWatch, Watch

FOLDER = "bagel"
"""Below ComfyUI's models: where BAGEL's folders are looked for."""
ROOM = 6 * 2**30
"""Bytes that ComfyUI is asked to free on a GPU before a request; one picture of 1024 x 1024 takes less."""


def register_folder() -> None:
    """Tells ComfyUI of the folder; its extra_model_paths.yaml may name others."""
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))


def model_names() -> list[str]:
    """mini, then what lies in ComfyUI's folders."""
    return ["mini", *sorted(_found())]


def model_path(name: str) -> str:
    """A model's path by its name in the list. Raises InputError for one that is gone."""
    found = {"mini": Path("mini"), **_found()}
    if name not in found:
        folders = ", ".join(folder_paths.get_folder_paths(FOLDER))
        raise InputError(f"there is no model {name!r} in {folders}; put it there, and choose it again.")
    return str(found[name])


def _found() -> dict[str, Path]:
    """Folders in the official layout, or packed, and the GGUF files in them, by their names below ours."""
    found = {}
    for root in map(Path, folder_paths.get_folder_paths(FOLDER)):
        for config in root.glob("*/llm_config.json"):
            for path in (config.parent, *config.parent.glob("*.gguf")):
                found[path.relative_to(root).as_posix()] = path
    return found


def adapters(text: str) -> list[tuple[str, float]] | None:
    """A folder a line, its weight behind a colon where it is not 1 -> what `Bagel.load` takes."""
    found = []
    for line in filter(None, map(str.strip, text.splitlines())):
        folder, _, weight = line.rpartition(":")
        try:
            found.append((folder.strip() or line, float(weight) if folder else 1.0))
        except ValueError:  # the colon belongs to the folder's name
            found.append((line, 1.0))
    return found or None


class Forgets(Protocol):
    def forget(self) -> None: ...


class Loaded:
    """A model that is loaded when it is first wanted. One at a time: loading another lets this one go, and so does
    the Unload node; it is loaded again when it is wanted again."""

    _held: weakref.ref[Loaded] | None = None

    def __init__(self, wanted: dict[str, Any]) -> None:
        """wanted: the arguments of `Bagel.load`."""
        self._wanted = wanted
        self._model: Bagel | None = None
        self._watch: Watch | None = None
        self._kept: weakref.WeakSet[Forgets] = weakref.WeakSet()

    def get(self) -> Bagel:
        """Raises what `Bagel.load` raises, and ComfyUI's InterruptProcessingException."""
        manager = comfy.model_management
        device = self._wanted["device"]
        device = str(manager.get_torch_device()) if device == "auto" else device
        if self._model is None:
            other = Loaded._held and Loaded._held()
            if other:
                other.unload()
            if device != "cpu":
                manager.unload_all_models()
                manager.soft_empty_cache()
            self._model = Bagel.load(**{**self._wanted, "device": device}, report=LoadingWatch())
            Loaded._held = weakref.ref(self)
        elif device != "cpu":
            manager.free_memory(ROOM, manager.get_torch_device())
        return self._model

    def unload(self) -> None:
        """Frees its memory, and that of what was read with it."""
        for one in self._kept:
            one.forget()
        self._model = None
        comfy.model_management.soft_empty_cache()

    def keep(self, one: Forgets) -> None:
        """Has `one` told when the model goes."""
        self._kept.add(one)

    @contextmanager
    def watched(self, watch: Watch) -> Iterator[None]:
        """Who is told, for now, of what happens in this model's conversations."""
        before, self._watch = self._watch, watch
        try:
            yield
        finally:
            self._watch = before

    def tell(self, request: int, event: Any) -> None:
        if self._watch:
            self._watch(request, event)
