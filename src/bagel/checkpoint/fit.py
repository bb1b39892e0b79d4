"""Whether files fit a model: names, shapes and kinds, compared with the headers before anything is allocated."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from bagel.checkpoint.names import COMPUTED, Piece
from bagel.errors import CheckpointError
from bagel.misfit import VAE_CAUSE, cause_of
from bagel.model.config import ModelConfig
from bagel.model.vae import VAE
from bagel.tensor_files import Tensors, shortened


def check(module: nn.Module, plan: Mapping[str, Piece], files: Tensors, config: ModelConfig) -> None:
    """Compares names and shapes; raises one CheckpointError with everything that differs."""
    parameters = dict(module.named_parameters())
    stored = set(files) - COMPUTED
    missing, unexpected = sorted(plan.keys() - stored), sorted(stored - plan.keys())
    misshapen = []
    for name in sorted(plan.keys() & stored):
        wanted = _wanted_shape(name, plan[name], parameters, config)
        if files.shape(name) != wanted and not _is_convolution(name, files.shape(name), wanted):
            misshapen.append(f"{name} {list(files.shape(name))} instead of {list(wanted)}")
        elif not files.dtype(name).startswith(("F", "BF")):
            misshapen.append(f"{name} {files.dtype(name)} instead of floating-point numbers")
    if missing or unexpected or misshapen:
        kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
        lists = "; ".join(f"{len(names)} {kind}: {shortened(names)}" for kind, names in kinds if names)
        if isinstance(module, VAE):
            what, cause = "autoencoder's weights", VAE_CAUSE
        else:
            what, cause = "weights", cause_of(missing, unexpected, misshapen)
        raise CheckpointError(f"the {what} do not fit the configuration. {cause} Tensors {lists}.")


def _wanted_shape(name: str, piece: Piece, parameters: Mapping[str, Tensor], config: ModelConfig) -> tuple[int, ...]:
    """A table that grew for new tokens is stored at the size that the configuration says."""
    shape = parameters[piece.parameter].shape
    rows = config.llm.vocab_size if piece.parameter in _GROWING else piece.rows or shape[0]
    return (rows, *shape[1:])


_GROWING = ("embed.weight", "lm_head.weight")


def _is_convolution(name: str, stored: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """A raw SigLIP stores its patch embedding as a convolution [out, 3, p, p]."""
    side = round((wanted[-1] / 3) ** 0.5)
    return name.endswith("patch_embedding.weight") and stored == (wanted[0], 3, side, side)
