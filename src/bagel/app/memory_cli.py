"""The commands around memory: plan, pack."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App

from bagel.app.knobs import FLAT
from bagel.app.words import Json, ModelName, Whole
from bagel.errors import CheckpointError, InputError

if TYPE_CHECKING:
    from bagel.memory.sizes import Demand
    from bagel.model.config import ModelConfig


@dataclass(frozen=True, kw_only=True)
class PlaceFlags:
    """Where it is to run, and in what."""

    card: str | None = None
    """Gigabytes of a card to plan for, like 24; 24-nofp8 without fp8 units, 16-fp16 without bf16. Else the device."""
    device: str = "auto"
    """The GPU to plan for."""
    precision: str | None = None
    """bf16, fp16, fp32, bf11, fp8, int8, nf4, or auto: the first that fits."""
    offload: str | None = None
    """Parts on the host: some of und,gen,vit,vae,embed,head, or auto: as few as need be."""


@dataclass(frozen=True, kw_only=True)
class WorkFlags:
    """What is asked of the model."""

    job: Literal["draw", "edit", "chat"] = "draw"
    """What is to be done."""
    height: Whole | None = None
    """Of the picture that is drawn."""
    width: Whole | None = None
    """Of the picture that is drawn."""
    batch: Whole = 1
    """Requests side by side."""
    context: Whole = 64
    """Tokens of text read before."""

    def demand(self, config: ModelConfig) -> Demand:
        """Raises InputError for sizes that cannot be."""
        from bagel.infer.loading import usual_demand
        from bagel.memory.sizes import Demand

        usual, stride = usual_demand(config), config.latent_stride
        height = usual.height if self.height is None else self.height
        width = usual.width if self.width is None else self.width
        for name, side in (("height", height), ("width", width)):
            if not 0 < side <= config.max_image_side or side % stride:
                raise InputError(f"{name} is {side}; it must be a multiple of {stride}, up to {config.max_image_side}.")
        if self.batch < 1 or self.context < 0:
            raise InputError(f"batch is {self.batch} and context {self.context}; they must be at least 1 and 0.")
        return Demand.of(config, self.job, height, width, batch=self.batch, context=self.context)


def register(app: App) -> None:
    """Adds the commands to the command line."""
    app.command(plan)
    app.command(pack)


def plan(
    *,
    model: ModelName = "mini",
    place: Annotated[PlaceFlags, FLAT] | None = None,
    work: Annotated[WorkFlags, FLAT] | None = None,
    tensor: Whole = 1,
    json: Json = False,
) -> None:
    """Say what lies where and what it will take, before anything is loaded: bagel plan -m DIR --card 16

    Exit code 1 if it does not fit, with what would. The published model need not be downloaded before.

    Parameters
    ----------
    model:
        A folder, mini, a hub name downloaded before, or ByteDance-Seed/BAGEL-7B-MoT.
    tensor:
        Cards of this size that share every layer, as with --parallel tensor.
    json:
        One JSON object on stdout.
    """
    from bagel.app import show
    from bagel.checkpoint import read_config
    from bagel.infer.loading import plan_for, plan_sizes
    from bagel.memory.cards import card_of
    from bagel.memory.plan import Ask
    from bagel.memory.table import as_json, table
    from bagel.model.published import SEVEN_B

    folder, place, work = _folder(model), place or PlaceFlags(), work or WorkFlags()
    demand = work.demand(read_config(folder) if folder else SEVEN_B)
    card, ask = card_of(place.card, place.device), Ask(place.precision, place.offload, tensor)
    made = plan_for(folder, card, ask, demand) if folder else plan_sizes(SEVEN_B, card, ask, demand)
    show.print_json(as_json(made)) if json else print(table(made))


def pack(
    out: Path,
    *,
    precision: Literal["bf11", "fp8", "int8", "nf4"],
    model: ModelName = "mini",
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
    from bagel.checkpoint import check_other_weights
    from bagel.infer.pipeline import Bagel

    folder = show.check_folder(out)
    check_other_weights(folder, packed=True)
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
