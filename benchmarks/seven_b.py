"""The full 7B size with random weights: load, draw, edit, answer at 1024 x 1024 in bf16; time and memory.

    python benchmarks/seven_b.py [--folder DIR] [--updates N]

With --folder a complete folder of random weights (29 GB) is written there and loaded as a user's would be;
without, the weights are made on the GPU.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import sys
import time
from pathlib import Path

import torch
from PIL import Image

from bagel import Bagel, checkpoint
from bagel.infer.conversation import Runtime
from bagel.infer.pipeline import find_model
from bagel.model.config import LLMConfig, ModelConfig, ViTConfig
from bagel.model.quantise import quantise
from bagel.tokens import Tokenizer

CONFIG = ModelConfig(
    llm=LLMConfig(
        hidden_size=3584,
        intermediate_size=18944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        vocab_size=152064,
    ),
    vit=ViTConfig(hidden_size=1152, intermediate_size=4304, num_attention_heads=16, num_hidden_layers=27),
)


def random_checkpoint(device: torch.device) -> checkpoint.Checkpoint:
    """Weights of the real sizes, normal with deviation 0.02, norms one."""
    model, vae = checkpoint.build(CONFIG)
    for module in (model, vae):
        for owner in module.modules():
            for name, empty in list(owner._parameters.items()):
                if empty is not None and empty.is_meta:
                    value = torch.empty(empty.shape, dtype=torch.bfloat16, device=device)
                    value.fill_(1) if "norm" in name or (empty.ndim == 1 and name == "weight") else value.normal_(
                        0, 0.02
                    )
                    owner._parameters[name] = torch.nn.Parameter(value, requires_grad=False)
    return checkpoint.Checkpoint(CONFIG, model, vae, Tokenizer.from_folder(find_model("mini")))


def picture() -> Image.Image:
    """Something to edit: 1024 x 1024, noisy."""
    return Image.fromarray(torch.randint(0, 256, (1024, 1024, 3), dtype=torch.uint8).numpy())


def measured(name: str, job, rows: list) -> None:
    """Runs a job twice, and notes the second."""
    for _ in range(2):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
        began = time.perf_counter()
        result = job()
        torch.cuda.synchronize()
    seconds, peak = time.perf_counter() - began, torch.cuda.max_memory_allocated() / 2**30
    phases = {phase: round(value, 3) for phase, value in result.stats.seconds.items()}
    rows.append({"job": name, "seconds": round(seconds, 3), "peak_gib": round(peak, 2), "phases": phases,
                 "calls": result.stats.model_calls, "tokens": result.stats.tokens})  # fmt: skip
    print(json.dumps(rows[-1]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--timesteps", type=int, default=50)
    parser.add_argument("--batch", action="store_true", help="four pictures in one batch too")
    parser.add_argument("--fp8", action="store_true")
    parser.add_argument("--plain", action="store_true", help="without the kernels for a GPU's attention and writing")
    arguments = parser.parse_args()
    device, rows = torch.device("cuda", 0), []
    began = time.perf_counter()
    made = random_checkpoint(device)
    torch.cuda.synchronize()
    print(f"made in {time.perf_counter() - began:.1f} s, {torch.cuda.memory_allocated() / 2**30:.2f} GiB", flush=True)
    if arguments.folder:
        made = written_and_loaded(made, arguments.folder, device)
    if arguments.fp8:
        quantise(made.model, "fp8")
    bagel = Bagel(Runtime.of(made))
    bagel.runtime.engine.fast = not arguments.plain
    image, steps = picture(), arguments.timesteps
    measured("draw", lambda: bagel.draw("a red cube on a table", seed=1, num_timesteps=steps), rows)
    measured("edit", lambda: bagel.edit(image, "make it night", seed=1, num_timesteps=steps), rows)
    small = {"height": 512, "width": 512, "num_timesteps": steps}
    measured("draw 512", lambda: bagel.draw("a red cube on a table", seed=1, **small), rows)
    question = "word " * 30
    if arguments.fp8:
        cached = {"num_timesteps": steps, "step_cache": "taylorseer"}
        measured("draw taylorseer", lambda: bagel.draw("a red cube on a table", seed=1, **cached), rows)
    if arguments.batch:
        four = ["a red cube on a table"] * 4
        measured("draw 4", lambda: bagel.draw(four, seed=[1, 2, 3, 4], num_timesteps=steps)[0], rows)
    measured("first token", lambda: bagel.chat([image.resize((980, 980)), question], max_tokens=2), rows)
    measured("100 tokens", lambda: bagel.chat([image.resize((980, 980)), question], max_tokens=101), rows)
    print(json.dumps({"device": torch.cuda.get_device_name(), "torch": torch.__version__, "rows": rows}))


def written_and_loaded(made: checkpoint.Checkpoint, folder: Path, device: torch.device) -> checkpoint.Checkpoint:
    began = time.perf_counter()
    checkpoint.save(folder, made)
    print(f"saved in {time.perf_counter() - began:.1f} s", flush=True)
    del made
    torch.cuda.empty_cache()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    loaded = checkpoint.load(folder, device, torch.bfloat16)
    torch.cuda.synchronize()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"loaded in {time.perf_counter() - began:.1f} s, host peak {before / 2**20:.2f} -> {after / 2**20:.2f} GiB")
    shutil.rmtree(folder)
    return loaded


if __name__ == "__main__":
    sys.exit(main())
