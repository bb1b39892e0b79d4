"""The flags that choose a model, and how it is loaded by them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from bagel.app.knobs import FLAT
from bagel.app.words import ModelName, Whole
from bagel.errors import InputError

if TYPE_CHECKING:
    from bagel.infer.pipeline import Bagel
    from bagel.model.config import ModelConfig


@dataclass(frozen=True, kw_only=True)
class ModelFlags:
    model: ModelName = "mini"
    """A folder in the official layout, mini (the embedded model), or a hub name downloaded before."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps, or several GPUs: cuda:0,cuda:1."""
    gpus: Whole | None = None
    """The first so many GPUs together; with --device cpu, so many processes. See --parallel."""
    parallel: str | None = None
    """How several devices share the work: auto, branches, rows, tensor, a product like branches=2,tensor=2, or layers.
    auto with --gpus, else layers."""
    dtype: str = "auto"
    """auto, bf16, fp16, fp32."""
    precision: str | None = None
    """What the weights are kept in: bf16, fp16, fp32, bf11, fp8, int8, nf4, or auto, the first that fits. Wins over
    --dtype."""
    offload: str | None = None
    """Parts kept on the host: some of und,gen,vit,vae,embed,head, or auto, as few as need be."""

    compile: bool = True
    """On a GPU, kernels made for it and captured graphs; without, PyTorch's operations one by one: slower, for
    comparing and for tracking down an error."""
    lora: str | None = None
    """Adapter folders with commas, merged into the weights; FOLDER=0.8 gives one a weight."""

    def config(self) -> ModelConfig:
        """The sizes alone, so that options are checked before a large model is loaded."""
        from bagel.checkpoint import read_config
        from bagel.infer.pipeline import find_model

        return read_config(find_model(self.model))

    def load(self, job: str | None = None) -> Bagel:
        """job: the only one that the model will be asked for, so that no room is left for others."""
        from bagel.app.show import loading

        with loading(self.model) as report:
            return self.load_telling(report, job)

    def load_telling(self, report: Callable[[int, int], None], job: str | None = None) -> Bagel:
        """report: called with (bytes read, bytes in all)."""
        from bagel.infer.pipeline import Bagel

        return Bagel.load(**self.arguments(), job=job, report=report)

    def arguments(self) -> dict[str, Any]:
        """Those of `Bagel.load`, as plain values, which also another process can be given."""
        device, parallel = self._several()
        return {
            "model": self.model,
            "device": device,
            "dtype": self.dtype,
            "precision": self.precision,
            "offload": self.offload,
            "parallel": parallel,
            "compile": self.compile,
            "lora": adapters(self.lora) if self.lora else None,
        }

    def _several(self) -> tuple[str, str | None]:
        """Devices, and how they share the work."""
        if self.gpus is None:
            return self.device, self.parallel
        if self.gpus < 1 or self.device not in ("auto", "cuda", "cpu"):
            raise InputError(f"--gpus {self.gpus} with --device {self.device}: give a number, or the devices by name.")
        names = ["cpu"] * self.gpus if self.device == "cpu" else [f"cuda:{index}" for index in range(self.gpus)]
        return ",".join(names), self.parallel or "auto"


def adapters(words: str) -> list[tuple[str, float]]:
    """Folders and weights, as `Bagel.load` takes them. Raises InputError for a weight that is no number."""
    found = []
    for word in words.split(","):
        folder, equals, weight = word.strip().rpartition("=")
        try:
            found.append((folder, float(weight)) if equals else (weight, 1.0))
        except ValueError:
            raise InputError(f"the weight of --lora {word} is {weight!r}; it must be a number, like 0.8.") from None
    return found


Model = Annotated[ModelFlags, FLAT]
