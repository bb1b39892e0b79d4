"""Trains the small autoencoder on the world's pictures, in time-limited runs that go on where the last one stopped.

RUN/state.safetensors   weights, running mean, optimiser: replaced as a whole
RUN/config.json         the settings
RUN/log.jsonl           a line every `log_every` steps
RUN/check-N.png         pictures before and after, every `check_every` steps
OUT                     `ae.safetensors` and `ae_config.json` of the running mean, written at the end of each run
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from bagel.checkpoint import VAE_WEIGHTS
from bagel.data.config import build
from bagel.errors import InputError
from bagel.images import from_levels, to_image
from bagel.infer.pipeline import find_model
from bagel.mini import ae_state
from bagel.mini.folder import new_vae, write_autoencoder
from bagel.mini.pictures import Pictures, batches
from bagel.mini.sharpness import errors, psnr
from bagel.model.config import ModelConfig
from bagel.model.vae import VAE
from bagel.train import config as configs


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """run: folder of the run; out: the folder that training starts from, which has the sizes already.
    squares, edges, kl: weights beside the pixels' absolute error; squares bring small things on a wide plain first.
    noise: deviation of extra noise on the latents, relative to theirs, so that the decoder forgives what the flow
    leaves. ema: decay of the running mean. tasks: whose pictures, empty for all. max_minutes: of this run; the same
    command goes on. compile, channels_last: for speed alone. measured: pictures from which scale and shift of the
    latents are taken. start: a folder, or `mini`, whose autoencoder a new run begins from, null for random weights.
    by_clock: the rate falls over `max_minutes` instead of `steps`, whatever the speed.
    """

    run: str
    out: str
    steps: int = 8_000
    batch: int = 128
    lr: float = 1e-3
    min_lr: float = 1e-5
    warmup: int = 500
    clip: float = 1.0
    squares: float = 2.0
    edges: float = 1.0
    kl: float = 1e-4
    noise: float = 0.05
    ema: float = 0.999
    tasks: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    workers: int = 8
    device: str = "auto"
    compute: str = "auto"
    compile: bool = False
    channels_last: bool = True
    max_minutes: float | None = None
    save_minutes: float = 5.0
    log_every: int = 100
    check_every: int = 2000
    measured: int = 512
    start: str | None = None
    by_clock: bool = False


def run(path: Path, overrides: list[str]) -> None:
    Run(build(AutoencoderConfig, configs.read(path, overrides), "config")).train()


class Run:
    """One time-limited run."""

    def __init__(self, config: AutoencoderConfig) -> None:
        if config.by_clock and config.max_minutes is None:
            raise InputError("by_clock needs max_minutes.")
        self.config, self.folder, self.out = config, Path(config.run), Path(config.out)
        self.begun = time.monotonic()
        self.model_config = ModelConfig.from_folder(self.out)
        cuda = torch.cuda.is_available()
        self.device = torch.device(("cuda" if cuda else "cpu") if config.device == "auto" else config.device)
        self.half = config.compute == "bf16" or (config.compute == "auto" and self.device.type == "cuda")
        self.layout = torch.channels_last if config.channels_last else torch.contiguous_format
        vae = new_vae(self.model_config, config.seed)
        if config.start:
            vae.load_state_dict(load_file(find_model(config.start) / VAE_WEIGHTS))
        self.vae = vae.to(self.device, memory_format=self.layout)  # type: ignore[call-overload]
        self.mean = {name: value.detach().clone() for name, value in self.vae.named_parameters()}
        fused = self.device.type == "cuda"
        self.optimizer = torch.optim.AdamW(
            self.vae.parameters(), lr=config.lr, betas=(0.9, 0.99), weight_decay=0.0, fused=fused
        )
        if config.compile:
            self.vae.encoder.compile()
            self.vae.decoder.compile()
        self.step = ae_state.load(self.folder, self.vae, self.mean, self.optimizer)

    def train(self) -> None:
        config = self.config
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = json.dumps(asdict(config), indent=1) + "\n"
        (self.folder / "config.json").write_text(settings, encoding="utf-8")
        start = saved = time.monotonic()
        stream = Pictures(config.batch, config.seed, self.step, config.tasks)
        pictures = batches(stream, config.workers, self.device.type == "cuda")
        clock, seen = time.monotonic(), self.step
        while self.step < config.steps:
            values = self._step(next(pictures))
            now = time.monotonic()
            ended = config.max_minutes is not None and now - start > 60 * config.max_minutes
            if self.step % config.log_every == 0 or ended:
                rate = (self.step - seen) * config.batch / (now - clock)
                self._log({**{name: float(value) for name, value in values.items()}, "pictures_per_second": rate})
                clock, seen = now, self.step
            if self.step % config.check_every == 0:
                self.check()
            if now - saved > 60 * config.save_minutes:
                self.save()
                saved = now
            if ended:
                break
        self.save()
        self.export()

    def _step(self, levels: Tensor) -> dict[str, Tensor]:
        config, vae = self.config, self.vae
        pixels = from_levels(levels.to(self.device, non_blocking=True)).contiguous(memory_format=self.layout)
        self._set_rate()
        with self._autocast():
            moments = vae.encoder(pixels)
            made = vae.decoder(self._drawn(moments.float()))
        found = errors(made, pixels, moments)
        loss = found.pixels + config.squares * found.squares + config.edges * found.edges + config.kl * found.kl
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(vae.parameters(), config.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        decay = min(config.ema, self.step / (self.step + 10))
        torch._foreach_lerp_(list(self.mean.values()), [p.detach() for p in vae.parameters()], 1 - decay)
        return {"loss": loss.detach(), "norm": norm, **{k: v.detach() for k, v in found._asdict().items()}}

    def _drawn(self, moments: Tensor) -> Tensor:
        mean, log_variance = moments.chunk(2, dim=1)
        extra = self.config.noise * mean.detach().std()
        deviation = (log_variance.exp() + extra**2).sqrt()
        return mean + deviation * torch.randn_like(mean)

    def _set_rate(self) -> None:
        config, step = self.config, self.step
        rise = min(1.0, (step + 1) / max(config.warmup, 1))
        done = step / config.steps
        if config.by_clock and config.max_minutes:
            done = (time.monotonic() - self.begun) / (60 * config.max_minutes)
        fall = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        for group in self.optimizer.param_groups:
            group["lr"] = rise * (config.min_lr + (config.lr - config.min_lr) * fall)

    def _autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, torch.bfloat16) if self.half else nullcontext()

    def _log(self, values: dict[str, float]) -> None:
        line = {"step": self.step, **{name: round(value, 5) for name, value in values.items()}}
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)

    def save(self) -> None:
        ae_state.save(self.folder, self.step, self.vae, self.mean, self.optimizer)

    # --- what came of it -----------------------------------------------------------------------------------

    def averaged(self) -> VAE:
        """The autoencoder with the running mean of its weights, float32."""
        vae = new_vae(self.model_config).to(self.device)
        vae.load_state_dict(self.mean)
        return vae.requires_grad_(False).eval()

    @torch.inference_mode()
    def check(self) -> None:
        """Pictures that training does not see, before and after."""
        vae = self.averaged()
        pixels = from_levels(Pictures(16, self.config.seed + 1, tasks=self.config.tasks).make(0).to(self.device))
        made = vae.decode(vae.encode(pixels))
        sheet = Image.new("RGB", (8 * 130, 4 * 130), "white")
        for number in range(16):
            column, row = number % 8, number // 8
            sheet.paste(to_image(pixels[number]), (column * 130, row * 260))
            sheet.paste(to_image(made[number]), (column * 130, row * 260 + 130))
        sheet.save(self.folder / f"check-{self.step:06d}.png")
        self._log({"psnr": psnr(made, pixels)})

    @torch.inference_mode()
    def export(self) -> None:
        """Into `out`, with scale and shift measured on `measured` pictures."""
        self.check()
        vae = self.averaged()
        found = Pictures(self.config.measured, self.config.seed + 2, tasks=self.config.tasks).make(0)
        moments = torch.cat([vae.moments(from_levels(part.to(self.device))) for part in found.split(64)])
        mean, log_variance = moments.chunk(2, dim=1)
        deviation = float((mean.var() + log_variance.exp().mean()).sqrt())
        write_autoencoder(self.out, self.model_config, self.mean, 1 / deviation, float(mean.mean()))
        each = mean.std(dim=(0, 2, 3)) / deviation
        self._log({
            "deviation": deviation, "noise_share": float((0.5 * log_variance).exp().mean()) / deviation,
            "least_channel": float(each.min()), "largest_channel": float(each.max()),
        })  # fmt: skip
