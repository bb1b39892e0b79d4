"""Safetensors that keep scales or codes beside their tensors, decoded while they are read.

ComfyUI's fp8 (QUANTIZATION.md there), a tensor in F8_E4M3 or F8_E5M2 and the scale that it is multiplied by:
    X.weight, X.weight_scale     one number, or one a row; the format is named in X.comfy_quant (JSON as bytes) or in
                                 the header's _quantization_metadata. X.input_scale is for products in fp8
    X.weight, X.scale_weight     the same as it was before; X.scale_input, and scaled_fp8 as a mark
bitsandbytes:
    X.weight uint8 [.., 1]       nf4 or fp4: two codes a byte, the upper half first; values X.weight.quant_map [16],
                                 a scale X.weight.absmax for each block of numbers, shape and block in
                                 X.weight.quant_state.bitsandbytes__nf4 (JSON as bytes). The scales may be coded
                                 themselves: nested_quant_map [256], nested_absmax, an offset
    X.weight int8, X.SCB         a weight is value x SCB / 127, SCB [rows]; X.weight_format tells a layout
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bagel.errors import CheckpointError
from bagel.tensor_files import TensorFiles

_FLOATS = ("F8_E4M3", "F8_E5M2")
_FORMATS = ("float8_e4m3fn", "float8_e5m2")
_STATE = ".quant_state.bitsandbytes__"
_BESIDE = (
    ".weight_scale", ".scale_weight", ".input_scale", ".scale_input", ".comfy_quant", ".SCB", ".weight_format",
    ".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map",
)  # fmt: skip
_MOST = 2**24
"""Numbers decoded at a time."""


def is_beside(name: str) -> bool:
    """Whether a tensor tells how another is coded."""
    return name == "scaled_fp8" or name.endswith(_BESIDE) or _STATE in name


class CodedFiles:
    """Tensors of files in which some are coded. Raises CheckpointError for a code that is not known here."""

    def __init__(self, files: TensorFiles, path: Path) -> None:
        self._files = files
        stored = set(files)
        self._check_formats(stored, path)
        self._names = [name for name in files if not is_beside(name)]
        self._states = {name.split(_STATE)[0]: _json(files.read(name)) for name in stored if _STATE in name}
        for name, state in self._states.items():
            self._check_state(name, state, stored, path)
        self._scales = {}
        for name in self._names:
            owner = name.removesuffix(".weight")
            beside = [f"{owner}{end}" for end in (".weight_scale", ".scale_weight", ".SCB")]
            scale = next((one for one in beside if one in stored), None)
            if scale is not None and name.endswith(".weight"):
                self._scales[name] = self._checked_scale(name, scale, path)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def shape(self, name: str) -> tuple[int, ...]:
        state = self._states.get(name)
        return tuple(state["shape"]) if state else self._files.shape(name)

    def dtype(self, name: str) -> str:
        return "F32" if name in self._states or name in self._scales else self._files.dtype(name)

    def size(self, name: str) -> int:
        return self._files.size(name)

    def read(self, name: str) -> Tensor:
        return torch.cat(list(self.parts(name, torch.device("cpu"))))

    def parts(self, name: str, device: torch.device) -> Iterator[Tensor]:
        if name in self._states:
            yield from self._four_bits(name, self._states[name], device)
            return
        stored, scale = self._files.read(name), self._scales.get(name)
        if scale is None:
            yield stored
            return
        scale = scale.to(device).reshape(-1, *[1] * (stored.ndim - 1))
        for begin in range(0, len(stored), step := max(1, _MOST // math.prod(stored.shape[1:]))):
            rows = slice(begin, begin + step)
            yield stored[rows].to(device).float() * (scale if len(scale) == 1 else scale[rows])

    def _four_bits(self, name: str, state: dict[str, Any], device: torch.device) -> Iterator[Tensor]:
        shape, block = tuple(state["shape"]), int(state["blocksize"])
        codes, values = self._files.read(name).flatten(), self._files.read(f"{name}.quant_map").to(device).float()
        scale = self._scale_of_blocks(name, state).to(device)
        width = math.prod(shape[1:])
        whole = math.lcm(width, block, 2) // width  # rows that begin with a block and a byte
        step = max(1, _MOST // width // whole) * whole
        for begin in range(0, shape[0], step):
            first, count = begin * width, min(step, shape[0] - begin) * width
            part = codes[first // 2 : -(-(first + count) // 2)].to(device)
            numbers = values[torch.stack((part >> 4, part & 15), dim=1).int()].flatten()[:count]
            padded = torch.nn.functional.pad(numbers, (0, -count % block)).view(-1, block)
            scales = scale[first // block :][: len(padded), None]
            yield (padded * scales).flatten()[:count].view(-1, *shape[1:])

    def _scale_of_blocks(self, name: str, state: dict[str, Any]) -> Tensor:
        scale = self._files.read(f"{name}.absmax")
        if "nested_blocksize" not in state:
            return scale.float()
        outer = self._files.read(f"{name}.nested_absmax").float()
        inner = self._files.read(f"{name}.nested_quant_map").float()[scale.flatten().int()]
        block = int(state["nested_blocksize"])
        return inner * outer.repeat_interleave(block)[: len(inner)] + float(state["nested_offset"])

    def _check_state(self, name: str, state: dict[str, Any], stored: set[str], path: Path) -> None:
        """Raises CheckpointError where what bitsandbytes keeps beside a weight of four bits does not belong to it."""
        try:
            lengths = _lengths(name, state)
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise CheckpointError(f"{path} does not say how {name} is coded ({error!r}); use the original.") from None
        for one, size in lengths.items():
            if one not in stored:
                raise CheckpointError(f"{path} lacks {one}, which {name} goes with; copy it again or use the original.")
            if math.prod(self._files.shape(one)) != size:
                raise CheckpointError(
                    f"{path} has {one} of shape {list(self._files.shape(one))}, but {name} goes with {size:,} numbers "
                    "there; copy it again or use the original."
                )

    def _checked_scale(self, name: str, scale: str, path: Path) -> Tensor:
        value, kind, rows = self._files.read(scale).float(), self._files.dtype(name), self._files.shape(name)[0]
        int8 = scale.endswith(".SCB")
        if (kind != "I8" if int8 else kind not in _FLOATS) or value.numel() not in (1, rows):
            raise CheckpointError(
                f"{path} keeps {name} as {kind} with {scale} of shape {list(value.shape)}, which is not read here; "
                f"{_KNOWN}."
            )
        return value / 127 if int8 else value

    def _check_formats(self, stored: set[str], path: Path) -> None:
        said = {name: _json(self._files.read(name)) for name in stored if name.endswith(".comfy_quant")}
        said |= _json_text(self._files.about.get("_quantization_metadata", "{}")).get("layers", {})
        wrong = sorted({str(one.get("format")) for one in said.values()} - set(_FORMATS))
        layouts = [n for n in stored if n.endswith(".weight_format") and int(self._files.read(n).flatten()[0])]
        if wrong or layouts:
            what = f"is in {', '.join(wrong)}" if wrong else "has int8 weights in a layout for one GPU"
            raise CheckpointError(f"{path} {what}, which is not read here; {_KNOWN}.")


_KNOWN = (
    "ComfyUI's float8_e4m3fn and float8_e5m2 with one scale a tensor or a row are, and bitsandbytes' nf4, fp4 and "
    "row-wise int8; else use the original"
)


def _lengths(name: str, state: dict[str, Any]) -> dict[str, int]:
    """Of the tensors that hold a weight of four bits: two codes a byte, a scale a block."""
    count = math.prod(state["shape"])
    scales = -(-count // int(state["blocksize"]))
    found = {name: -(-count // 2), f"{name}.absmax": scales, f"{name}.quant_map": 16}
    if "nested_blocksize" in state:
        found[f"{name}.nested_absmax"] = -(-scales // int(state["nested_blocksize"]))
        found[f"{name}.nested_quant_map"] = 256
    return found


def _json(value: Tensor) -> dict[str, Any]:
    """JSON that is stored as bytes."""
    return _json_text(bytes(value.flatten().to(torch.uint8).tolist()).decode("utf-8", errors="replace"))


def _json_text(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise CheckpointError(f"the words {text[:60]!r} that tell how weights are coded are no JSON; use the original.")
    return found
