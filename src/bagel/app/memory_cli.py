"""The commands around memory: plan, pack."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from bagel.errors import CheckpointError, InputError


def register(app: App) -> None:
    """Adds the commands to the command line."""
    app.command(plan)
    app.command(pack)


def plan(
    *,
    model: Annotated[str, Parameter(name=["--model", "-m"], env_var="BAGEL_MODEL")] = "mini",
    card: str | None = None,
    device: str = "auto",
    precision: str | None = None,
    offload: str | None = None,
    job: Literal["draw", "edit", "chat"] = "draw",
    height: int | None = None,
    width: int | None = None,
    batch: int = 1,
    context: int = 64,
    tensor: int = 1,
    json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Say what lies where and what it will take, before anything is loaded: bagel plan -m DIR --card 16

    Exit code 1 if it does not fit, with what would. The published model need not be downloaded before.

    Parameters
    ----------
    model:
        A folder, mini, a hub name downloaded before, or ByteDance-Seed/BAGEL-7B-MoT.
    card:
        Gigabytes of a card to plan for, like 24; 24-nofp8 without fp8 units, 16-fp16 without bf16. Else the device.
    device:
        The GPU to plan for.
    precision:
        bf16, fp16, fp32, bf11, fp8, int8, nf4, or auto: the first that fits.
    offload:
        Parts on the host: some of und,gen,vit,vae,embed,head, or auto: as few as need be.
    job:
        What is to be done.
    height:
        Of the picture that is drawn.
    width:
        Of the picture that is drawn.
    batch:
        Requests side by side.
    context:
        Tokens of text read before.
    tensor:
        Cards of this size that share every layer, as with --parallel tensor.
    json:
        One JSON object on stdout.
    """
    from bagel.app import show
    from bagel.checkpoint import read_config
    from bagel.infer.loading import plan_for, plan_sizes
    from bagel.memory.cards import card_of
    from bagel.memory.table import as_json, table
    from bagel.model.published import SEVEN_B

    folder = _folder(model)
    demand = _demand(read_config(folder) if folder else SEVEN_B, job, height, width, batch, context)
    place = card_of(card, device)
    if folder:
        made = plan_for(folder, place, precision, offload, demand, tensor)
    else:
        made = plan_sizes(SEVEN_B, place, precision, offload, demand, tensor)
    show.print_json(as_json(made)) if json else print(table(made))


def pack(
    out: Path,
    *,
    precision: Literal["bf11", "fp8", "int8", "nf4"],
    model: Annotated[str, Parameter(name=["--model", "-m"], env_var="BAGEL_MODEL")] = "mini",
    device: str = "auto",
    dtype: str = "auto",
) -> None:
    """Write the weights in fewer bits, to load without the original: bagel pack DIR-nf4 -m DIR --precision nf4

    Parameters
    ----------
    out:
        Folder to write.
    precision:
        What the weights are kept in.
    model:
        A folder, mini, or a hub name downloaded before.
    device:
        Where to quantise; a GPU is faster.
    dtype:
        Of what is not quantised.
    """
    from bagel.app import show
    from bagel.infer.pipeline import Bagel

    folder = show.check_folder(out)
    with show.loading(model) as report:
        bagel = Bagel.load(model, device=device, dtype=dtype, precision=precision, report=report)
    bagel.save(folder)
    print(folder)


def _folder(model: str) -> Path | None:
    """Of a model; None for the published one while it is not here."""
    from bagel.infer.pipeline import find_model
    from bagel.model.published import NAME

    try:
        return find_model(model)
    except CheckpointError:
        if model != NAME:
            raise
        return None


def _demand(config: Any, job: str, height: int | None, width: int | None, batch: int, context: int) -> Any:
    from bagel.infer.loading import usual_demand
    from bagel.memory.sizes import Demand

    usual = usual_demand(config)
    sides = height or usual.height, width or usual.width
    for name, side in zip(("height", "width"), sides, strict=True):
        if not 0 < side <= config.max_image_side or side % config.latent_stride:
            raise InputError(
                f"{name} is {side}; it must be a multiple of {config.latent_stride}, up to {config.max_image_side}."
            )
    if batch < 1 or context < 0:
        raise InputError(f"batch is {batch} and context {context}; they must be at least 1 and 0.")
    return Demand.of(config, job, *sides, batch=batch, context=context)
