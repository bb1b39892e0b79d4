"""The part of ComfyUI's interface that the node pack uses, as documented, small enough to run in a test: what a node
tells, what is interrupted, and a runner of workflows in the API format."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

PACK = Path(__file__).parent.parent.parent / "integrations" / "comfyui"


class InterruptProcessingException(Exception):  # noqa: N818 - ComfyUI's name
    pass


class ExecutionBlocker:
    def __init__(self, message: str | None) -> None:
        self.message = message


@dataclass
class Comfy:
    """What the nodes have said and asked for. stop_after: progress reports until the cancel button is pressed."""

    models: Path
    progress: list[tuple[int, int, Any]] = field(default_factory=list)
    texts: list[tuple[str, str | None]] = field(default_factory=list)
    freed: list[str] = field(default_factory=list)
    stop_after: int | None = None
    device: str = "cpu"
    nodes: dict[str, type] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def check(self) -> None:
        if self.stop_after is not None and len(self.progress) >= self.stop_after:
            self.stop_after = None  # ComfyUI, too, clears its mark as it raises
            raise InterruptProcessingException

    def modules(self) -> dict[str, ModuleType]:
        comfy = self

        class ProgressBar:
            def __init__(self, total: int) -> None:
                self.total = total

            def update_absolute(self, value: int, total: int | None = None, preview: Any = None) -> None:
                self.total = total or self.total
                comfy.progress.append((value, self.total, preview))

        class PromptServer:
            client_id = "browser"

            def send_progress_text(self, text: str, node_id: str, sid: str | None = None) -> None:
                comfy.texts.append((text, node_id))

        PromptServer.instance = PromptServer()  # type: ignore[attr-defined]
        folders: dict[str, list[str]] = {}
        parts: dict[str, dict[str, Any]] = {
            "comfy": {},
            "comfy.utils": {"ProgressBar": ProgressBar},
            "comfy.model_management": {
                "InterruptProcessingException": InterruptProcessingException,
                "throw_exception_if_processing_interrupted": self.check,
                "get_torch_device": lambda: torch.device(self.device),
                "unload_all_models": lambda: self.freed.append("all"),
                "free_memory": lambda size, device: self.freed.append("some"),
                "soft_empty_cache": lambda: self.freed.append("cache"),
            },
            "comfy_execution": {},
            "comfy_execution.graph_utils": {"ExecutionBlocker": ExecutionBlocker},
            "folder_paths": {
                "models_dir": str(self.models),
                "add_model_folder_path": lambda name, path: folders.setdefault(name, []).append(path),
                "get_folder_paths": lambda name: folders[name],
            },
            "server": {"PromptServer": PromptServer},
        }
        made = {}
        for name, content in parts.items():
            made[name] = ModuleType(name)
            made[name].__dict__.update(content)
            parent, _, last = name.rpartition(".")
            if parent:
                setattr(made[parent], last, made[name])
        return made


@contextmanager
def installed(models: Path) -> Iterator[Comfy]:
    """The fake with the pack loaded into it as ComfyUI loads a folder of custom_nodes."""
    comfy = Comfy(models)
    modules = comfy.modules()
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    name = str(PACK).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, PACK / "__init__.py")
    assert spec
    assert spec.loader
    pack = importlib.util.module_from_spec(spec)
    sys.modules[name] = pack
    try:
        spec.loader.exec_module(pack)
        comfy.nodes, comfy.names = pack.NODE_CLASS_MAPPINGS, pack.NODE_DISPLAY_NAME_MAPPINGS
        yield comfy
    finally:
        for mine in [other for other in sys.modules if other == name or other.startswith(f"{name}.")]:
            del sys.modules[mine]
        for module, old in before.items():
            if old is None:
                del sys.modules[module]
            else:
                sys.modules[module] = old


class SaveImage:
    """ComfyUI's own, as far as the examples need it."""

    RETURN_TYPES, FUNCTION = (), "save"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {"required": {"images": ("IMAGE", {}), "filename_prefix": ("STRING", {"default": "ComfyUI"})}}

    def save(self, images: torch.Tensor, filename_prefix: str) -> tuple[torch.Tensor]:
        return (images,)


class PreviewAny:
    """The same."""

    RETURN_TYPES, FUNCTION = (), "main"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {"required": {"source": ("*", {})}}

    def main(self, source: Any) -> tuple[Any]:
        return (source,)


CORE: dict[str, type] = {"SaveImage": SaveImage, "PreviewAny": PreviewAny}


def run(comfy: Comfy, prompt: dict[str, Any], cache: dict[str, Any] | None = None) -> dict[str, list[list[Any]]]:
    """Runs a workflow in the API format, after the checks that ComfyUI makes; -> each node's outputs, each a list.
    cache: outputs of an earlier run that are to be used again, by node."""
    nodes = {**comfy.nodes, **CORE}
    done: dict[str, list[list[Any]]] = dict(cache or {})

    def outputs(key: str) -> list[list[Any]]:
        if key not in done:
            done[key] = _run_node(nodes[prompt[key]["class_type"]], key, resolved(key))
        return done[key]

    def resolved(key: str) -> dict[str, list[Any]]:
        cls, given = nodes[prompt[key]["class_type"]], prompt[key]["inputs"]
        kinds = cls.INPUT_TYPES()  # type: ignore[attr-defined]
        declared = {**kinds["required"], **kinds.get("optional", {})}
        assert set(kinds["required"]) <= set(given) <= set(declared), f"{key}: inputs {sorted(given)}"
        return {name: value_of(value, declared[name]) for name, value in given.items()}

    def value_of(value: Any, declared: Any) -> list[Any]:
        if isinstance(value, list):
            source, number = value
            kind = nodes[prompt[source]["class_type"]].RETURN_TYPES[number]  # type: ignore[attr-defined]
            assert "*" in (kind, declared[0]) or kind == declared[0], f"{kind} into {declared[0]}"
            return outputs(source)[number]
        check_widget(value, declared)
        return [value]

    for key in prompt:
        outputs(key)
    return done


def check_widget(value: Any, declared: Any) -> None:
    """Raises AssertionError for a value that ComfyUI would refuse."""
    kind, shown = declared
    if isinstance(kind, list):
        assert value in kind
        return
    assert isinstance(value, {"INT": int, "FLOAT": float | int, "BOOLEAN": bool, "STRING": str}[kind])
    if kind in ("INT", "FLOAT"):
        assert shown["min"] <= value <= shown["max"]


def _run_node(cls: type, key: str, inputs: dict[str, list[Any]]) -> list[list[Any]]:
    """Once for each element of the longest list of inputs, as ComfyUI does."""
    hidden = cls.INPUT_TYPES().get("hidden", {})  # type: ignore[attr-defined]
    inputs = {**inputs, **{name: [key] for name in hidden}}
    count = max(map(len, inputs.values()), default=1)
    rows = [{name: values[min(number, len(values) - 1)] for name, values in inputs.items()} for number in range(count)]
    node = cls()
    results = [getattr(node, cls.FUNCTION)(**row) for row in rows]  # type: ignore[attr-defined]
    is_list = getattr(cls, "OUTPUT_IS_LIST", (False,) * len(results[0]))
    return [
        [value for result in results for value in (result[number] if spread else [result[number]])]
        for number, spread in enumerate(is_list)
    ]
